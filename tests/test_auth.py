"""``AIRiskAuth`` on a session of the caller's own, which may go anywhere: the token does not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from django.contrib.auth.models import User
from requests.exceptions import InvalidURL

from airisk_oauth import AIRiskAuth, AIRiskSession
from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.sandbox.world import World
from tests.support.api_clients import OtherServer
from tests.support.options import set_option
from tests.support.people import api_statuses, give_token, live_token, stored, token_requests
from tests.support.wire import silent_flow

pytestmark = pytest.mark.django_db


def test_auth_raises_for_another_origin(airisk: World, mia: User, other_server: OtherServer) -> None:
    """The error comes before a connection is made."""
    live_token(airisk, mia)
    with pytest.raises(InvalidURL):
        requests.get(f"http://{other_server.host}/", auth=AIRiskAuth.for_user(mia), timeout=5)
    assert other_server.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["/sandbox/api/GetConversations", "{base}/api/GetConversations"])
def test_redirect_to_airisk_keeps_the_token(session: AIRiskSession, airisk: World, status: int, to: str) -> None:
    base = session.deployment.base_url
    params = {"status": str(status), "to": to.format(base=base)}
    answer = requests.get(f"{base}/api/Answer", params, auth=session.auth, timeout=5)
    assert answer.status_code == 200
    assert api_statuses(airisk) == [status, 200]


@pytest.mark.parametrize("is_rejected", [False, True])
def test_redirect_elsewhere_loses_the_token(
    airisk: World, session: AIRiskSession, other_server: OtherServer, is_rejected: bool
) -> None:
    """The redirect is followed, and a 401 from there renews nothing."""
    if is_rejected:
        airisk.end_all_tokens()
    url, to = f"{session.deployment.base_url}/api/Answer", f"http://{other_server.host}/there"
    answer = requests.get(url, {"status": "302", "to": to}, auth=session.auth, timeout=5)
    assert answer.status_code == 401
    assert other_server.seen == [("/there", None)]
    assert len(token_requests(airisk)) == is_rejected


def test_password_of_netrc_causes_no_renewal(
    airisk: World, session: AIRiskSession, other_server: OtherServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``requests`` adds it on the way to another origin, whose 401 is about this password."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login mia password theirs\n")
    monkeypatch.setenv("NETRC", str(netrc))
    url, to = f"{session.deployment.base_url}/api/Answer", f"http://{other_server.host}/there"
    assert requests.get(url, {"status": "302", "to": to}, auth=session.auth, timeout=5).status_code == 401
    assert [str(sent).partition(" ")[0] for _path, sent in other_server.seen] == ["Basic"]
    assert not token_requests(airisk)


def test_redirect_back_arrives_without_the_token(
    airisk: World, session: AIRiskSession, other_server: OtherServer
) -> None:
    url, to = f"{session.deployment.base_url}/api/Answer", f"http://{other_server.host}/there"
    other_server.redirects_to = f"{session.deployment.base_url}/api/Chat/ListAgents"
    assert requests.get(url, {"status": "302", "to": to}, auth=session.auth, timeout=5).status_code == 401
    assert api_statuses(airisk) == [302, 401]


@pytest.mark.parametrize("is_rejected", [False, True])
def test_https_on_the_same_host_is_another_origin(settings: Any, mia: User, is_rejected: bool) -> None:
    """``requests`` by itself would keep the header."""
    set_option(settings, BASE_URL="http://127.0.0.1")
    give_token(mia)
    with responses.RequestsMock() as wire:
        if is_rejected:
            wire.get("http://127.0.0.1/api/x", status=401)
            silent_flow(wire, {"json": {"access_token": "renewed"}}, "http://127.0.0.1")
        wire.get("http://127.0.0.1/api/x", status=302, headers={"Location": "https://127.0.0.1/api/x"})
        wire.get("https://127.0.0.1/api/x")
        answer = requests.get("http://127.0.0.1/api/x", auth=AIRiskAuth.for_user(mia), timeout=5)
    assert answer.url == "https://127.0.0.1/api/x"
    assert "Authorization" not in answer.request.headers


def test_request_is_repeated_once_after_a_401(airisk: World, session: AIRiskSession, mia: User) -> None:
    airisk.end_all_tokens()
    url = f"{session.deployment.base_url}/api/Answer"
    answer = requests.get(url, auth=AIRiskAuth.for_user(mia), timeout=5)
    assert answer.status_code == 200
    assert api_statuses(airisk) == [401, 200]
    assert len(token_requests(airisk)) == 1
    # The cookies of the first response are sent, and its connection is released.
    [first] = answer.history
    assert first.raw.closed
    assert answer.json() == {"cookies": {"seen": "yes"}}


def test_401_renews_the_token_of_its_signer_only(airisk: World, session: AIRiskSession, mia: User) -> None:
    """A prepared request, or a copy of a template, can be signed for one user and then for another."""
    leo = User.objects.create_user("leo")
    AIRiskIdentity.objects.create(user=leo, userid="user_7")
    give_token(leo, userid="user_7", access_token="never-valid")
    template = requests.Request("GET", f"{session.deployment.base_url}/api/GetConversations").prepare()
    for auth in [AIRiskAuth.for_user(mia), *[AIRiskAuth.for_user(leo)] * 2]:
        template.prepare_auth(auth)
    answer = requests.Session().send(template, timeout=5)
    assert answer.status_code == 200
    assert [seen.values.get("userid") for seen in airisk.journal if seen.endpoint == "/api/GetConversations"] == [
        None,
        "user_7",
    ]
    assert stored(leo).access_token != "never-valid"
    # A header that the caller has set is not taken for ours.
    template.headers["Authorization"] = "Bearer of-the-caller"
    assert requests.Session().send(template, timeout=5).status_code == 401


CACHED = """
import requests, threading
from requests.sessions import Session

class Cached(Session):
    kept = {}
    def send(self, request, **kwargs):
        if "no-store" in request.headers.get("Cache-Control", ""):
            return super().send(request, **kwargs)
        return self.kept.get(request.url) or self.kept.setdefault(request.url, super().send(request, **kwargs))

requests.Session = requests.sessions.Session = Cached

import os, django
django.setup()
from airisk_oauth import AIRiskAuth, AIRiskSession
from django.contrib.auth.models import User
from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.testing import FakeAIRisk
from django.core.management import call_command
from django.http import JsonResponse

call_command("migrate", verbosity=0)
with FakeAIRisk() as airisk:
    airisk.answer("GET", "/api/Me", lambda call: JsonResponse({"userid": call.userid}))
    for name in ("mia", "leo"):
        user = User.objects.create_user(name)
        airisk.connect(user, name)
        assert AIRiskSession.for_user(user).get("/api/Me").json() == {"userid": name}
        url = "https://demo.aicrisk.com/api/Me"
        assert requests.get(url, auth=AIRiskAuth.for_user(user), timeout=5).json() == {"userid": name}
"""


@pytest.mark.once
def test_caching_session_keeps_users_apart() -> None:
    """In a process of its own, because it replaces ``requests.Session`` before we are imported."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", CACHED], check=True, timeout=60, env=environment)
