"""Make the accounts that the demo is tried with."""

from typing import Any, Final
from urllib.parse import urljoin

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from airisk_oauth import conf
from airisk_oauth.models import AIRiskIdentity

#: By name, which is the password too: who they are on AIRisk.
ACCOUNTS: Final = {"demo": "user_42", "admin": "user_1"}


class Command(BaseCommand):
    help = "Makes the users demo and admin, in development only. What is already there stays as it is."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("Everybody knows the passwords of these accounts: they are for DEBUG=true only.")
        site = urljoin(conf.deployment().redirect_uri, "/")
        self.stdout.write(f"The demo is at {site} with these accounts:")
        for name, userid in ACCOUNTS.items():
            self.stdout.write(f"  {name:6} {self._account(name)}, {self._identity(name, userid)}")
        if not apps.is_installed("airisk_oauth.sandbox"):
            self.stdout.write(f"Say who they are on your AIRisk at {site}admin/airisk_oauth/airiskidentity/")

    def _account(self, name: str) -> str:
        if User.objects.filter(username=name).exists():
            return "as it was"
        create = User.objects.create_superuser if name == "admin" else User.objects.create_user
        create(name, f"{name}@example.com", name)
        return f"password {name}"

    def _identity(self, name: str, userid: str) -> str:
        user = User.objects.get(username=name)
        identity = AIRiskIdentity.objects.filter(user=user, deployment="default").first()
        if identity is None and (name == "demo" or apps.is_installed("airisk_oauth.sandbox")):
            # On a real AIRisk, nobody is made to act as its first user just because they administer this site.
            identity = AIRiskIdentity.objects.create(user=user, userid=userid)
        return f"{identity.userid} on AIRisk" if identity else "nobody on AIRisk yet"
