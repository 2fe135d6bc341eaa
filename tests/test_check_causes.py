"""``check_airisk`` names a cause only where it has established one: a second AIRisk refuses in many ways."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import urllib3
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.urls import include, path

from airisk_oauth.models import AIRiskIdentity
from tests.support.doctor import ADMINISTRATOR, NETWORK, SERVER, SITE, STAFF, SUPPORT, check, fault, set_default
from tests.support.second_airisk import (
    CALLBACK,
    Answer,
    SecondAIRisk,
    answer_json,
    answer_text,
    page,
    problem,
    redirect,
    second_airisk,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]
AUTHORIZE, TRADE, AGENTS = ("GET", "/api/oauth2"), ("POST", "/api/oauth2/Token"), ("GET", "/api/Chat/ListAgents")
NOT_THIS_SITES = "https://app.example.com/airisk/calback/"

# For the test of a site without the package's pages.
urlpatterns = [path("sandbox/", include("airisk_oauth.sandbox.urls"))]


@pytest.fixture
def airisk(settings: Any) -> Iterator[SecondAIRisk]:
    with second_airisk(settings) as airisk:
        yield airisk


def _by_error_redirect(plain: Answer) -> Answer:
    return redirect("/oauth/error?error=invalid_request&traceId=00-1-00")


def _by_redirect_to_json(plain: Answer) -> Answer:
    return redirect("/oauth/error")


def _by_json(plain: Answer) -> Answer:
    return 200, *plain[1:2], plain[2] if b"{" in plain[2] else b'{"error": "invalid_request"}'


SHAPES = [lambda plain: plain, _by_error_redirect, _by_redirect_to_json, _by_json]
in_each_shape = pytest.mark.parametrize("shape", SHAPES, ids=["status", "error", "redirect", "json"])


def refuse_by(airisk: SecondAIRisk, shape: Callable[[Answer], Answer]) -> None:
    def refuses_by(plain: Answer) -> Answer:
        status, headers, body = shape(plain)
        if status == 200:
            headers = {"Content-Type": "application/json"}
        return status, headers, body

    airisk.refuses_by = refuses_by
    airisk.answers["GET", "/oauth/error"] = lambda given: answer_json({"error": "invalid_request"})


# Who is at fault


@in_each_shape
@pytest.mark.parametrize("unknown_user", [problem, lambda: answer_text("Invalid userid"), lambda: (400, {}, b"")])
def test_unknown_userid_does_not_blame_the_client(
    airisk: SecondAIRisk, mia: User, shape: Any, unknown_user: Callable[[], Answer]
) -> None:
    """To change CLIENT_ID for one user's sake would break the site for everybody."""
    refuse_by(airisk, shape)
    airisk.users, airisk.unknown_user = ("user_7",), unknown_user
    found, remedy = fault(user="mia")
    assert found.startswith("authorization: AIRisk refuses the userid user_42, and answers without one. AIRisk refused")
    assert remedy.startswith(f"{STAFF} correct the user's AIRisk identity")
    assert ADMINISTRATOR in remedy


@in_each_shape
@pytest.mark.parametrize("options", [{}, {"user": "mia"}])
def test_unknown_client_is_blamed_on_client_id(
    airisk: SecondAIRisk, mia: User, shape: Any, options: dict[str, str]
) -> None:
    refuse_by(airisk, shape)
    airisk.client_id = "another"
    found, remedy = fault(**options)
    assert found.startswith("authorization: AIRisk does not know CLIENT_ID client-1.")
    assert remedy.startswith(f"{SITE} set CLIENT_ID")


@in_each_shape
@pytest.mark.parametrize("all_alike", [False, True])
def test_unregistered_address_blames_redirect_uri(airisk: SecondAIRisk, shape: Any, all_alike: bool) -> None:
    refuse_by(airisk, shape)
    airisk.refuses_all_alike, airisk.redirect_uris = all_alike, ("https://app.example.com/",)
    found, remedy = fault()
    assert found.startswith(f"authorization: AIRisk does not know REDIRECT_URI {CALLBACK}.")
    assert remedy.startswith(f"{ADMINISTRATOR} if that is this site's address, add exactly this")
    assert f"{SITE} if it is misspelt, correct it." in remedy


