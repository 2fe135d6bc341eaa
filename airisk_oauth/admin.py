"""Who is who on AIRisk, to be edited; and which tokens live and why one does not, to be seen.

Every process of a site loads this module when it starts; what only an action needs is imported by the action.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext, gettext_noop, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from . import conf
from .database.transactions import non_atomic
from .exceptions import AIRiskError, ConnectionRequired
from .models import AIRiskIdentity, AIRiskToken
from .tokens import status
from .tokens.status import Status

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet

    from .tokens.report import Report

    _IdentityAdmin = admin.ModelAdmin[AIRiskIdentity]
    _TokenAdmin = admin.ModelAdmin[AIRiskToken]
else:
    _IdentityAdmin = _TokenAdmin = admin.ModelAdmin

_LIST: Final = "admin:airisk_oauth_airisktoken_changelist"
#: What a web request can wait for.
RENEW_AT_MOST: Final = 200
FORGET_AT_MOST: Final = 5000


class DeploymentFilter(admin.SimpleListFilter):
    title = _("deployment")
    parameter_name = "deployment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(alias, alias) for alias in conf.aliases()]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        return queryset.filter(deployment=self.value()) if self.value() else queryset


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(Status.choices)

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        return queryset.filter(state=self.value()) if self.value() else queryset


class _SearchedByUser:
    """Search by userid, and by what the site's user model calls a name and an e-mail address."""

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        user = get_user_model()
        fields = {field.name for field in user._meta.get_fields()}
        email = getattr(user, "get_email_field_name", lambda: "email")()
        names = {user.USERNAME_FIELD, email} & fields
        return ["userid", *(f"user__{name}" for name in sorted(names))]


@admin.register(AIRiskIdentity)
class AIRiskIdentityAdmin(_SearchedByUser, _IdentityAdmin):
    list_display = ("user", "deployment", "userid")
    list_display_links = ("user", "userid")
    list_filter = (DeploymentFilter,)
    list_select_related = ("user",)
    raw_id_fields = ("user",)

    def get_autocomplete_fields(self, request: HttpRequest) -> list[str]:
        users = self.admin_site._registry.get(get_user_model())
        return ["user"] if users is not None and users.get_search_fields(request) else []

    def get_form(self, request: Any, obj: AIRiskIdentity | None = None, change: bool = False, **kwargs: Any) -> Any:
        # A deployment that has left the settings stays a choice where it is one, or saving would move the identity.
        aliases = dict.fromkeys([*conf.aliases(), *([obj.deployment] if obj else [])])
        kwargs["widgets"] = {"deployment": forms.Select(choices=[(alias, alias) for alias in aliases])}
        return super().get_form(request, obj, change, **kwargs)


