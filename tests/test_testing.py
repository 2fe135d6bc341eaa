"""The fake AIRisk for a site's tests: its answers, connected users, refusals and outages."""

import importlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests
import responses
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import Client, TestCase
from django.urls import include, path
from django.utils import timezone

from airisk_oauth import AIRiskSession, AsyncAIRiskClient, conf, pytest_plugin
from airisk_oauth.exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.oauth.deployment import Deployment
from airisk_oauth.testing import AIRiskTestMixin, Call, FakeAIRisk
from airisk_oauth.testing.patches import patched_httpx2
from tests.support.clock import set_clock
from tests.support.quickstart import Site

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "testing.md"
CONVERSATIONS = "/api/GetConversations"

#: The plugin's own, which conftest.py would hide.
airisk = pytest_plugin.airisk

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.django_db, pytest.mark.once]


def somebody(user: Any, deployment: str) -> str:
    """Return a userid; a site's own ``USERID``."""
    return f"{user.username}@{deployment}"


@pytest.fixture
def session(airisk: FakeAIRisk, mia: User) -> Iterator[AIRiskSession]:
    """A session of Mia, who is connected."""
    airisk.connect(mia)
    airisk.answer("GET", CONVERSATIONS, json=["A plan"])
    with AIRiskSession.for_user(mia) as session:
        yield session


# What the API answers


def test_call_gets_its_answer_and_is_recorded(airisk: FakeAIRisk, session: AIRiskSession) -> None:
    airisk.answer("POST", "/api/Echo", json={"id": 7}, status=201)
    answers = [session.get(CONVERSATIONS, params={"page": 2}), session.post("/api/Echo", json={"text": "Hi"})]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, ["A plan"]), (201, {"id": 7})]
    assert [(call.deployment, call.method, call.path, call.userid, call.status) for call in airisk.calls] == [
        ("default", "GET", CONVERSATIONS, "user_42", 200),
        ("default", "POST", "/api/Echo", "user_42", 201),
    ]
    assert [airisk.calls[0].params, airisk.calls[1].json] == [{"page": "2"}, {"text": "Hi"}]


def test_answer_can_be_a_response_or_a_function(airisk: FakeAIRisk, session: AIRiskSession) -> None:
    airisk.answer("GET", "/api/File", HttpResponse(b"a,b", content_type="text/csv", headers={"X-Pages": "3"}))
    airisk.answer("GET", "/api/Echo", lambda call: JsonResponse({**call.params, "for": call.userid}, status=202))
    airisk.answer("DELETE", "/api/File", status=204)
    file, echo, deleted = session.get("/api/File"), session.get("/api/Echo?a=b&c="), session.delete("/api/File")
    assert (file.text, file.headers["Content-Type"], file.headers["X-Pages"]) == ("a,b", "text/csv", "3")
    assert (echo.status_code, echo.json()) == (202, {"a": "b", "c": "", "for": "user_42"})
    assert (deleted.status_code, deleted.content) == (204, b"")


def test_answer_can_be_streamed(airisk: FakeAIRisk, session: AIRiskSession) -> None:
    airisk.answer("GET", "/api/Chat/ListAgents", lambda call: StreamingHttpResponse([b"one\n", b"two\n"]))
    with session.get("/api/Chat/ListAgents", stream=True) as answer:
        assert list(answer.iter_lines()) == [b"one", b"two"]
    with session.get("/api/Chat/ListAgents", stream=True) as answer:
        assert b"".join(answer.iter_content(3)) == b"one\ntwo\n"


@pytest.mark.parametrize(
    "body",
    [
        b"one two",
        "one two",
        io.BytesIO(b"one two"),
        pytest.param(lambda: iter([b"one ", b"two"]), id="generator"),
    ],
)
def test_request_body_is_recorded_in_any_form(airisk: FakeAIRisk, session: AIRiskSession, body: Any) -> None:
    airisk.answer("POST", "/api/Echo")
    session.post("/api/Echo", data=body() if callable(body) else body)
    assert [call.body for call in airisk.calls] == [b"one two"]


