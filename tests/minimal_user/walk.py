"""A site without admin and messages, with a minimal user model: uses all of its pages and prints what happens.

``python -m tests.minimal_user.walk MODEL``; in a process of its own, because Django cannot change its user model.
"""

import json
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings

MODEL = sys.argv[1]
FOLDER = Path(tempfile.mkdtemp(prefix="airisk-oauth-"))

MAIL = "django.core.mail.backends.locmem.EmailBackend"

settings.configure(
    SECRET_KEY="a key for a site of its own, and long enough for Django's check",
    ALLOWED_HOSTS=["*"],
    AUTH_USER_MODEL=f"minimal_user.{MODEL}",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "airisk_oauth",
        "tests.minimal_user",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "airisk_oauth.middleware.AIRiskMiddleware",
    ],
    AUTHENTICATION_BACKENDS=["tests.minimal_user.backend.ByKey"],
    ROOT_URLCONF="tests.minimal_user.urls",
    LOGIN_URL="https://login.example.com/",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "site.sqlite3"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    **({"MAILERS": {"default": {"BACKEND": MAIL}}} if django.VERSION >= (6, 1) else {"EMAIL_BACKEND": MAIL}),
    MANAGERS=["boss@example.com"],
    AIRISK_OAUTH_NOTIFY={"users": True, "managers": True},
    AIRISK_OAUTH={
        "default": {
            "BASE_URL": "https://airisk.example.com",
            "CLIENT_ID": "client",
            "CLIENT_SECRET": "secret",
            "REDIRECT_URI": "https://app.example.com/airisk/callback/",
        }
    },
)
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core import mail  # noqa: E402
from django.core.management import CommandError, call_command  # noqa: E402
from django.test import Client  # noqa: E402

from airisk_oauth import conf  # noqa: E402
from airisk_oauth.connecting import browsers, flow  # noqa: E402
from airisk_oauth.models import AIRiskIdentity, AIRiskToken  # noqa: E402
from airisk_oauth.testing import FakeAIRisk  # noqa: E402

from .models import make  # noqa: E402

User = get_user_model()
#: A key in another form than the database returns it in, as a site might use it when somebody signs up.
ANOTHER_FORM = {"Person": "0" * 31 + "7", "Bare": "07"}


def browser_of(user: Any) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def said(response: Any) -> tuple[int, str]:
    """Return a page's status and heading, or where a redirect leads."""
    page = response.content.decode()
    return response.status_code, response.get("Location") or page.partition("<h1>")[2].partition("</h1>")[0]


def command(name: str, *args: str) -> str:
    out = StringIO()
    try:
        call_command(name, *args, stdout=out, stderr=out)
    except CommandError as error:
        return f"{error}"
    return out.getvalue().strip().splitlines()[-1]


def failures(airisk: FakeAIRisk, client: Client, user: Any) -> dict[str, Any]:
    """Return what the site shows for each way in which connecting fails."""
    seen: dict[str, Any] = {"callback of nobody": said(client.get("/airisk/callback/?code=a&state=b"))}
    seen["half a callback"] = said(client.get("/airisk/callback/"))
    seen["no deployment"] = said(client.get("/airisk/callback/nowhere/?code=a&state=b"))
    seen["signed out"] = said(Client().get("/airisk/callback/?code=a&state=b"))
    seen["no identity"] = said(browser_of(make(User, "tom")).post("/airisk/connect/"))
    troubles: dict[str, Any] = {"refused": airisk.refuse, "down": airisk.go_down}
    for name, trouble in troubles.items():
        started = client.post("/airisk/connect/")["Location"]
        _status, headers, _body = airisk.receive("GET", started, {}, b"")
        trouble()
        if name == "refused":
            _status, headers, _body = airisk.receive("GET", started, {}, b"")
        back = urlsplit(headers["Location"])
        seen[name] = said(client.get(f"{back.path}?{back.query}"))
        airisk.recover()
    request = client.get("/airisk/").wsgi_request
    value = browsers.binding(request, browsers.cookie_value_or_new(request))
    started = flow.begin(conf.deployment(), user, browser=value, for_application=True)
    _status, headers, _body = airisk.receive("GET", started, {}, b"")
    back = urlsplit(headers["Location"])
    seen["no permission"] = said(client.get(f"{back.path}?{back.query}"))
    return seen


def walk(airisk: FakeAIRisk) -> dict[str, Any]:
    mia = make(User, "mia")
    AIRiskIdentity.objects.create(user=mia, userid="user_42")
    airisk.answer("GET", "/api/GetConversations", json=["a plan"])
    client = browser_of(mia)
    seen: dict[str, Any] = {"needs": said(client.get("/needs/"))}
    seen["failures"] = failures(airisk, client, mia)
    seen["connected"] = said(airisk.connect_through(client, next="/call/"))
    seen["called"] = client.get("/call/").content.decode()
    seen["tag"] = ", as user_42." in client.get("/tag/").content.decode()
    airisk.expire(mia)
    seen["renewed"] = client.get("/call/").content.decode()
    airisk.expire(mia)
    command("refresh_airisk_tokens", "--user", "mia")
    seen["swept"] = not AIRiskToken.objects.get().is_expired
    airisk.show_page()
    command("refresh_airisk_tokens", "--all")
    airisk.recover()
    seen["told"] = [letter.to for letter in mail.outbox]
    seen["nobody's sweep"] = command("refresh_airisk_tokens", "--user", "nobody")
    airisk.answer("GET", "/api/Chat/ListAgents", json=[])
    seen["doctor"] = command("check_airisk", "--user", "mia")
    seen["nobody's doctor"] = command("check_airisk", "--user", "nobody")
    people = FOLDER / "people.csv"
    people.write_text("user,userid\nmia,user_42\ntom,user_7\n", encoding="utf-8")
    seen["import"] = command("import_airisk_identities", str(people))
    seen["reseal"] = command("reseal_airisk_tokens")
    seen["check"] = command("check")
    seen["disconnected"] = said(client.post("/airisk/disconnect/"))
    signed_up = make(User, "ann", pk=ANOTHER_FORM[MODEL])
    AIRiskIdentity.objects.create(user_id=signed_up.pk, userid="user_1")
    seen["key in another form"] = said(airisk.connect_through(browser_of(signed_up), next="/call/"))
    User._default_manager.all().delete()
    seen["rows of the departed"] = AIRiskToken.objects.count()
    return seen


if __name__ == "__main__":
    call_command("migrate", verbosity=0, run_syncdb=True)
    with FakeAIRisk() as fake:
        print(json.dumps(walk(fake)))
