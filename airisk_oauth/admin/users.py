"""Identities on the pages of users: for a site to add to its own admin of users.

Django's own ``UserAdmin`` gets them by itself.
"""

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Exists, OuterRef
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import conf
from ..models import AIRiskIdentity
from .filters import Filter

if TYPE_CHECKING:
    _Inline = admin.TabularInline[AIRiskIdentity, Any]
else:
    _Inline = admin.TabularInline

_DJANGOS_OWN = "django.contrib.auth.admin.UserAdmin"


def find_aliases() -> list[str]:
    """Return the deployments in the settings; none if these are wrong, because users can be edited without them."""
    with suppress(ImproperlyConfigured):
        return conf.aliases()
    return []


def deployment_choices(*more: str) -> forms.Select:
    """Return a field's widget that offers the deployments in the settings, and these."""
    return forms.Select(choices=[(alias, alias) for alias in dict.fromkeys([*find_aliases(), *more])])


class AIRiskIdentityInline(_Inline):
    """Who a user is on AIRisk, edited on the user's own page."""

    model = AIRiskIdentity
    extra = 0

    def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
        # A deployment that was removed from the settings stays a choice for its identities: saving must not move them.
        stored = [] if obj is None else AIRiskIdentity.objects.filter(user=obj).values_list("deployment", flat=True)
        kwargs["widgets"] = {"deployment": deployment_choices(*stored)}
        return super().get_formset(request, obj, **kwargs)


class AIRiskIdentityFilter(Filter):
    """Filters users by whether they have an identity on AIRisk."""

    title = _("AIRisk identity")
    parameter_name = "airisk_without"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(alias, gettext("none for “%(alias)s”") % {"alias": alias}) for alias in find_aliases()]

    def condition(self, value: str) -> Any:
        return ~Exists(AIRiskIdentity.objects.filter(user=OuterRef("pk"), deployment=value))


def extend_djangos_user_admin(site: admin.AdminSite) -> None:
    """Add both to the admin of users if that is Django's own, which nobody else can extend; leave a site's own alone.

    Only this one registered object is changed, so a class that inherits from Django's is not.
    """
    # Registers it, if this app comes before that one, which the admin cannot do without.
    import_module("django.contrib.auth.admin")
    users = get_user_model()
    if not site.is_registered(users):
        return
    user_admin: Any = site.get_model_admin(users)
    kind = type(user_admin)
    if f"{kind.__module__}.{kind.__qualname__}" == _DJANGOS_OWN:
        user_admin.inlines = [*user_admin.inlines, AIRiskIdentityInline]
        user_admin.list_filter = [*user_admin.list_filter, AIRiskIdentityFilter]