@pytest.mark.parametrize("address", ["/api/Chat/ListAgents", "https://second.aicrisk.com/elsewhere"])
def test_call_without_answer_fails_the_test(airisk: FakeAIRisk, mia: User, address: str) -> None:
    airisk.connect(mia, "user_7", deployment="second")
    airisk.answer("GET", "/api/Chat/ListAgents", json=[])
    with (
        AIRiskSession.for_user(mia, deployment="second") as session,
        pytest.raises(
            AssertionError, match=r"deployment='second', method='GET', path='/\w+.* userid='user_7'"
        ) as failed,
    ):
        session.get(address)
    assert AIRiskToken.objects.get().access_token not in str(failed.value)


def test_documented_call_has_a_default_answer(airisk: FakeAIRisk, mia: User) -> None:
    airisk.connect(mia, deployment="second")
    with AIRiskSession.for_user(mia, deployment="second") as session:
        assert session.get(CONVERSATIONS).json() == []
        airisk.answer("GET", CONVERSATIONS, json=["one"], deployment="second")
        assert session.get(CONVERSATIONS).json() == ["one"]
    with AIRiskSession.for_application(deployment="second") as application:
        airisk.connect_application(deployment="second")
        assert application.get(CONVERSATIONS).json() == ["one"]


def test_repr_of_recorded_calls_has_no_secret(airisk: FakeAIRisk, session: AIRiskSession, browser: Client) -> None:
    airisk.refuse_tokens()
    session.get(CONVERSATIONS)
    shown = repr([airisk.calls, airisk.authorization_requests, airisk.token_requests])
    assert shown.count("user_42") == 3
    secrets = ["secret-1", AIRiskToken.objects.get().access_token, airisk.authorization_requests[0].params["state"]]
    assert [secret for secret in secrets if secret in shown] == []


# Connected users


def test_connect_creates_or_changes_the_identity(airisk: FakeAIRisk, mia: User) -> None:
    ben = User.objects.create_user("ben")
    assert [airisk.connect(user).userid for user in (mia, ben)] == ["user_42", f"user_{ben.pk}"]
    assert [airisk.connect(mia, userid).userid for userid in ("user_42", "user_1")] == ["user_42", "user_1"]
    assert set(AIRiskIdentity.objects.values_list("user", "userid")) == {(mia.pk, "user_1"), (ben.pk, f"user_{ben.pk}")}


def test_connect_respects_the_sites_own_userid(airisk: FakeAIRisk, mia: User, settings: Any) -> None:
    settings.AIRISK_OAUTH = {"default": {**settings.AIRISK_OAUTH["default"], "USERID": f"{__name__}.somebody"}}
    assert airisk.connect(mia).userid == "mia@default"
    with pytest.raises(ValueError, match=r"somebody returns the userid 'mia@default' for this user, not 'user_1'"):
        airisk.connect(mia, "user_1")


@pytest.mark.parametrize("expires_in", [60, None])
def test_connect_sets_the_expiry_of_the_token(airisk: FakeAIRisk, mia: User, expires_in: int | None) -> None:
    before = timezone.now()
    end = airisk.connect(mia, expires_in=expires_in).expires_at
    assert (end is None) == (expires_in is None)
    if end is not None:
        # AIRisk rounds to whole seconds.
        assert before <= end - timedelta(seconds=60) <= timezone.now() + timedelta(seconds=1)


def test_fake_airisk_uses_the_sites_clock(
    airisk: FakeAIRisk, session: AIRiskSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, seconds=7200)
    assert session.get(CONVERSATIONS).status_code == 200
    assert [call.status for call in airisk.token_requests] == [200]
    assert not AIRiskToken.objects.get().is_expired