@admin.register(AIRiskToken)
class AIRiskTokenAdmin(_SearchedByUser, _TokenAdmin):
    """Shows what there is to know of a token but the token: nothing here opens one."""

    list_display = ("owner_link", "state_and_why", "ends", "renewed", "last_used", "userid", "deployment")
    list_display_links = ("state_and_why",)
    list_filter = (StateFilter, DeploymentFilter)
    list_select_related = ("user",)
    show_full_result_count = False
    actions = ("renew_now", "delete_selected")
    fields = (
        ("owner_link", "userid"),
        "deployment",
        "coloured_state",
        "expires_at",
        ("obtained_at", "renewed_at", "last_used_at"),
        "trouble",
        ("failing_since", "failed_at", "failure_count"),
        "retry_at",
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[AIRiskToken]":
        return status.with_status(super().get_queryset(request).defer("sealed"))

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Refuse to filter by a column that nobody may see: a list that gets shorter tells what is in it."""
        hidden = {field.name for field in self.opts.fields if not field.editable}
        return lookup.partition("__")[0] not in hidden and super().lookup_allowed(lookup, value, request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AIRiskToken | None = None) -> bool:
        return False

    def has_renew_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("airisk_oauth.change_airisktoken")

    @admin.display(description=_("user"), ordering="user")
    def owner_link(self, token: AIRiskToken) -> str:
        """Lead to the user's own page, where the site's admin has one."""
        if token.user is None or not self.admin_site.is_registered(type(token.user)):
            return str(token.user or _("the application"))
        options = token.user._meta
        url = reverse(
            f"{self.admin_site.name}:{options.app_label}_{options.model_name}_change", args=[quote(token.user.pk)]
        )
        return format_html('<a href="{}">{}</a>', url, token.user)

    @admin.display(description=_("state"))
    def coloured_state(self, token: AIRiskToken) -> str:
        state = Status(getattr(token, "state"))  # noqa: B009 - an annotation
        return format_html('<span class="airisk-state airisk-{}">{}</span>', state.value, state.label)

    @admin.display(description=_("state"))
    def state_and_why(self, token: AIRiskToken) -> str:
        return format_html('{} <div class="airisk-why">{}</div>', self.coloured_state(token), self.trouble(token) or "")

    @admin.display(description=_("ends"), ordering="expires_at")
    def ends(self, token: AIRiskToken) -> str | None:
        if not token.key_id:
            return None
        return _from_now(token.expires_at) if token.expires_at else str(_("no end named"))

    @admin.display(description=_("last renewed"), ordering="renewed_at")
    def renewed(self, token: AIRiskToken) -> str | None:
        return _from_now(token.renewed_at) if token.key_id else None

    @admin.display(description=_("last used"), ordering="last_used_at")
    def last_used(self, token: AIRiskToken) -> str:
        return _from_now(token.last_used_at)

    @admin.display(description=_("trouble"))
    def trouble(self, token: AIRiskToken) -> str | None:
        words = (
            status.explanation(token),
            token.get_failure_kind_display(),
            token.failure_status,
            token.failure_reason,
            token.failure_trace_id,
            token.failed_at and _from_now(token.failed_at),
        )
        return " · ".join(str(word) for word in words if word) or None

    @admin.action(description=_("Renew now"), permissions=["renew"])
    def renew_now(self, request: HttpRequest, queryset: "QuerySet[AIRiskToken]") -> HttpResponse | None:
        from .notices.gathering import together

        number = queryset.count()
        if number > RENEW_AT_MOST:
            text = _("Choose %d tokens at the most; for more there is the command refresh_airisk_tokens.")
            self.message_user(request, text % RENEW_AT_MOST, messages.ERROR)
            return None
        if not request.POST.get("post"):
            title = ngettext("Renew %d token now?", "Renew %d tokens now?", number) % number
            explanation = gettext("AIRisk is asked for a new token for each. Their users notice nothing.")
            return self._ask(request, title, explanation)
        # A token that was renewed may leave the list that it was chosen from.
        chosen = AIRiskToken.objects.primary().filter(pk__in=list(queryset.values_list("pk", flat=True)))
        began = timezone.now()
        with together():
            self._report(request, self._renew(chosen.order_by("deployment", "pk")))
        for token in chosen.defer("sealed"):
            done = token.renewed_at >= began
            self.log_change(request, token, gettext("Renewed by hand.") if done else gettext("Tried to renew by hand."))
        return None

    def _renew(self, tokens: "QuerySet[AIRiskToken]") -> "Report":
        from .tokens import sweep
        from .tokens.report import Report

        report = Report()
        for alias, group in groupby(tokens.values_list("deployment", "pk"), key=lambda row: row[0]):
            pks = [pk for _alias, pk in group]
            try:
                deployment = conf.deployment(alias)
            except ImproperlyConfigured as error:
                report.skip(str(error).rstrip("."), len(pks))
                continue
            if not deployment.silent_renewal:
                report.skip(gettext_noop("a person has to connect"), len(pks))
                continue
            report.add(sweep.Sweep(deployment, within=None, pks=pks).run())
        return report

    @admin.action(description=_("Disconnect"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: "QuerySet[AIRiskToken]") -> HttpResponse | None:
        """Forget these tokens; of this name, because it takes the place of Django's own action."""
        from .connecting import flow

        number = queryset.count()
        if number > FORGET_AT_MOST:
            self.message_user(request, _("Choose %d tokens at the most.") % FORGET_AT_MOST, messages.ERROR)
            return None
        if not request.POST.get("post"):
            title = ngettext("Forget %d token?", "Forget %d tokens?", number) % number
            explanation = gettext(
                "Their users have to connect again. AIRisk cannot revoke a token: it ends there by itself, at its time."
            )
            return self._ask(request, title, explanation)
        self.log_deletions(request, queryset)
        # In one order, so that two who do this at once do not wait for each other; each for itself.
        tokens = list(queryset.order_by("pk"))
        for token in tokens:
            flow.disconnect(token)
        text = ngettext("%d token was forgotten.", "%d tokens were forgotten.", len(tokens)) % len(tokens)
        self.message_user(request, text, messages.SUCCESS)
        return None

    def _ask(self, request: HttpRequest, title: str, explanation: str) -> HttpResponse:
        """Show a page that asks whether an action is meant; it sends the same again, confirmed."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "explanation": explanation,
            "action": request.POST["action"],
            "select_across": request.POST.get("select_across", "0"),
            "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
        }
        return TemplateResponse(request, "admin/airisk_oauth/airisktoken/confirm.html", context)

    def delete_model(self, request: HttpRequest, obj: AIRiskToken) -> None:
        from .connecting import flow

        flow.disconnect(obj)

    def get_urls(self) -> list[URLPattern]:
        obtain = self.admin_site.admin_view(require_POST(self.obtain))
        ours = path("obtain/<slug:alias>/", obtain, name="airisk_oauth_airisktoken_obtain")
        return [ours, *super().get_urls()]

    # Its actions call AIRisk, which no transaction waits for, and change rows one by one.
    @non_atomic
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        ours = {
            "airisk_deployments": conf.aliases() if self.has_renew_permission(request) else [],
            "airisk_states": lambda: status.count_by_status(AIRiskToken.objects.all()).items(),
        }
        return super().changelist_view(request, {**(extra_context or {}), **ours})

    @non_atomic
    def obtain(self, request: HttpRequest, alias: str) -> HttpResponse:
        """Obtain the application's token, or renew it; by this browser where AIRisk wants a person."""
        from .connecting.pages import deployment_or_404, redirect_to_airisk
        from .connecting.problems import problem_message
        from .tokens.renewal import renew_now
        from .tokens.stored import APPLICATION

        if not self.has_renew_permission(request):
            raise PermissionDenied
        deployment = deployment_or_404(alias)
        back = reverse(_LIST, current_app=self.admin_site.name)
        try:
            done = renew_now(deployment, APPLICATION)
        except ConnectionRequired:
            return redirect_to_airisk(request, deployment, next_url=back, for_application=True)
        except AIRiskError as error:
            self.message_user(request, problem_message(request, error), messages.ERROR)
        else:
            text = _("The application's token was obtained.") if done else _("Another process is obtaining it.")
            for token in AIRiskToken.objects.primary().of_application(alias) if done else ():
                self.log_change(request, token, gettext("Renewed by hand."))
            self.message_user(request, text, messages.SUCCESS if done else messages.INFO)
        return redirect(back)

    def _report(self, request: HttpRequest, report: "Report") -> None:
        for words, level in _sentences(report):
            self.message_user(request, words, level)


def _from_now(moment: "datetime") -> str:
    """Return a moment as people say it, to be read at a glance; the exact one stands on the token's page."""
    now = timezone.now()
    if abs(moment - now) < timedelta(minutes=1):
        return gettext("in less than a minute") if moment > now else gettext("less than a minute ago")
    if moment > now:
        return _("in %(time)s") % {"time": timeuntil(moment, depth=1)}
    return _("%(time)s ago") % {"time": timesince(moment, depth=1)}


def _sentences(report: "Report") -> Iterator[tuple[str, int]]:
    from .tokens.report import REFUSED, RENEWED, UNAVAILABLE

    counts = report.counts
    if number := counts[RENEWED]:
        yield ngettext("%d token was renewed.", "%d tokens were renewed.", number) % number, messages.SUCCESS
    if number := counts[REFUSED]:
        text = ngettext(
            "%d token was refused: its user has to reconnect.",
            "%d tokens were refused: their users have to reconnect.",
            number,
        )
        yield text % number, messages.ERROR
    if number := counts[UNAVAILABLE]:
        text = ngettext(
            "%d token was not renewed: AIRisk was not available.",
            "%d tokens were not renewed: AIRisk was not available.",
            number,
        )
        yield text % number, messages.ERROR
    for reason, number in report.reasons.items():
        text = ngettext(
            "%(number)d token was skipped: %(reason)s.", "%(number)d tokens were skipped: %(reason)s.", number
        )
        yield text % {"number": number, "reason": gettext(reason)}, messages.WARNING
