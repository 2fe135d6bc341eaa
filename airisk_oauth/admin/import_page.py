"""The page on which staff import identities from a CSV file: first it shows what would change, then it saves."""

from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, Final, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import Error as DatabaseError
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import conf
from ..models import AIRiskIdentity

if TYPE_CHECKING:
    from ..management.importing import Result

    _IdentityAdmin = admin.ModelAdmin[AIRiskIdentity]
else:
    _IdentityAdmin = admin.ModelAdmin

#: How many bytes a file may have that a web request can import without running into its time limit.
MAX_FILE: Final = 500_000
#: How many wrong rows, and how many changes, the page names.
NAMED: Final = 100


class ImportForm(forms.Form):
    """A file, or its text once it has been checked."""

    file = forms.FileField(
        label=_("CSV file"),
        required=False,
        help_text=_(
            "In UTF-8, with the columns user and userid and, optionally, deployment and label. Users are named as they "
            "sign in."
        ),
    )
    text = forms.CharField(required=False, strip=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        aliases = conf.known_aliases()
        self.fields["deployment"] = forms.ChoiceField(
            label=_("deployment"),
            choices=[(alias, alias) for alias in aliases],
            widget=forms.Select if len(aliases) > 1 else forms.HiddenInput,
            initial=next(iter(aliases), None),
            help_text=_("For rows that name none."),
        )

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = self.cleaned_data
        file = given.get("file")
        # Browsers end the lines of a form's text with CRLF, whatever the file had.
        content = file.read(MAX_FILE + 1) if file else given.get("text", "").replace("\r\n", "\n").encode()
        if len(content) > MAX_FILE:
            text = _("The file is larger than %d kB: use the command import_airisk_identities.")
            raise forms.ValidationError(text % (MAX_FILE // 1000))
        if not content and not self.errors:
            raise forms.ValidationError(_("Choose a file."))
        return {**given, "content": content}


class ImportPage(_IdentityAdmin):
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.import_file)
        return [path("import/", view, name="airisk_oauth_airiskidentity_import"), *super().get_urls()]

    def has_import_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request) and self.has_change_permission(request)

    def import_file(self, request: HttpRequest) -> HttpResponse:
        """Check a file and show what it would change; save the text of a file that was shown."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        form = ImportForm(request.POST or None, request.FILES or None)
        context: dict[str, Any] = {}
        if form.is_valid():
            is_checked = not form.cleaned_data["file"]
            done = _Import(form, dry_run=not is_checked)
            result = done.result
            if result and not result.wrong:
                if is_checked:
                    return self._saved(request, done, result)
                # The next form has the text of the file: a browser does not send a file again by itself.
                text = form.cleaned_data["content"].decode("utf-8-sig")
                form = ImportForm(initial={"text": text, "deployment": form.cleaned_data["deployment"]})
                context = {"named": done.named(), "summary": _summary(result)}
            context |= {"result": result, "wrong": done.wrong[:NAMED]}
        return self._import_page(request, {**context, "form": form})

    def _saved(self, request: HttpRequest, done: "_Import", result: "Result") -> HttpResponse:
        words, staff = gettext("Imported from a file."), cast("Any", request.user).pk
        changed = [identity for identity, _before in done.changed]
        for identities, flag in ((_stored(done.added), ADDITION), (changed, CHANGE)):
            if identities:
                LogEntry.objects.log_actions(staff, identities, flag, words)
        self.message_user(request, _summary(result), messages.SUCCESS)
        return redirect(self._list())

    def _import_page(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        ours = {"opts": self.opts, "title": gettext("Import AIRisk identities"), "back": self._list()}
        context = {**self.admin_site.each_context(request), **ours, **context}
        return TemplateResponse(request, "admin/airisk_oauth/airiskidentity/import.html", context)

    def _list(self) -> str:
        return reverse("admin:airisk_oauth_airiskidentity_changelist", current_app=self.admin_site.name)


class _Import:
    """What became of a form's file.

    :ivar result: ``None`` if it failed; then the form has an error.
    """

    def __init__(self, form: ImportForm, *, dry_run: bool) -> None:
        from ..management.csv_rows import Row, UnreadableFile
        from ..management.importing import import_identities

        self.wrong: list[Row] = []
        self.added: list[AIRiskIdentity] = []
        self.changed: list[tuple[AIRiskIdentity, str]] = []
        self.result: Result | None = None
        given = form.cleaned_data
        with TextIOWrapper(BytesIO(given["content"]), encoding="utf-8-sig", newline="") as lines:
            try:
                self.result = import_identities(
                    lines, given["deployment"], on_wrong=self.wrong.append, on_saved=self._note, dry_run=dry_run
                )
            except UnreadableFile as error:
                form.add_error(None, gettext("The file cannot be read: %s") % error.why.translated)
            except DatabaseError as error:
                form.add_error(None, gettext("Nothing was imported: [%s]") % error)

    def _note(self, added: list[AIRiskIdentity], changed: list[tuple[AIRiskIdentity, str]]) -> None:
        self.added += added
        self.changed += changed

    def named(self) -> list[tuple[AIRiskIdentity, str, str]]:
        """Return the first changed identities, each with what it was and what it would be."""
        from ..management.importing import describe

        first = self.changed[:NAMED]
        prefetch_related_objects([identity for identity, _before in first], "user")
        return [(identity, before, describe(identity)) for identity, before in first]


def _summary(result: "Result") -> str:
    numbers = {"added": result.added, "changed": result.changed, "unchanged": result.unchanged}
    return gettext("%(added)d added, %(changed)d changed, %(unchanged)d unchanged.") % numbers


def _stored(added: list[AIRiskIdentity]) -> list[AIRiskIdentity]:
    """Return these identities with their keys, which not every database returns when it creates many rows."""
    owners = {(identity.user_id, identity.deployment) for identity in added}
    found: list[AIRiskIdentity] = []
    users = sorted({user_id for user_id, _deployment in owners})
    for start in range(0, len(users), 500):
        stored = AIRiskIdentity.objects.primary().filter(user__in=users[start : start + 500])
        found += [identity for identity in stored if (identity.user_id, identity.deployment) in owners]
    return found