def test_application_obtains_its_first_token(airisk: FakeAIRisk, client: Client) -> None:
    airisk.answer("GET", "/api/Echo", json=[])
    assert client.get("/application/").json() == {"status": 200}
    assert [call.userid for call in airisk.calls] == [""]
    assert [(call.userid, call.status) for call in airisk.token_requests] == [("", 200)]


def test_connected_application_needs_no_request(airisk: FakeAIRisk, client: Client) -> None:
    airisk.connect_application()
    airisk.answer("GET", "/api/Echo", json=[])
    assert client.get("/application/").json() == {"status": 200}
    assert ([call.userid for call in airisk.calls], airisk.token_requests) == ([""], [])


@pytest.mark.parametrize("paths", [{}, {"AUTHORIZE_PATH": "/authorize", "TOKEN_PATH": "/token"}])
@pytest.mark.parametrize(("alias", "client_id"), [("default", "client-1"), ("second", "client-2")])
def test_browser_connects_through_each_deployment(
    airisk: FakeAIRisk, mia: User, browser: Client, settings: Any, alias: str, client_id: str, paths: dict[str, str]
) -> None:
    settings.AIRISK_OAUTH = {name: {**options, **paths} for name, options in settings.AIRISK_OAUTH.items()}
    settings.SECURE_SSL_REDIRECT = True
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_42")
    assert airisk.connect_through(browser, next="/needs/", deployment=alias)["Location"] == "/needs/"
    airisk.answer("GET", CONVERSATIONS, json=[], deployment=alias)
    with AIRiskSession.for_user(mia, deployment=alias) as session:
        assert session.get(CONVERSATIONS).json() == []
    [asked], [traded], [call] = airisk.authorization_requests, airisk.token_requests, airisk.calls
    assert {(seen.deployment, seen.userid, seen.status) for seen in (traded, call)} == {(alias, "user_42", 200)}
    assert (asked.params["client_id"], asked.status) == (client_id, 302)
    assert asked.path == conf.deployment(alias).authorize_path


@pytest.mark.parametrize("path", ["", "/tenant"])
def test_deployments_may_share_a_host(airisk: FakeAIRisk, mia: User, settings: Any, path: str) -> None:
    first, second = settings.AIRISK_OAUTH.values()
    settings.AIRISK_OAUTH = {"default": first, "second": {**second, "BASE_URL": first["BASE_URL"] + path}}
    for alias in ("second", "default"):
        airisk.answer("GET", CONVERSATIONS, json=alias, deployment=alias)
        airisk.connect(mia, deployment=alias)
        with AIRiskSession.for_user(mia, deployment=alias) as session:
            assert session.get(CONVERSATIONS).json() == alias
    assert [call.deployment for call in airisk.calls] == ["second", "default"]


def test_connect_through_returns_a_sites_refusal(airisk: FakeAIRisk, client: Client) -> None:
    assert airisk.connect_through(client)["Location"].startswith("/accounts/login/")
    client.force_login(User.objects.create_user("nobody"))
    assert airisk.connect_through(client).status_code == 403
    assert airisk.authorization_requests == []


def test_connect_through_finds_own_namespaces(airisk: FakeAIRisk, client: Client, mia: User, settings: Any) -> None:
    client.force_login(mia)
    ours = path("airisk/", include((include("airisk_oauth.urls")[0], "accounts")))
    settings.ROOT_URLCONF = (ours, path("", include("tests.site_views")))
    assert airisk.connect_through(client, next="/needs/")["Location"] == "/needs/"
    settings.ROOT_URLCONF = (path("", include("tests.site_views")),)
    with pytest.raises(AssertionError, match=r"does not include airisk_oauth\.urls"):
        airisk.connect_through(client)


# Refusals and outages


@pytest.mark.parametrize("of_application", [True, False])
def test_expired_token_is_renewed_before_a_call(airisk: FakeAIRisk, mia: User, of_application: bool) -> None:
    user = None if of_application else mia
    airisk.connect(mia)
    airisk.connect_application()
    airisk.expire(user)
    airisk.answer("GET", "/api/Chat/ListAgents", json=[])
    with AIRiskSession.for_user(mia) if user else AIRiskSession.for_application() as session:
        session.get("/api/Chat/ListAgents")
    assert [call.status for call in airisk.calls] == [200]
    assert [call.userid for call in airisk.token_requests] == ["" if of_application else "user_42"]