@pytest.mark.parametrize("unknown_user", [lambda: problem(400, "Bad Request"), lambda: answer_text("Invalid userid")])
def test_userid_is_blamed_if_clients_need_one(
    airisk: SecondAIRisk, mia: User, unknown_user: Callable[[], Answer]
) -> None:
    """Without a userid this client is refused, too, in other words."""
    usual = airisk.authorize
    airisk.users, airisk.unknown_user = ("user_7",), unknown_user
    airisk.answers[AUTHORIZE] = lambda given: usual(given) if "userid" in given else problem(403, "Forbidden")
    found, remedy = fault(user="mia")
    assert found.startswith("authorization: AIRisk refuses the userid user_42. AIRisk refused the request with")
    assert remedy.startswith(f"{STAFF} correct the user's AIRisk identity")


@pytest.mark.parametrize("reason", ["Invalid client_id", "Invalid redirect_uri"])
def test_option_named_by_airisk_is_blamed(airisk: SecondAIRisk, reason: str) -> None:
    airisk.answers[AUTHORIZE] = lambda given: answer_text(reason)
    assert f"AIRisk does not know {reason.removeprefix('Invalid ').upper()}" in fault()[0]
    assert [path for _method, path, _given in airisk.requests].count("/api/oauth2/Token") == 0


def test_misspelt_redirect_uri_is_to_be_corrected(airisk: SecondAIRisk, settings: Any) -> None:
    set_default(settings, REDIRECT_URI=NOT_THIS_SITES)
    status, said = check()
    assert (status, said.count("FAULT")) == (1, 2)
    assert f"FAULT callback: REDIRECT_URI {NOT_THIS_SITES} is not this deployment's callback" in said
    assert f"{SITE} first correct REDIRECT_URI" in said
    assert ADMINISTRATOR not in said


@pytest.mark.parametrize(
    "at_token_endpoint",
    [(503, {}, b""), answer_text("Something is missing"), page(status=403), answer_json({"access_token": "x"})],
)
def test_two_possible_causes_are_both_named(airisk: SecondAIRisk, at_token_endpoint: Answer) -> None:
    airisk.answers[AUTHORIZE] = lambda given: problem()
    airisk.answers[TRADE] = lambda given: at_token_endpoint
    found, remedy = fault()
    assert "does not know CLIENT_ID client-1, or not REDIRECT_URI https://app" in found
    assert remedy.startswith(f"{ADMINISTRATOR} compare both")


def _refuse_us(given: dict[str, str]) -> Answer:
    known = (
        given["client_id"] == "client-1"
        and given["redirect_uri"] == CALLBACK
        and given.get("userid", "user_42") == "user_42"
    )
    return problem(403, "Forbidden") if known else problem()


def _refuse_at_our_address(given: dict[str, str]) -> Answer:
    return redirect(f"{CALLBACK}?error=access_denied&state={given['state']}")


def _refuse_without_state(given: dict[str, str]) -> Answer:
    return redirect(f"{CALLBACK}?error=access_denied")


def _refuse_unless_elsewhere(given: dict[str, str]) -> Answer:
    if given["redirect_uri"] != CALLBACK:
        return page("Choose")
    return problem()


def _refuse_all_users(given: dict[str, str]) -> Answer:
    known = given["client_id"] == "client-1" and given["redirect_uri"] == CALLBACK
    return problem(403, "Forbidden") if known else problem()


@pytest.mark.parametrize("refuse", [_refuse_us, _refuse_all_users, _refuse_at_our_address, _refuse_without_state])
@pytest.mark.parametrize("options", [{}, {"user": "mia"}])
def test_other_refusals_blame_no_option(airisk: SecondAIRisk, mia: User, refuse: Any, options: dict[str, str]) -> None:
    airisk.answers[AUTHORIZE] = refuse
    found, remedy = fault(**options)
    assert found.startswith("authorization: AIRisk refused the request ")
    assert remedy == f"{ADMINISTRATOR} look up why the APIUser client-1 is refused."


