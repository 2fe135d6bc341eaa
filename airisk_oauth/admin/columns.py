"""What the list of tokens and the page of a token show."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..models import AIRiskIdentity, AIRiskToken

if TYPE_CHECKING:
    _TokenAdmin = admin.ModelAdmin[AIRiskToken]
else:
    _TokenAdmin = admin.ModelAdmin


class TokenColumns(_TokenAdmin):
    @admin.display(description=_("user"), ordering="user")
    def owner_link(self, token: AIRiskToken) -> str:
        """Link to the user's own page, if the site's admin has one."""
        if token.user is None or not self.admin_site.is_registered(type(token.user)):
            return str(token.user or _("the application"))
        options = token.user._meta
        url = reverse(
            f"{self.admin_site.name}:{options.app_label}_{options.model_name}_change", args=[quote(token.user.pk)]
        )
        return format_html('<a href="{}">{}</a>', url, token.user)

    @admin.display(description=_("AIRisk identity now"))
    def identity(self, token: AIRiskToken) -> str | None:
        """Link to what says now who the user is on AIRisk; another userid than the token's makes the token useless."""
        found = AIRiskIdentity.objects.filter(user=token.user_id, deployment=token.deployment).first()
        if token.user_id is None or found is None:
            return None
        if not self.admin_site.is_registered(AIRiskIdentity):
            return str(found.userid)
        url = reverse(f"{self.admin_site.name}:airisk_oauth_airiskidentity_change", args=[found.pk])
        return format_html('<a href="{}">{}</a>', url, found.userid)

    @admin.display(description=_("status"))
    def colored_status(self, token: AIRiskToken) -> str:
        from ..tokens.status import status_of

        status = status_of(token)
        return format_html('<span class="airisk-state airisk-{}">{}</span>', status.value, status.label)

    @admin.display(description=_("status"))
    def status_and_reason(self, token: AIRiskToken) -> str:
        return format_html('{} <div class="airisk-why">{}</div>', self.colored_status(token), self.reason(token) or "")

    @admin.display(description=_("expires"), ordering="expires_at")
    def expires(self, token: AIRiskToken) -> str | None:
        if not token.key_id:
            return None
        return _from_now(token.expires_at) if token.expires_at else str(_("no expiry"))

    @admin.display(description=_("last renewed"), ordering="renewed_at")
    def renewed(self, token: AIRiskToken) -> str | None:
        return _from_now(token.renewed_at) if token.key_id else None

    @admin.display(description=_("last used"), ordering="last_used_at")
    def last_used(self, token: AIRiskToken) -> str:
        return _from_now(token.last_used_at)

    @admin.display(description=_("reason"))
    def reason(self, token: AIRiskToken) -> str | None:
        from ..tokens.status import explanation

        parts = (
            explanation(token),
            token.get_failure_kind_display(),
            token.failure_status,
            token.failure_reason,
            token.failure_trace_id,
            token.failed_at and _from_now(token.failed_at),
        )
        return " · ".join(str(part) for part in parts if part) or None


def _from_now(moment: datetime) -> str:
    """Return a time as people say it, to be read at a glance; the token's page has the exact one."""
    now = timezone.now()
    if abs(moment - now) < timedelta(minutes=1):
        return gettext("in less than a minute") if moment > now else gettext("less than a minute ago")
    if moment > now:
        return _("in %(time)s") % {"time": timeuntil(moment, depth=1)}
    return _("%(time)s ago") % {"time": timesince(moment, depth=1)}