def test_expired_token_in_a_session_gets_401(airisk: FakeAIRisk, session: AIRiskSession, mia: User) -> None:
    session.get(CONVERSATIONS)
    airisk.expire(mia)
    assert session.get(CONVERSATIONS).json() == ["A plan"]
    assert [(call.userid, call.status) for call in airisk.calls] == [("user_42", 200), (None, 401), ("user_42", 200)]


def test_refused_tokens_get_401_but_not_new_ones(airisk: FakeAIRisk, session: AIRiskSession) -> None:
    airisk.refuse_tokens()
    assert [session.get(CONVERSATIONS).status_code for _ in range(2)] == [200, 200]
    assert [call.status for call in airisk.calls] == [401, 200, 200]


@pytest.mark.parametrize(
    ("bad_day", "error"),
    [
        (FakeAIRisk.refuse, AIRiskRefused(302, "access_denied")),
        (lambda airisk: airisk.refuse("unauthorized_client"), AIRiskRefused(302, "unauthorized_client")),
        (FakeAIRisk.show_page, ConnectionRequired("AIRisk requires a sign-in in a browser.")),
        (FakeAIRisk.go_down, AIRiskUnavailable("AIRisk answered with status 503.")),
        (
            lambda airisk: airisk.go_down(unreachable=True),
            AIRiskUnavailable("AIRisk did not answer (ConnectionError)."),
        ),
    ],
)
def test_no_token_is_issued_until_recovery(
    airisk: FakeAIRisk, bad_day: Callable[[FakeAIRisk], None], error: AIRiskError
) -> None:
    bad_day(airisk)
    airisk.answer("GET", "/api/Chat/ListAgents", json=[])
    with AIRiskSession.for_application() as session:
        with pytest.raises(type(error), match=re.escape(str(error))):
            session.get("/api/Chat/ListAgents")
        airisk.recover()
        AIRiskToken.objects.update(failed_at=None)
        assert session.get("/api/Chat/ListAgents").status_code == 200


def test_outage_gives_503_or_an_exception(airisk: FakeAIRisk, session: AIRiskSession) -> None:
    airisk.go_down()
    assert session.get(CONVERSATIONS).status_code == 503
    airisk.go_down(unreachable=True)
    with pytest.raises(AIRiskUnavailable):
        session.get(CONVERSATIONS)
    assert [call.status for call in airisk.calls] == [503]


def test_browser_sees_refusals_and_outages(airisk: FakeAIRisk, browser: Client) -> None:
    airisk.go_down()
    with pytest.raises(AssertionError, match=r"did not send the browser back\. It answered 503"):
        airisk.connect_through(browser)
    airisk.recover()
    airisk.refuse()
    assert "You did not allow the connection" in browser.get(airisk.connect_through(browser)["Location"]).text
    airisk.recover()
    airisk.show_page()
    assert "You are connected" in browser.get(airisk.connect_through(browser)["Location"]).text


def ask_for_a_code(deployment: Deployment, fields: dict[str, str]) -> requests.Response:
    return requests.get(deployment.authorize_url, fields, timeout=1)


def ask_for_a_token(deployment: Deployment, fields: dict[str, str]) -> requests.Response:
    form = {"client_secret": "secret-1", "redirect_uri": deployment.redirect_uri, "code": "wrong"} | fields
    return requests.post(deployment.token_url, form, timeout=1)