def test_refusal_of_this_client_blames_client_id(airisk: SecondAIRisk) -> None:
    airisk.answers[AUTHORIZE] = _refuse_unless_elsewhere
    assert "AIRisk does not know CLIENT_ID client-1." in fault()[0]


def test_outage_meanwhile_blames_no_option(airisk: SecondAIRisk) -> None:
    answers = [problem(), (503, {}, b"")]
    airisk.answers[AUTHORIZE] = lambda given: answers.pop(0) if len(answers) > 1 else answers[0]
    found, remedy = fault()
    assert (found.count("CLIENT_ID"), remedy.startswith(ADMINISTRATOR)) == (0, True)


def test_wrong_secret_is_blamed_on_client_secret(airisk: SecondAIRisk, mia: User) -> None:
    airisk.client_secret = "another"
    found, remedy = fault(user="mia")
    assert (found.startswith("token: AIRisk does not accept CLIENT_SECRET."), remedy.startswith(SITE)) == (True, True)
    airisk.answers[TRADE] = lambda given: answer_text("Invalid client_secret")
    assert "does not accept CLIENT_SECRET" in fault()[0]


def _code_first(airisk: SecondAIRisk, given: dict[str, str]) -> Answer:
    return airisk.trade(given) if given["code"] in airisk.codes else answer_text("Invalid Code")


def test_wrong_secret_after_code_check_is_blamed(airisk: SecondAIRisk) -> None:
    """There a made-up code shows nothing about the client."""
    airisk.client_secret = "another"
    airisk.answers[TRADE] = lambda given: _code_first(airisk, given)
    found, remedy = fault()
    assert found.startswith("token: AIRisk refused the request with status 401: Unauthorized (traceId 00-")
    assert found.endswith("), which AIRisk documents for a client that it does not know.")
    assert (remedy.startswith(f"{SITE} set CLIENT_SECRET"), ADMINISTRATOR in remedy) == (True, True)


def test_wrong_client_after_code_check_is_blamed(airisk: SecondAIRisk) -> None:
    airisk.client_id = "another"
    airisk.answers[TRADE] = lambda given: _code_first(airisk, given)
    assert "AIRisk does not know CLIENT_ID client-1, or not REDIRECT_URI" in fault()[0]


def test_refused_code_does_not_blame_the_secret(airisk: SecondAIRisk) -> None:
    def trade(given: dict[str, str]) -> Answer:
        is_ours = (given["client_id"], given["client_secret"]) == ("client-1", "secret-1")
        return answer_text("Invalid Code") if is_ours and given["code"] not in airisk.codes else problem()

    airisk.answers[TRADE] = trade
    found, remedy = fault()
    assert found.startswith("token: AIRisk refused the request with status 401: Unauthorized")
    assert remedy.startswith(f"{ADMINISTRATOR} look up why")
    airisk.answers[TRADE] = lambda given: answer_text("Invalid Code")
    assert fault()[1].startswith(f"{ADMINISTRATOR} look up why")


def test_userid_refused_with_the_code_is_blamed(airisk: SecondAIRisk, mia: User) -> None:
    usual = airisk.trade
    airisk.answers[TRADE] = lambda given: problem() if "userid" in given else usual(given)
    found, remedy = fault(user="mia")
    assert found.startswith("token: AIRisk refuses a token for the userid user_42, and gives one without.")
    assert remedy.startswith(f"{STAFF} correct the user's AIRisk identity")


@pytest.mark.parametrize("status", [401, 403])
def test_page_instead_of_token_blames_no_option(airisk: SecondAIRisk, status: int) -> None:
    airisk.answers[TRADE] = lambda given: page(status=status)
    found, remedy = fault()
    assert found.startswith(f"token: AIRisk refused the request with status {status}, without a reason")
    assert remedy.startswith(f"{NETWORK} if a proxy answers")


