"""The tokens: their list, and what staff can do to them."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import conf
from ..database.transactions import non_atomic
from ..exceptions import AIRiskError, ConnectionRequired
from ..models import AIRiskToken
from .filters import NOT_CONFIGURED, DeploymentFilter, StatusFilter
from .numbers import KNOWN, Numbers, page_by_keys
from .questions import NONE_LEFT, ask, disconnected, same_request, to_disconnect, to_renew
from .searching import SearchableByUser
from .token_page import TokenPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import QuerySet

_LIST: Final = "admin:airisk_oauth_airisktoken_changelist"
#: How many tokens one web request can renew, or disconnect, without running into its time limit.
MAX_RENEWED: Final = 200
MAX_DISCONNECTED: Final = 5000


@admin.register(AIRiskToken)
class AIRiskTokenAdmin(SearchableByUser, TokenPage):
    """Shows everything about a token except the token: nothing here decrypts one."""

    list_display = ("owner", "deployment", "status_and_reason", "expires", "renewed", "last_used")
    list_display_links = ("status_and_reason",)
    list_filter = (StatusFilter, DeploymentFilter)
    list_select_related = ("user",)
    show_full_result_count = False
    actions = ("renew_now", "delete_selected")
    fields = (
        "owner_link",
        ("userid", "identity"),
        "deployment",
        "colored_status",
        "expires_at",
        ("obtained_at", "renewed_at", "last_used_at"),
        "reason",
        ("failing_since", "failed_at", "failure_count"),
        "retry_at",
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[AIRiskToken]":
        from ..tokens.status import with_status

        return with_status(super().get_queryset(request).defer("sealed"))

    def numbers(self, request: HttpRequest) -> Numbers:
        """Return how many tokens there are, counted at most once for each request."""
        known: dict[str, Numbers] = request.__dict__.setdefault("_airisk_numbers", {})
        site = self.admin_site.name
        if site not in known:
            known[site] = Numbers(self.get_queryset(request), request, site)
        return known[site]

    def is_large(self, request: HttpRequest) -> bool:
        return self.numbers(request).are_many

    def notes(self, request: HttpRequest) -> list[str]:
        notes = super().notes(request)
        return [gettext("The list is long, so its numbers can be up to a minute old."), *notes] if notes else []

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any) -> Any:
        paginator = super().get_paginator(request, queryset, *args, **kwargs)
        if request.GET.keys() <= KNOWN:
            # In place of another query: it is a cached property.
            paginator.__dict__["count"] = self.numbers(request).of_list()
        if self.is_large(request):
            paginator.__dict__["page"] = partial(page_by_keys, paginator)
        return paginator

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Refuse to filter by a hidden column: a list that gets shorter reveals what is in the column."""
        hidden = {field.name for field in self.opts.fields if not field.editable}
        return lookup.partition("__")[0] not in hidden and super().lookup_allowed(lookup, value, request)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """Find tokens by what the log names, too: AIRisk's trace id, and the token's own id."""
        return [*super().get_search_fields(request), "failure_trace_id"]

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> Any:
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        try:
            by_id = AIRiskToken._meta.pk.to_python(search_term.strip())
        except ValidationError:
            return found, may_have_duplicates
        return found | queryset.filter(pk=by_id), may_have_duplicates

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AIRiskToken | None = None) -> bool:
        return False

    # Its actions call AIRisk, which no transaction may wait for, and change rows one by one.
    @non_atomic
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "GET" and "state" in request.GET:
            # A bookmark from version 1.0, where the parameter had another name.
            query = request.GET.copy()
            query["status"] = query.pop("state")[-1]
            return HttpResponseRedirect(f"{request.path}?{query.urlencode()}")
        if request.method == "GET":
            self._warn_of_failing_functions(request)
        known = conf.known_aliases() if self.has_renew_permission(request) else []
        # A wrong alias cannot be part of an address.
        ours = {"airisk_deployments": list(filter(conf.is_alias, known))}
        response = super().changelist_view(request, {**(extra_context or {}), **ours})
        context = getattr(response, "context_data", None) or {}
        if "cl" in context:
            context["airisk_come_later"] = self.numbers(request).come_later
            if not context["airisk_come_later"]:
                context["airisk_statuses"] = list(_numbers_by_status(self, request, context["cl"]))
            context["airisk_notes"] = self.notes(request)
        return response

    def _warn_of_failing_functions(self, request: HttpRequest) -> None:
        from .. import sealing

        for failure in filter(None, (conf.DEPLOYMENTS.failure(), sealing.KEYS.failure())):
            self.message_user(request, failure, messages.WARNING)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """Name the deployment where there are several, and where it is not in the settings."""
        columns = tuple(self.list_display)
        if len(conf.known_aliases()) != 1 or request.GET.get(DeploymentFilter.parameter_name) == NOT_CONFIGURED:
            return columns
        return tuple(name for name in columns if name != "deployment")

    @admin.action(description=_("Renew now"), permissions=["renew"])
    def renew_now(self, request: HttpRequest, queryset: "QuerySet[AIRiskToken]") -> HttpResponse | None:
        from .. import refresh

        number = queryset.count()
        if not number:
            self.message_user(request, NONE_LEFT, messages.WARNING)
            return None
        if number > MAX_RENEWED:
            text = _("Choose at most %d tokens; for more, use the command refresh_airisk_tokens.")
            self.message_user(request, text % MAX_RENEWED, messages.ERROR)
            return None
        if not request.POST.get("post"):
            return ask(self, request, {**to_renew(number), **same_request(request)})
        # By key, because a renewed token may leave the filtered list that it was chosen from.
        chosen = AIRiskToken.objects.primary().filter(pk__in=list(queryset.values_list("pk", flat=True)))
        began = timezone.now()
        for sentence, level in refresh.renew_chosen(chosen).messages():
            self.message_user(request, sentence, level)
        for token in chosen.defer("sealed"):
            done = token.renewed_at >= began
            self.log_change(request, token, gettext("Renewed by hand.") if done else gettext("Tried to renew by hand."))
        return None

    @admin.action(description=_("Disconnect"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: "QuerySet[AIRiskToken]") -> HttpResponse | None:
        """Disconnect tokens. The name is that of Django's own action, which this one replaces."""
        from ..connecting import flow

        number = queryset.count()
        if not number:
            self.message_user(request, NONE_LEFT, messages.WARNING)
            return None
        if number > MAX_DISCONNECTED:
            self.message_user(request, _("Choose at most %d tokens.") % MAX_DISCONNECTED, messages.ERROR)
            return None
        if not request.POST.get("post"):
            return ask(self, request, {**to_disconnect(number), **same_request(request)})
        self.log_deletions(request, queryset)
        # In one order, so that two requests that do this at once do not block each other.
        tokens = list(queryset.order_by("pk"))
        for token in tokens:
            flow.disconnect(token)
        self.message_user(request, disconnected(len(tokens)), messages.SUCCESS)
        return None

    def get_urls(self) -> list[URLPattern]:
        from django.views.decorators.http import require_POST

        obtain, renew = map(self.admin_site.admin_view, (require_POST(self.obtain), self.renew))
        return [
            path("obtain/<slug:alias>/", obtain, name="airisk_oauth_airisktoken_obtain"),
            path("<path:object_id>/renew/", renew, name="airisk_oauth_airisktoken_renew"),
            *super().get_urls(),
        ]

    @non_atomic
    def obtain(self, request: HttpRequest, alias: str) -> HttpResponse:
        """Obtain the application's token, or renew it; in this browser if AIRisk requires a person."""
        from ..connecting.pages import deployment_or_404, redirect_to_airisk
        from ..connecting.problems import problem_message
        from ..providers.source import SettingUnavailable
        from ..tokens.renewal import renew_now
        from ..tokens.stored import APPLICATION

        if not self.has_renew_permission(request):
            raise PermissionDenied
        back = reverse(_LIST, current_app=self.admin_site.name)
        try:
            deployment = deployment_or_404(alias)
            done = renew_now(deployment, APPLICATION)
        except ConnectionRequired:
            return redirect_to_airisk(request, deployment, next_url=back, for_application=True)
        except (AIRiskError, SettingUnavailable) as error:
            self.message_user(request, problem_message(request, error), messages.ERROR)
        else:
            text = _("The application's token was obtained.") if done else _("Another process is obtaining it.")
            for token in AIRiskToken.objects.primary().of_application(alias) if done else ():
                self.log_change(request, token, gettext("Renewed by hand."))
            self.message_user(request, text, messages.SUCCESS if done else messages.INFO)
        return redirect(back)


def _numbers_by_status(admin: AIRiskTokenAdmin, request: HttpRequest, changelist: Any) -> "Iterator[tuple[Any, ...]]":
    """Yield each status, how many tokens have it, the list of these, and whether that is the list on the page.

    The other filters and the search of this list apply, and stay.
    """
    from ..tokens.status import total_by_status

    counts = admin.numbers(request).without(StatusFilter.parameter_name, changelist)
    for status, number in total_by_status(counts).items():
        link = changelist.get_query_string({StatusFilter.parameter_name: status.value}, ["p"])
        yield status, number, link, request.GET.get(StatusFilter.parameter_name) == status.value