@pytest.mark.parametrize(
    ("ask", "recorded"), [(ask_for_a_code, "authorization_requests"), (ask_for_a_token, "token_requests")]
)
@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({}, 400, "Invalid client_id"),
        ({"client_id": "client-2"}, 401, "Unauthorized"),
        ({"client_id": "client-1", "redirect_uri": "https://app.example.com/"}, 400, "Invalid redirect_uri"),
        (
            {"client_id": "client-1", "redirect_uri": "https://app.example.com/airisk/callback/", "userid": ""},
            400,
            "Invalid (userid|Code)",
        ),
    ],
)
def test_invalid_requests_get_airisks_refusals(
    airisk: FakeAIRisk, ask: Any, recorded: str, fields: dict[str, str], status: int, reason: str
) -> None:
    answer = ask(conf.deployment(), fields)
    assert answer.status_code == status
    assert re.search(reason, answer.text)
    assert [call.status for call in getattr(airisk, recorded)] == [status]


# Other requests, and installing it


def test_other_requests_raise_connection_error(airisk: FakeAIRisk) -> None:
    for elsewhere in ("https://other.example.com/", "http://demo.aicrisk.com/api/Chat/ListAgents"):
        with pytest.raises(requests.ConnectionError, match=re.escape(elsewhere)):
            requests.get(elsewhere, timeout=1)


@responses.activate
def test_answers_of_responses_take_precedence(airisk: FakeAIRisk, session: AIRiskSession) -> None:
    responses.get("https://other.example.com/", json="other")
    responses.get("https://demo.aicrisk.com/api/Chat/ListAgents", json="responses")
    assert requests.get("https://other.example.com/", timeout=1).json() == "other"
    assert [session.get(path).json() for path in ("/api/Chat/ListAgents", CONVERSATIONS)] == ["responses", ["A plan"]]


@async_to_sync
async def echo_asynchronously(client: AsyncAIRiskClient) -> Any:
    async with client:
        return (await client.post("/api/Echo", json={"text": "Hi"})).json()


@pytest.fixture
def echo(airisk: FakeAIRisk) -> None:
    """The API returns what it received, and the userid of the token."""
    airisk.answer("POST", "/api/Echo", lambda call: JsonResponse({"for": call.userid, "got": call.json}))


@pytest.mark.parametrize(
    ("prepare", "renewals"),
    [
        (lambda airisk, mia: None, 0),
        (lambda airisk, mia: airisk.expire(mia), 1),
        (lambda airisk, mia: airisk.refuse_tokens(), 1),
    ],
    ids=["valid", "expired", "refused"],
)
@pytest.mark.usefixtures("echo")
def test_async_client_is_answered_too(airisk: FakeAIRisk, mia: User, prepare: Any, renewals: int) -> None:
    airisk.connect(mia, "user_42")
    prepare(airisk, mia)
    assert echo_asynchronously(AsyncAIRiskClient.for_user(mia)) == {"for": "user_42", "got": {"text": "Hi"}}
    assert len(airisk.token_requests) == renewals


@pytest.mark.usefixtures("echo")
def test_async_application_is_answered_too(airisk: FakeAIRisk) -> None:
    assert echo_asynchronously(AsyncAIRiskClient.for_application()) == {"for": "", "got": {"text": "Hi"}}
    assert len(airisk.token_requests) == 1


def test_httpx2_requests_elsewhere_are_sent(airisk: FakeAIRisk, airisk_url: str) -> None:
    @async_to_sync
    async def call() -> int:
        async with httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{airisk_url}/nowhere/")).status_code

    assert call() == 404


def test_async_client_sees_the_same_outages(airisk: FakeAIRisk, mia: User) -> None:
    airisk.connect(mia)

    @async_to_sync
    async def call() -> int:
        async with AsyncAIRiskClient.for_user(mia) as client:
            return (await client.get("/api/Chat/ListAgents")).status_code

    with pytest.raises(AssertionError, match="ListAgents"):
        call()
    airisk.go_down()
    assert call() == 503
    airisk.go_down(unreachable=True)
    with pytest.raises(AIRiskUnavailable):
        call()