@pytest.mark.parametrize("status", [404, 405])
def test_missing_endpoints_are_reported(airisk: SecondAIRisk, status: int) -> None:
    airisk.answers[TRADE] = lambda given: problem(status, "Not Found")
    assert fault()[0].startswith(f"token: There is no token endpoint at {airisk.url}/api/oauth2/Token.")
    airisk.answers[AUTHORIZE] = lambda given: (status, {}, b"")
    assert fault()[0].startswith(f"authorization: There is no authorization endpoint at {airisk.url}/api/oauth2.")


# This site


@pytest.mark.parametrize(
    ("redirect_uri", "said"),
    [
        (NOT_THIS_SITES, "callback, which is at /airisk/callback/."),
        (CALLBACK.rstrip("/"), "callback, which is at /airisk/callback/."),
        (f"{CALLBACK}second/", "callback, which is at /airisk/callback/."),
        ("https://app.example.com/", "callback, which is at /airisk/callback/."),
    ],
)
def test_registered_wrong_callback_is_a_fault(
    airisk: SecondAIRisk, settings: Any, redirect_uri: str, said: str
) -> None:
    airisk.redirect_uris = (redirect_uri,)
    set_default(settings, REDIRECT_URI=redirect_uri)
    found, remedy = fault()
    assert found == f"callback: REDIRECT_URI {redirect_uri} is not this deployment's {said}"
    assert remedy.startswith(f"{SITE} set REDIRECT_URI to {CALLBACK}, and have the same registered")


@pytest.mark.parametrize(
    ("redirect_uri", "hosts", "said"),
    [
        (CALLBACK, ["*"], "REDIRECT_URI is this site's callback\n"),
        (CALLBACK, [], "REDIRECT_URI is this site's callback\n"),
        (CALLBACK, [".example.com"], "REDIRECT_URI is this site's callback\n"),
        (CALLBACK, ["app.example.com", "localhost"], "REDIRECT_URI is this site's callback\n"),
        (f"{CALLBACK}default/", ["*"], "REDIRECT_URI is this site's callback\n"),
        ("http://[::1]:8000/airisk/callback/", ["[::1]"], "REDIRECT_URI is this site's callback\n"),
        ("https://example.com/app/airisk/callback/", ["*"], "callback, if a proxy strips /app\n"),
        (
            CALLBACK,
            ["app.example.com", "www.example.com"],
            "at www.example.com cannot connect, because AIRisk sends them to app.example.com\n",
        ),
    ],
)
def test_callback_of_this_site_is_recognized(
    airisk: SecondAIRisk, settings: Any, redirect_uri: str, hosts: list[str], said: str
) -> None:
    airisk.redirect_uris = (redirect_uri,)
    set_default(settings, REDIRECT_URI=redirect_uri)
    settings.ALLOWED_HOSTS = hosts
    status, words = check()
    assert (status, said in words) == (0, True)


