"""Create the accounts for trying out the demo."""

from typing import Any, Final
from urllib.parse import urljoin

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from airisk_oauth import conf
from airisk_oauth.models import AIRiskIdentity

#: The userid on AIRisk of each account, by name; the name is also the password.
ACCOUNTS: Final = {"demo": "user_42", "admin": "user_1"}


class Command(BaseCommand):
    help = "Creates the users demo and admin, in development only. Existing users are not changed."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("The passwords of these accounts are public: they are for DEBUG=true only.")
        site = urljoin(conf.deployment().redirect_uri, "/")
        self.stdout.write(f"The demo is at {site} with these accounts:")
        for name, userid in ACCOUNTS.items():
            self.stdout.write(f"  {name:6} {self._account(name)}, {self._identity(name, userid)}")
        if not apps.is_installed("airisk_oauth.sandbox"):
            self.stdout.write(f"Enter who they are on your AIRisk at {site}admin/airisk_oauth/airiskidentity/")

    def _account(self, name: str) -> str:
        if User.objects.filter(username=name).exists():
            return "unchanged"
        create = User.objects.create_superuser if name == "admin" else User.objects.create_user
        create(name, f"{name}@example.com", name)
        return f"password {name}"

    def _identity(self, name: str, userid: str) -> str:
        user = User.objects.get(username=name)
        identity = AIRiskIdentity.objects.filter(user=user, deployment="default").first()
        if identity is None and (name == "demo" or apps.is_installed("airisk_oauth.sandbox")):
            # Not on a real AIRisk: there user_1 may be a real person, and the admin of this demo somebody else.
            identity = AIRiskIdentity.objects.create(user=user, userid=userid)
        return f"{identity.userid} on AIRisk" if identity else "no AIRisk identity yet"