def test_missing_httpx2_is_not_patched(airisk: FakeAIRisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with patched_httpx2(airisk) as nothing:
        assert nothing is None


def test_leaving_the_block_undoes_the_patches(mia: User) -> None:
    with FakeAIRisk() as airisk:
        airisk.connect(mia)
        responses.get("https://other.example.com/")
    assert responses.registered() == []
    assert requests.adapters.HTTPAdapter.send.__module__ == "requests.adapters"


class TestCaseOfDjango(AIRiskTestMixin, TestCase):
    def test_mixin_gives_a_test_a_new_fake(self) -> None:
        self._see_and_call()

    def test_mixin_gives_the_next_test_a_new_fake(self) -> None:
        self._see_and_call()

    def _see_and_call(self) -> None:
        assert self.airisk.calls == []
        self.airisk.answer("GET", "/api/Echo", json=[])
        assert self.client.get("/application/").json() == {"status": 200}


def test_missing_responses_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "responses", None)
    for module in ("airisk_oauth.testing", "airisk_oauth.testing.patches"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=re.escape("pip install 'django-airisk-oauth[testing]'")):
        importlib.import_module("airisk_oauth.testing")


LOAD = """
import sys, pytest
from importlib.metadata import entry_points
[plugin] = entry_points(group="pytest11", name="airisk_oauth")
before = set(sys.modules)
plugin.load()
print(sorted(set(sys.modules) - before))
"""


def test_plugin_is_found_and_imports_only_itself() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.strip() == "['airisk_oauth', 'airisk_oauth.pytest_plugin']"


def test_plugin_does_no_harm_without_django(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    pytester.makepyfile("import sys\n\n\ndef test_it():\n    assert 'responses' not in sys.modules")
    result = pytester.runpytest_subprocess("-p", "no:django", "-W", "error")
    result.assert_outcomes(passed=1)


# Chat


def test_question_gets_the_answer_of_the_test(airisk: FakeAIRisk, session: AIRiskSession, browser: Client) -> None:
    airisk.answer_question("Grüße ", "from 東京", status="incomplete")
    with session.chat.ask("c-1", "Why?") as answer:
        assert list(answer) == ["Grüße ", "from 東京"]
    assert answer.status == "incomplete"
    sent = b"".join(browser.get("/ask/", {"text": "Why?"}).streaming_content)  # type: ignore[attr-defined]
    assert sent.endswith(b'event: done\ndata: {"status": "incomplete"}\n\n')
    assert [call.json for call in airisk.calls] == [{"conversationID": "c-1", "text": "Why?"}] * 2


def test_question_is_answered_asynchronously_too(airisk: FakeAIRisk, mia: User) -> None:
    airisk.connect(mia)
    airisk.answer_question("Yes.")

    @async_to_sync
    async def ask() -> list[str]:
        async with AsyncAIRiskClient.for_user(mia) as client, client.chat.ask("c-1", "Why?") as answer:
            return [piece async for piece in answer]

    assert ask() == ["Yes."]


# The guide


@pytest.fixture
def guide() -> dict[str, str]:
    """The snippets of the guide by language, joined."""
    snippets = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return {language: "\n\n".join(text for of, text in snippets if of == language) for language, _text in snippets}


def test_tests_in_the_guide_pass(guide: dict[str, str], tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.use_airisk()
    site.append("tests.py", guide.pop("python"))
    said = site.run(sys.executable, "-m", "pytest", "-W", "error", "--ds=mysite.settings", "mysite/tests.py")
    assert re.search(r"\b7 passed", said)
    site.manage("test", "mysite")
    site.run(sys.executable, "-m", *shlex.split(guide.pop("console")), "--quiet", "--no-index")
    assert guide == {}


def test_guide_names_all_public_attributes() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    offered = {*vars(FakeAIRisk()), *dir(FakeAIRisk), *Call.__dataclass_fields__} - {"receive"}
    missing = [name for name in offered if not name.startswith("_") and not re.search(rf"`{name}\b", page)]
    assert missing == []