def test_shared_session_cookie_joins_the_hosts(airisk: SecondAIRisk, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["app.example.com", "www.example.com"]
    settings.SESSION_COOKIE_DOMAIN = ".example.com"
    assert "cannot connect" not in check()[1]


def test_host_that_django_refuses_is_a_fault(airisk: SecondAIRisk, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["www.example.com"]
    found, remedy = fault()
    assert found.startswith("callback: REDIRECT_URI leads to app.example.com, for which this site does not answer")
    assert remedy == f"{SITE} correct REDIRECT_URI, or add app.example.com to ALLOWED_HOSTS."


@pytest.mark.urls(__name__)
def test_site_without_our_pages_is_healthy(airisk: SecondAIRisk) -> None:
    status, said = check()
    assert (status, "does not include airisk_oauth.urls: nobody can connect in a browser" in said) == (0, True)


@pytest.mark.parametrize("options", [{}, {"user": "mia"}])
@pytest.mark.parametrize("table", ["airisk_oauth_airiskidentity", "airisk_oauth_pendingauthorization"])
def test_missing_table_stops_the_diagnosis(
    airisk: SecondAIRisk, mia: User, table: str, options: dict[str, str]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    found, remedy = fault(**options)
    assert found == f"database: The database 'default' has no table {table}."
    assert remedy == f"{SERVER} run manage.py migrate."
    assert airisk.requests == []


def test_table_of_another_version_is_reported(airisk: SecondAIRisk) -> None:
    AIRiskIdentity.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE airisk_oauth_airiskidentity RENAME COLUMN userid TO other")
    found, remedy = fault()
    assert found.startswith("database: The table airisk_oauth_airiskidentity is not as this version needs it (")
    assert remedy == f"{SERVER} run manage.py migrate."


@contextmanager
def failing(words: str) -> Iterator[None]:
    """Let the database fail at each statement that has these words in it."""

    def execute(execute: Any, sql: str, *args: Any) -> Any:
        if words in sql:
            raise OperationalError
        return execute(sql, *args)

    with connection.execute_wrapper(execute):
        yield


def test_unavailable_database_is_reported(airisk: SecondAIRisk, mia: User) -> None:
    listing = "sqlite_master" if connection.vendor == "sqlite" else "pg_catalog"
    with failing(listing):
        found, remedy = fault()
    assert found == "database: The database 'default' cannot be read (OperationalError)."
    assert remedy.startswith(f"{SERVER} see that it runs")
    with failing("auth_user"):
        status, said = check(user="mia")
    assert (status, said.startswith("The users cannot be read (OperationalError).")) == (1, True)


# Slow is not unreachable


@contextmanager
def held_up(airisk: SecondAIRisk, *call: str) -> Iterator[None]:
    """Answer a call only at the end of the block."""
    over = threading.Event()
    usual = airisk.answer

    def answer(method: str, path: str, given: dict[str, str], bearer: str) -> Answer:
        if (method, path) == call:
            over.wait(60)
        return usual(method, path, given, bearer)

    airisk.answer = answer  # type: ignore[method-assign]
    try:
        yield
    finally:
        over.set()


@pytest.mark.parametrize(
    ("call", "said", "option"),
    [
        (
            ("GET", "/"),
            "connection: {host} is slow: it took the connection, and did not answer within 1 s.",
            "TIMEOUT",
        ),
        (AUTHORIZE, "authorization: AIRisk is slow: it did not answer within 1 s.", "TIMEOUT"),
        (TRADE, "token: AIRisk is slow: it did not answer within 1 s.", "TIMEOUT"),
        (
            AGENTS,
            "call: GET /api/Chat/ListAgents got no answer (within 1 s: AIRisk is slow, or API_TIMEOUT too short).",
            "",
        ),
    ],
)
def test_slow_is_not_reported_as_unreachable(
    airisk: SecondAIRisk, settings: Any, call: tuple[str, str], said: str, option: str
) -> None:
    set_default(settings, TIMEOUT=(1, 1), API_TIMEOUT=(1, 1))
    with held_up(airisk, *call):
        found, remedy = fault()
    assert found == said.format(host=airisk.url.removeprefix("http://"))
    assert remedy.startswith(SUPPORT)
    assert option in remedy


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "There is no host airisk.test.", SITE),
        (
            socket.gaierror(socket.EAI_AGAIN, "Try \x1b[31magain"),
            "The name of airisk.test could not be looked up (Try ?[31magain).",
            NETWORK,
        ),
    ],
)
def test_unknown_name_differs_from_dns_failure(
    settings: Any, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str, remedy: str
) -> None:
    def look_up(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    set_default(settings, BASE_URL="https://airisk.test")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    found, fixed_by = fault()
    assert (found, fixed_by.startswith(remedy)) == (f"connection: {said}", True)


def test_no_connection_in_time_is_unreachable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: Any, **_kwargs: Any) -> Any:
        raise TimeoutError

    set_default(settings, BASE_URL="https://airisk.test")
    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    found, remedy = fault()
    assert found == "connection: airisk.test cannot be reached: no connection within 5 s."
    assert remedy.startswith(NETWORK)


