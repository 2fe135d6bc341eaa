"""``docs/providers.md``, followed to the letter: keys from files and from a KMS, deployments from a table."""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User

from airisk_oauth import conf, sealing
from airisk_oauth.models import AIRiskToken
from airisk_oauth.providers.source import SettingUnavailable
from airisk_oauth.sandbox.world import World
from tests.support import pages
from tests.support.commands import refresh_json
from tests.support.functions import time_passes
from tests.support.people import credential, live_token
from tests.support.quickstart import PYTHON, Site

if TYPE_CHECKING:
    from pytest_django import Settings

PAGE = "docs/providers.md"
snippet = partial(pages.snippet, PAGE)
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_page_names_how_often_it_is_called() -> None:
    text = pages.text_of(PAGE)
    assert (sealing.KEYS.every, "at most once a minute in each process" in text) == (60, True)
    assert f"at most every {conf.DEPLOYMENTS.every:.0f} seconds in each process" in text


# Keys from mounted files


def newest() -> str:
    """Return the id of the key that encrypts now."""
    return sealing.key_ids()[0]


def id_of(key: str) -> str:
    return sealing.key_id(sealing.FORMATS[0], key)


@pytest.mark.django_db
@pytest.mark.once
def test_keys_come_from_a_mounted_file(
    tmp_path: Path, settings: "Settings", mia: User, airisk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "airisk-keys"
    file.write_text(f"{OLD}\n")
    made = pages.module("keys_of_the_page", snippet("KEYS = Path"))
    made.KEYS = file
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = "keys_of_the_page.keys"
    time_passes(monkeypatch)
    before = live_token(airisk, mia)
    assert before.key_id == id_of(OLD)
    replacement = tmp_path / "new"
    replacement.write_text(f"{NEW}\n{OLD}\n")
    replacement.replace(file)
    assert credential(mia).token == before.access_token
    assert refresh_json(all=True, deployment="default")[1]["renewed"] == 1
    assert AIRiskToken.objects.get().key_id == id_of(NEW)
    file.unlink()
    assert credential(mia).token
    assert "FileNotFoundError" in sealing.KEYS.failure()
    file.write_text(f"{NEW}\n")
    assert sealing.KEYS.failure() == ""
    assert credential(mia).token


def test_keys_come_from_a_mounted_directory(
    tmp_path: Path, settings: "Settings", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is replaced as Kubernetes does: its entries lead through a link that is swapped."""

    def mount(version: str, **files: str) -> None:
        (tmp_path / version).mkdir()
        for name, key in files.items():
            (tmp_path / version / name).write_text(f"{key}\n")
            if not (mounted / name).is_symlink():
                (mounted / name).symlink_to(f"../..data/{name}")
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(tmp_path / "..data")
    mount("1", key_2026_01=OLD)
    made = pages.module("directory_of_the_page", snippet("DIRECTORY = "))
    made.DIRECTORY = mounted
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = "directory_of_the_page.keys"
    time_passes(monkeypatch)
    assert newest() == id_of(OLD)
    mount("2", key_2026_01=OLD, key_2026_11=NEW)
    assert sealing.key_ids(derived_keys_accepted=False) == [id_of(NEW), id_of(OLD)]


# Keys from a KMS


class StandIn:
    """A server that speaks as much of Vault's transit engine as the page needs.

    :ivar is_up: whether it answers; otherwise with a 503 that repeats what it was sent.
    :ivar decrypted: how many texts it has decrypted.
    """

    def __init__(self) -> None:
        self.own_key, self.is_up, self.decrypted, self.token = Fernet(Fernet.generate_key()), True, 0, "vault-canary"

    def wrap(self, key: str) -> str:
        return "vault:v1:" + self.own_key.encrypt(base64.b64encode(key.encode())).decode()

    def answer(self, path: str, token: str | None, body: Any) -> tuple[int, Any]:
        if not self.is_up:
            return 503, {"errors": ["sealed", token, body]}
        if (path, token) != ("/v1/transit/decrypt/airisk", self.token):
            return 403, {"errors": ["permission denied"]}
        self.decrypted += 1
        text = self.own_key.decrypt(body["ciphertext"].removeprefix("vault:v1:"))
        return 200, {"data": {"plaintext": text.decode()}}


@contextmanager
def served(kms: StandIn) -> Iterator[str]:
    """Serve it, and return its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = kms.answer(self.path, self.headers["X-Vault-Token"], body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.django_db
@pytest.mark.once
def test_kms_unwraps_the_keys(
    tmp_path: Path,
    settings: "Settings",
    mia: User,
    airisk: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kms = StandIn()
    made: dict[str, Any] = {}
    exec(snippet("KMS_WRAPPED_KEYS = "), made)  # noqa: S102 - the page's own
    token_file = tmp_path / "vault-token"
    token_file.write_text(f"{kms.token}\n")
    for name in ("mysite", "mysite.kms"):
        monkeypatch.setitem(sys.modules, name, None)
    pages.module("mysite", "")
    pages.module("mysite.kms", snippet("def unwrap"))
    with served(kms) as url:
        settings.KMS_URL, settings.KMS_TOKEN_FILE = url, str(token_file)
        settings.KMS_WRAPPED_KEYS = [kms.wrap(OLD)]
        settings.AIRISK_OAUTH_ENCRYPTION_KEYS = made["AIRISK_OAUTH_ENCRYPTION_KEYS"]
        token = live_token(airisk, mia)
        assert (token.key_id, credential(mia).token == token.access_token) == (id_of(OLD), True)
        assert kms.decrypted == 1
        settings.KMS_WRAPPED_KEYS = [kms.wrap(NEW), kms.wrap(OLD)]
        time_passes(monkeypatch)
        assert newest() == id_of(NEW)
        kms.is_up = False
        assert credential(mia).token == token.access_token
        sealing.KEYS.forget()
        with pytest.raises(SettingUnavailable, match=r"mysite\.kms\.keys raised HTTPError\.$"):
            credential(mia)
        assert AIRiskToken.objects.get().failure_count == 0
    assert not [secret for secret in (OLD, NEW, kms.token, "vault:v1") if secret in caplog.text]


# Deployments from a table

#: What a person, staff and commands do on the site with tenants.
SCRIPT = """
import json
import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()

import requests
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from tenants.models import Tenant
from airisk_oauth import AIRiskSession
from airisk_oauth.models import AIRiskIdentity

AIRISK = os.environ["AIRISK"]
mia = User.objects.create_superuser("mia", password="mia")
browser = Client(SERVER_NAME="app.example.com")
browser.force_login(mia)


def get(path, **more):
    return browser.get(path, secure=True, **more)


def connections():
    return get("/airisk/", headers={"Accept": "application/json"}).json()["connections"]


print("before", get("/airisk/").status_code, get("/airisk/connect/other/").status_code)
for number, alias in enumerate(["acme", "umbrella"], 1):
    Tenant.objects.create(alias=alias, base_url=AIRISK, client_id=f"client-{number}", client_secret=f"secret-{number}")
    AIRiskIdentity.objects.create(user=mia, deployment=alias, userid="user_42")
    started = browser.post(f"/airisk/connect/{alias}/", secure=True)
    back = requests.get(started["Location"], allow_redirects=False).headers["Location"]
    print(alias, get(back.removeprefix("https://app.example.com")).status_code)
print("connected", [(each["deployment"], each["connected"]) for each in connections()])
with AIRiskSession.for_user(mia, deployment="umbrella") as airisk:
    print("call", airisk.get("/api/Chat/ListAgents").status_code)
for page in ("airisktoken/", "airisktoken/?deployment=acme", "airiskidentity/", "airiskidentity/import/"):
    response = get(f"/admin/airisk_oauth/{page}")
    print(page, response.status_code, b"umbrella" in response.content)
"""


@pytest.mark.once
def test_tenants_are_deployments_of_a_table(tmp_path: Path, settings: "Settings", airisk: World) -> None:
    callback = "https://app.example.com/airisk/callback"
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = {
        f"client-{number}": {"client_secret": f"secret-{number}", "redirect_uris": f"{callback}/{alias}/"}
        for number, alias in enumerate(["acme", "umbrella"], 1)
    }
    site = Site(tmp_path)
    site.append("../tenants/__init__.py", "")
    site.append("../tenants/migrations/__init__.py", "")
    site.append("../tenants/models.py", snippet("class Tenant"))
    site.append("../tenants/airisk.py", snippet("def deployments"))
    site.append("settings.py", 'INSTALLED_APPS += ["tenants"]\nALLOWED_HOSTS = ["app.example.com"]')
    site.append("settings.py", snippet("SITE_URL = "))
    manage = partial(site.run, PYTHON, "manage.py")
    # On an empty database, whose tables the function needs.
    manage("check")
    manage("makemigrations", "tenants")
    manage("migrate")
    assert "There is no deployment yet" in manage("check_airisk")
    assert json.loads(manage("refresh_airisk_tokens", "--json"))["deployments"] == {}
    (site.folder / "script.py").write_text(SCRIPT)
    said = site.run(PYTHON, "script.py", AIRISK=settings.AIRISK_OAUTH["default"]["BASE_URL"]).splitlines()
    assert said == [
        "before 200 404",
        "acme 302",
        "umbrella 302",
        "connected [('acme', True), ('umbrella', True)]",
        "call 200",
        "airisktoken/ 200 True",
        "airisktoken/?deployment=acme 200 True",
        "airiskidentity/ 200 True",
        "airiskidentity/import/ 200 True",
    ]
    report = json.loads(manage("refresh_airisk_tokens", "--all", "--json"))
    assert {alias: each["renewed"] for alias, each in report["deployments"].items()} == {"acme": 1, "umbrella": 1}
    healthy = manage("check_airisk", "--deployment", "acme", "--user", "mia")
    assert "FAULT" not in healthy
    manage("check", "--deploy", "--fail-level", "CRITICAL")