def test_closed_connection_was_reachable(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        set_default(settings, BASE_URL=f"http://{place}")

        def hang_up() -> None:
            connection, _address = server.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found, remedy = fault()
        thread.join()
    assert found == f"connection: {place} took the connection, and closed it without an answer."
    assert remedy.startswith(SUPPORT)


# What AIRisk says


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 -1200", "yesterday", "Fri, 99 Dec 2025", ""])
def test_invalid_date_header_is_no_fault(airisk: SecondAIRisk, date: str) -> None:
    airisk.date = date or " "
    status, said = check()
    assert (status, "AIRisk does not tell its time" in said) == (0, True)


def test_date_without_a_zone_is_utc(airisk: SecondAIRisk) -> None:
    airisk.date = format_datetime(datetime.now(UTC)).replace("+0000", "-0000")
    assert "within 10 s of AIRisk's" in check()[1]


def test_wrong_clock_explains_a_past_expiry(airisk: SecondAIRisk) -> None:
    then = datetime.now(UTC) - timedelta(hours=2)
    ends = (then + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    airisk.answers[TRADE] = lambda given: answer_json({"access_token": "eyJ", "expiration": ends})
    found, remedy = fault()
    assert (found.startswith("token: AIRisk's answer names an end"), remedy.startswith(NETWORK)) == (True, True)
    airisk.date = format_datetime(then)
    status, said = check()
    assert (status, said.count("FAULT")) == (1, 2)
    assert f"{SERVER} first see that its clock is right." in said


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (
            "https://app.example.com/airisk/\x1b[31m?code=code-canary",
            "redirects to 'https://app.example.com/airisk/?[31m', and",
        ),
        (
            "https://app.example.com/airisk/callback",
            "redirects to 'https://app.example.com/airisk/callback', and REDIRECT",
        ),
        ("https://app.example.com/\xe9\x9b", "redirects to 'https://app.example.com/??', and REDIRECT_URI is"),
        ("https://app.example.com/" + "x" * 300, "x...', and REDIRECT_URI is"),
        ("https://login\x1b]0;x\x07.example/?code=code-canary", "A redirect to https://login?]0;x?.example/ came"),
        ("/Account/Login?code=code-canary", "A redirect to {url}/Account/Login came"),
        ("https://[?code=code-canary", "A redirect to https://[ came"),
        ("", "A page came where AIRisk redirects at once."),
    ],
)
def test_addresses_are_shown_as_plain_text(airisk: SecondAIRisk, location: str, said: str) -> None:
    airisk.answers[AUTHORIZE] = lambda given: redirect(location)
    found, _remedy = fault()
    assert "[secret]" not in found
    assert said.format(url=airisk.url) in found


def test_username_cannot_control_the_terminal(airisk: SecondAIRisk) -> None:
    User.objects.create_user("a\x1b[31m\nb")
    assert "This site knows no AIRisk user for a?[31m?b" in fault(user="a\x1b[31m\nb")[0]


# What a code is good for


UNBOUND = (
    "A code for user_42 was traded with a made-up userid and without a userid: userids are not compared, and a code"
)


def test_codes_that_carry_users_need_code_from(airisk: SecondAIRisk, mia: User) -> None:
    airisk.codes_carry_user = True
    found, remedy = fault(user="mia")
    assert found.startswith(f"codes: {UNBOUND} may carry its user. Whoever edits userid=")
    assert remedy == f'{SITE} set CODE_FROM to "server".'


def test_application_shows_codes_carry_users(airisk: SecondAIRisk) -> None:
    airisk.codes_carry_user = True
    found, remedy = fault()
    assert found.startswith(
        "codes: A code for the application was traded with a made-up userid: userids are not compared"
    )
    assert remedy.endswith('set CODE_FROM to "server".')


def test_other_users_id_proves_more_than_made_up(airisk: SecondAIRisk, mia: User) -> None:
    """A made-up userid is refused here; that of another user of this site is not."""
    airisk.codes_carry_user = airisk.asks_for_known_userid = True
    status, said = check(user="mia")
    assert (status, "refused with a made-up userid, without a userid, a second time" in said) == (0, True)
    assert 'CODE_FROM = "browser" is safe as far as that can tell\n' in said
    ben = User.objects.create_user("ben")
    AIRiskIdentity.objects.create(user=ben, userid="user_7")
    assert fault(user="mia")[0].startswith("codes: A code for user_42 was traded with another userid: userids")


def test_code_from_server_tolerates_loose_codes(airisk: SecondAIRisk, settings: Any, mia: User) -> None:
    set_default(settings, CODE_FROM="server")
    airisk.codes_carry_user = airisk.codes_reusable = airisk.any_redirect_uri = True
    status, said = check(user="mia")
    assert status == 0
    assert f'{UNBOUND} may carry its user. CODE_FROM = "server" is what this site needs, and has.' in said
    assert said.count('This site trades no code that came through a browser: CODE_FROM = "server".') == 2


@pytest.mark.parametrize(
    ("switch", "said"),
    [("codes_reusable", "works a second time."), ("any_redirect_uri", "works with another redirect URI.")],
)
@pytest.mark.parametrize(("options", "whose"), [({}, "the application"), ({"user": "mia"}, "user_42")])
def test_loose_codes_are_reported(
    airisk: SecondAIRisk, mia: User, switch: str, said: str, options: dict[str, str], whose: str
) -> None:
    setattr(airisk, switch, True)
    found, remedy = fault(**options)
    assert found == f"codes: A code for {whose} {said}"
    assert remedy.startswith(f"{SUPPORT} have codes work once")
    assert remedy.endswith(f'{SITE} until then, set CODE_FROM to "server".')


def test_bound_codes_are_reported_as_safe(airisk: SecondAIRisk, settings: Any, mia: User) -> None:
    AIRiskIdentity.objects.create(user=User.objects.create_user("ben"), userid="user_7")
    ways = "with another userid, without a userid, a second time and with another redirect URI"
    assert f'a code for user_42 is refused {ways}; CODE_FROM = "browser" is safe\n' in check(user="mia")[1]
    ways = "with another userid, a second time and with another redirect URI"
    assert f"a code for the application is refused {ways}; for a user's codes, run this with --user\n" in check()[1]
    set_default(settings, CODE_FROM="server")
    assert "and with another redirect URI\n" in check(user="mia")[1]


@pytest.mark.parametrize("answer", [(500, {}, b""), page()])
def test_failed_trial_proves_nothing(airisk: SecondAIRisk, mia: User, answer: Answer) -> None:
    usual = airisk.trade
    airisk.answers[TRADE] = lambda given: usual(given) if given.get("userid") == "user_42" else answer
    status, said = check(user="mia")
    assert status == 0
    assert "whether a code for user_42 is refused without a userid is not known: AIRisk" in said
    assert "a code for user_42 is refused a second time and with another redirect URI\n" in said
    assert "is safe" not in said


def test_page_during_a_trial_proves_nothing(airisk: SecondAIRisk) -> None:
    usual, seen = airisk.authorize, []

    def authorize(given: dict[str, str]) -> Answer:
        seen.append(given)
        return usual(given) if len(seen) == 1 else page()

    airisk.answers[AUTHORIZE] = authorize
    status, said = check()
    assert (status, said.count("is not known: AIRisk showed a page.")) == (0, 3)


def test_trials_leave_no_token_behind(airisk: SecondAIRisk, mia: User) -> None:
    airisk.codes_carry_user = airisk.codes_reusable = airisk.any_redirect_uri = True
    assert check(user="mia")[0] == 1
    assert len(airisk.tokens) == 6
