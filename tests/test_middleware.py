"""``request.airisk``, how ``ConnectionRequired`` is answered, and views that need a connection; in both stacks."""

import asyncio
import copy
import pickle
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from asgiref.testing import ApplicationCommunicator
from cryptography.fernet import Fernet
from django.contrib.auth import alogin, login, logout
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import include, path
from django.utils import timezone

from airisk_oauth import AIRiskSession
from airisk_oauth.decorators import airisk_required
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.middleware import AIRiskMiddleware
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from tests import site_views
from tests.support.browsing import connect
from tests.support.chat import FIRST_LINE, QUESTION
from tests.support.options import set_option
from tests.support.people import give_token, live_token, stored, token_requests

if TYPE_CHECKING:
    from pytest_django import DjangoAssertNumQueries, Settings

VIEWS = {
    "/needs/": "/airisk/connect/",
    "/needs-second/": "/airisk/connect/second/",
    "/needs-class/": "/airisk/connect/",
    "/needs-class-async/": "/airisk/connect/",
}
SCRIPTS: list[dict[str, str]] = [
    {"Accept": "application/json"},
    {"Accept": "application/json, text/plain, */*"},
    {"X-Requested-With": "XMLHttpRequest", "Accept": "text/html"},
    {"HX-Request": "true", "Accept": "text/html"},
    {"Accept": "*/*"},
    {"User-Agent": "Go-http-client/1.1"},
    {"Accept": "text/event-stream", "Sec-Fetch-Mode": "cors"},
    {"Accept": "text/html", "Sec-Fetch-Mode": "same-origin"},
]
BROWSERS: list[dict[str, str]] = [
    {},
    {"User-Agent": "Mozilla/5.0"},
    {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"},
    {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"},
]

#: The session that the last request was given.
held: list[AIRiskSession] = []


def _hold(request: Any) -> bytes:
    held[:] = [request.airisk]
    content: bytes = request.airisk.get("/api/GetConversations").content
    return content


def hold(request: HttpRequest) -> HttpResponse:
    content = _hold(request)
    assert is_open(held[0])
    return HttpResponse(content)


async def hold_async(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(hold)(request)


def hold_streamed(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[bytes]:
        yield _hold(request)
        yield b"last"

    return StreamingHttpResponse(lines())


async def hold_streamed_async(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[bytes]:
        yield await sync_to_async(_hold)(request)
        yield b"last"

    return StreamingHttpResponse(lines())


async def hold_aclient(request: Any) -> HttpResponse:
    held[:] = [request.airisk]
    return HttpResponse((await request.airisk.aclient.get("/api/GetConversations")).content)


async def hold_aclient_and_wait(request: Any) -> HttpResponse:
    answer = await request.airisk.aclient.get("/api/GetConversations")
    held[:] = [request.airisk]
    await asyncio.Event().wait()
    return HttpResponse(answer.content)


async def hold_aclient_streamed(request: Any) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[bytes]:
        async with request.airisk.aclient.stream("POST", "/api/Chat/AskAgent", json=QUESTION) as answer:
            held[:] = [request.airisk]
            async for part in answer.aiter_bytes():
                yield part

    return StreamingHttpResponse(lines())


def hold_and_fail(request: HttpRequest) -> HttpResponse:
    _hold(request)
    raise ValueError


def call_after_sign_in(request: Any) -> HttpResponse:
    """As in a framework that authenticates in the view: who looked at the session before saw another user."""
    request.airisk.headers["X-Site"] = "yes"
    before = 0
    if "first" in request.GET:
        before = [request.airisk.get("/api/GetConversations").status_code for _call in range(2)][-1]
    if "nobody" in request.GET:
        request.user = None
    elif "out" in request.GET:
        logout(request)
    else:
        login(request, User.objects.get(username="leo"), "django.contrib.auth.backends.ModelBackend")
    return JsonResponse({"before": before, "after": request.airisk.get("/api/GetConversations").status_code})


async def call_after_sign_in_async(request: Any) -> HttpResponse:
    assert (await request.airisk.aclient.get("/api/GetConversations")).status_code == 200
    await alogin(request, await User.objects.aget(username="leo"), "django.contrib.auth.backends.ModelBackend")
    return HttpResponse((await request.airisk.aclient.get("/api/GetConversations")).content)


def call_in_a_with_statement(request: Any) -> HttpResponse:
    with request.airisk as airisk:
        return HttpResponse(airisk.get("/api/GetConversations").content)


def call_and_fail(request: Any) -> HttpResponse:
    request.airisk.get("/api/GetConversations")
    raise ValueError


def call_second(request: HttpRequest) -> HttpResponse:
    with AIRiskSession.for_user(request.user, "second") as airisk:
        return HttpResponse(airisk.get("/api/Chat/ListAgents").content)


def is_open(session: AIRiskSession) -> bool:
    """Tell whether a session holds a connection."""
    adapter: Any = session.get_adapter("http://")
    return len(adapter.poolmanager.pools) > 0


def is_open_async(session: AIRiskSession) -> bool:
    """Tell whether a session's asynchronous client holds a connection."""
    transport: Any = session.aclient._transport
    return transport._inner is not None and bool(transport._inner._pool.connections)


urlpatterns = [
    path("", include("tests.urls")),
    path("hold/", hold),
    path("hold-async/", hold_async),
    path("hold-streamed/", hold_streamed),
    path("hold-streamed-async/", hold_streamed_async),
    path("hold-aclient/", hold_aclient),
    path("hold-aclient-and-wait/", hold_aclient_and_wait),
    path("hold-aclient-streamed/", hold_aclient_streamed),
    path("hold-and-fail/", hold_and_fail),
    path("call-second/", call_second),
    path("call-after-sign-in/", call_after_sign_in),
    path("call-after-sign-in-async/", call_after_sign_in_async),
    path("call-in-a-with-statement/", call_in_a_with_statement),
    path("call-and-fail/", call_and_fail),
]


class Browser:
    """A browser of either stack: Django's WSGI handler, or its ASGI handler with everything between asynchronous."""

    def __init__(self, stack: str) -> None:
        self.client: Any = AsyncClient() if stack == "async" else Client()

    def __call__(self, path: str, method: str = "get", **given: Any) -> Any:
        send: Callable[..., Any] = getattr(self.client, method)
        return async_to_sync(send)(path, **given) if iscoroutinefunction(send) else send(path, **given)


@pytest.fixture(params=["sync", "async"])
def anonymous(request: Any, db: None, settings: "Settings") -> Browser:
    settings.ROOT_URLCONF = __name__
    return Browser(request.param)


@pytest.fixture
def visit(anonymous: Browser, mia: User) -> Browser:
    """The browser in which Mia is signed in."""
    anonymous.client.force_login(mia)
    return anonymous


# request.airisk


def test_request_airisk_calls_as_the_user(visit: Browser, browser: Client, airisk: World) -> None:
    connect(browser)
    answer = visit("/conversations/").json()
    assert answer["status"] == 200
    assert airisk.journal[-1].values == {"client_id": "client-1", "userid": "user_42"}


@pytest.fixture
def leo(airisk: World, db: None) -> User:
    """A user who is connected as ``user_7``."""
    leo = User.objects.create_user("leo")
    AIRiskIdentity.objects.create(user=leo, userid="user_7")
    give_token(leo, userid="user_7", access_token="leos-token", ends_in=-60)
    return leo


@pytest.mark.parametrize(("query", "before"), [("", 0), ("?first", 200)])
def test_call_is_made_as_the_current_user(
    query: str, before: int, visit: Browser, browser: Client, leo: User, airisk: World
) -> None:
    connect(browser)
    assert visit(f"/call-after-sign-in/{query}").json() == {"before": before, "after": 200}
    assert airisk.journal[-1].values["userid"] == "user_7"


def test_call_after_first_login_is_the_users(anonymous: Browser, leo: User, airisk: World) -> None:
    assert anonymous("/call-after-sign-in/").json()["after"] == 200
    assert airisk.journal[-1].values["userid"] == "user_7"


@pytest.mark.django_db(transaction=True)
def test_async_call_is_made_as_the_current_user(browser: Client, leo: User, airisk: World, settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    connect(browser)
    assert b"lastUpdated" in browser.get("/call-after-sign-in-async/").content
    assert airisk.journal[-1].values["userid"] == "user_7"


@pytest.mark.parametrize(("query", "made"), [("?out", 0), ("?out&first", 2), ("?nobody", 0), ("?nobody&first", 2)])
def test_anonymous_visitor_makes_no_call(query: str, made: int, visit: Browser, browser: Client, airisk: World) -> None:
    """Neither after signing out nor where a framework leaves no user at all; the calls are those made before."""
    connect(browser)
    live_token(airisk)
    calls = len(airisk.journal)
    response = visit(f"/call-after-sign-in/{query}", headers={"Accept": "application/json"})
    assert (response.status_code, len(airisk.journal) - calls) == (403, made)


def test_session_works_in_a_with_statement(visit: Browser, browser: Client, airisk: World) -> None:
    connect(browser)
    assert b"lastUpdated" in visit("/call-in-a-with-statement/").content


@pytest.mark.parametrize("stack", ["sync", "async"])
@pytest.mark.django_db(transaction=True)
def test_views_that_fail_cost_one_renewal(stack: str, mia: User, airisk: World, settings: Any) -> None:
    """Each view's transaction is rolled back, with everything that was written in it."""
    settings.ROOT_URLCONF = __name__
    visit = Browser(stack)
    visit.client.force_login(mia)
    visit.client.raise_request_exception = False
    give_token(mia, ends_in=-60)
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert [visit("/call-and-fail/").status_code for _call in range(5)] == [500] * 5
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert len(token_requests(airisk)) == 1
    assert stored(mia).renewed_at > stored(mia).obtained_at


@pytest.mark.parametrize("path", ["/", "/hold/"])
def test_djangos_per_site_cache_works(path: str, visit: Browser, browser: Client, airisk: World, settings: Any) -> None:
    cache = "django.middleware.cache.{}CacheMiddleware"
    settings.MIDDLEWARE = [cache.format("Update"), *settings.MIDDLEWARE, cache.format("FetchFrom")]
    connect(browser)
    assert [visit(path).status_code for _visit in range(2)] == [200] * 2


@pytest.mark.parametrize("again", [pickle.dumps, copy.deepcopy])
def test_responses_are_left_as_the_view_made_them(again: Callable[[Any], Any]) -> None:
    response = HttpResponse("home")
    before = dict(vars(response))
    middleware: Any = AIRiskMiddleware(lambda _request: response)
    assert middleware(RequestFactory().get("/")) is response
    assert vars(response) == before
    again(response)


def test_unused_session_costs_no_query(visit: Browser, django_assert_num_queries: "DjangoAssertNumQueries") -> None:
    with django_assert_num_queries(0):
        assert visit("/").content == b"home"


def test_unused_session_imports_nothing_heavy() -> None:
    script = """
        import sys
        import django
        from django.conf import settings
        from django.http import HttpResponse
        from django.test import Client
        from django.urls import include, path
        from tests import settings as ours

        settings.configure(
            **{**{name: value for name, value in vars(ours).items() if name.isupper()}, "ROOT_URLCONF": "__main__"}
        )
        django.setup()
        urlpatterns = [path("", lambda request: HttpResponse("home")), path("a/", include("airisk_oauth.urls"))]
        assert Client().get("/").content == b"home"
        ours = {"airisk_oauth.client.sessions", "airisk_oauth.oauth.transport"}
        heavy = ours | {"requests", "urllib3", "httpx2", "cryptography"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_starting_a_site_imports_no_page() -> None:
    """Not even the admin, which every process loads: a worker or a command shows no page."""
    script = "import django, sys; django.setup(); sys.exit('airisk_oauth.connecting.problems' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("path", ["/hold/", "/hold-async/"])
def test_session_is_closed_after_the_response(path: str, visit: Browser, browser: Client, airisk: World) -> None:
    connect(browser)
    assert visit(path).status_code == 200
    assert not is_open(held[0])


def test_session_is_closed_after_a_crash(visit: Browser, browser: Client, airisk: World) -> None:
    connect(browser)
    visit.client.raise_request_exception = False
    assert visit("/hold-and-fail/").status_code == 500
    assert not is_open(held[0])


def test_session_is_closed_after_a_stream(browser: Client, airisk: World, settings: "Settings") -> None:
    settings.ROOT_URLCONF = __name__
    connect(browser)
    response: Any = browser.get("/hold-streamed/")
    lines = iter(response)
    assert b"lastUpdated" in next(lines)
    assert list(lines) == [b"last"]
    assert not is_open(held[0])


def test_session_is_closed_after_an_async_stream(browser: Client, airisk: World, settings: "Settings") -> None:
    settings.ROOT_URLCONF = __name__
    connect(browser)
    client = AsyncClient()
    client.cookies = browser.cookies

    @async_to_sync
    async def read() -> None:
        response: Any = await client.get("/hold-streamed-async/")
        lines = aiter(response)
        assert b"lastUpdated" in await anext(lines)
        assert [line async for line in lines] == [b"last"]
        assert not is_open(held[0])

    read()


def test_async_view_calls_through_the_aclient(visit: Browser, browser: Client, airisk: World) -> None:
    connect(browser)
    assert b"lastUpdated" in visit("/hold-aclient/").content
    assert airisk.journal[-1].values == {"client_id": "client-1", "userid": "user_42"}
    assert not is_open_async(held[0])


def test_async_view_sends_user_to_connect(visit: Browser, airisk: World) -> None:
    assert visit("/hold-aclient/")["Location"] == "/airisk/connect/?next=%2Fhold-aclient%2F"


def test_aclient_is_closed_after_a_stream(browser: Client, airisk: World, settings: "Settings") -> None:
    settings.ROOT_URLCONF = __name__
    connect(browser)
    client = AsyncClient()
    client.cookies = browser.cookies

    @async_to_sync
    async def read() -> bytes:
        response: Any = await client.get("/hold-aclient-streamed/")
        parts = aiter(response)
        first: bytes = await anext(parts)
        assert is_open_async(held[0])
        rest = b"".join([part async for part in parts])
        assert not is_open_async(held[0])
        return first + rest

    assert FIRST_LINE.encode() in read()


@pytest.mark.django_db(transaction=True)
def test_aclient_is_closed_if_the_browser_leaves(browser: Client, airisk: World, settings: "Settings") -> None:
    settings.ROOT_URLCONF = __name__
    connect(browser)
    held.clear()
    cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in browser.cookies.items())
    scope: Any = {
        **AsyncRequestFactory()._base_scope(path="/hold-aclient-and-wait/"),  # type: ignore[attr-defined]
        "headers": [(b"host", b"testserver"), (b"cookie", cookies.encode())],
    }

    @async_to_sync
    async def go_away() -> None:
        site: Any = ApplicationCommunicator(ASGIHandler(), scope)  # type: ignore[no-untyped-call]
        await site.send_input({"type": "http.request", "body": b""})
        async with asyncio.timeout(10):
            while not held:
                await asyncio.sleep(0.01)
            await site.send_input({"type": "http.disconnect"})
            await site.future

    go_away()
    assert not is_open_async(held[0])


def test_session_is_closed_after_a_failed_close(browser: Client, airisk: World, settings: "Settings") -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.bad_closing"]
    connect(browser)
    with pytest.raises(OSError, match="closing"):
        browser.get("/hold/")
    assert not is_open(held[0])


def bad_closing(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def close() -> None:
        raise OSError("closing")

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.path == "/hold/":
            response.close = close  # type: ignore[method-assign]
        return response

    return middleware


def test_missing_authentication_is_named(anonymous: Browser, settings: "Settings") -> None:
    settings.MIDDLEWARE = ["airisk_oauth.middleware.AIRiskMiddleware"]
    assert anonymous("/").content == b"home"
    with pytest.raises(ImproperlyConfigured, match="AuthenticationMiddleware"):
        anonymous("/conversations/")


# ConnectionRequired


@pytest.mark.parametrize("headers", BROWSERS, ids=str)
@pytest.mark.parametrize("method", ["get", "head"])
def test_browser_is_sent_to_connect_with_next(
    method: str, headers: dict[str, str], visit: Browser, airisk: World
) -> None:
    response = visit("/conversations/?q=a%26b", method, headers=headers)
    back = urlencode({"next": "/conversations/?q=a%26b"})
    assert (response.status_code, response["Location"]) == (302, f"/airisk/connect/?{back}")
    assert airisk.journal == []


def test_browser_comes_back_after_connecting(browser: Client, airisk: World) -> None:
    connect_page = browser.get("/conversations/?page=2")["Location"]
    next_url = browser.get(connect_page).context["next"]
    assert connect(browser, next=next_url)["Location"] == "/conversations/?page=2"
    assert browser.get("/conversations/?page=2").json()["status"] == 200


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_browser_is_not_led_back_to_a_post(method: str, visit: Browser, airisk: World) -> None:
    response = visit("/conversations/", method)
    assert (response.status_code, response["Location"]) == (302, "/airisk/connect/")


@pytest.mark.parametrize(
    ("path", "headers"),
    [*(("/conversations/", headers) for headers in SCRIPTS), *((path, SCRIPTS[0]) for path in VIEWS)],
    ids=str,
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_script_gets_json_with_connect_url(
    method: str, path: str, headers: dict[str, str], visit: Browser, airisk: World
) -> None:
    response = visit(path, method, headers=headers)
    assert (response.status_code, response["Content-Type"]) == (403, "application/json")
    answer = response.json()
    assert set(answer) == {"detail", "connect_url"}
    assert "not connected" in answer["detail"] or "no identity" in answer["detail"]
    assert answer["connect_url"] == VIEWS.get(path, "/airisk/connect/")
    assert airisk.journal == []


def test_browser_is_sent_to_the_called_deployment(visit: Browser, airisk: World) -> None:
    location = visit("/call-second/")["Location"]
    assert location == f"/airisk/connect/second/?{urlencode({'next': '/call-second/'})}"


@pytest.mark.parametrize("headers", [BROWSERS[0], SCRIPTS[0]], ids=["browser", "script"])
def test_applications_failure_redirects_no_user(headers: dict[str, str], visit: Browser, airisk: World) -> None:
    airisk.switches.login_page = True
    with pytest.raises(ConnectionRequired) as caught:
        visit("/application/", headers=headers)
    assert caught.value.connect_url is None


def test_other_errors_are_left_to_the_site(visit: Browser, mia: User, airisk: World) -> None:
    give_token(mia)
    with pytest.raises(ValueError, match=r"^$"):
        visit("/hold-and-fail/")


@pytest.mark.parametrize("urlconf", ["tests.site_views", ""])
def test_call_without_our_urls_names_no_page(urlconf: str, mia: User, settings: "Settings") -> None:
    settings.ROOT_URLCONF = urlconf
    with pytest.raises(ConnectionRequired) as caught, AIRiskSession.for_user(mia) as airisk:
        airisk.get("/api/GetConversations")
    assert caught.value.connect_url is None


@pytest.mark.parametrize("path", VIEWS)
def test_site_without_our_urls_redirects_nobody(path: str, mia: User, client: Client, settings: "Settings") -> None:
    settings.ROOT_URLCONF = "tests.site_views"
    client.force_login(mia)
    with pytest.raises(ConnectionRequired):
        client.get(path)


# airisk_required and AIRiskRequiredMixin


@pytest.mark.parametrize(
    ("path", "deployment"),
    [
        ("/needs/", "default"),
        ("/needs-second/", "second"),
        ("/needs-class/", "default"),
        ("/needs-class-async/", "default"),
    ],
)
def test_connected_user_passes_without_a_call(
    path: str, deployment: str, visit: Browser, mia: User, airisk: World
) -> None:
    AIRiskIdentity.objects.update(deployment=deployment)
    give_token(mia, deployment=deployment)
    assert_passes(visit, path)
    assert airisk.journal == []


@pytest.mark.parametrize(
    "token",
    [{"ends_in": None}, {"ends_in": -60}, {"failure_kind": "refused", "failure_count": 1}],
    ids=["no expiry", "expired", "refused but valid"],
)
def test_usable_token_passes_without_a_call(token: dict[str, Any], visit: Browser, mia: User, airisk: World) -> None:
    give_token(mia, **token)
    assert_passes(visit, "/needs/")
    assert airisk.journal == []


def assert_passes(visit: Browser, path: str) -> None:
    response = visit(path)
    assert response.status_code == 200
    assert response.content.startswith(b"connected")


def _change_token(**values: Any) -> "Spoil":
    return lambda _settings: AIRiskToken.objects.update(**values)


def _end_token(**values: Any) -> "Spoil":
    return lambda _settings: AIRiskToken.objects.update(expires_at=F("renewed_at"), **values)


def _end_without_renewal(settings: "Settings") -> None:
    _end_token()(settings)
    set_option(settings, SILENT_RENEWAL=False)


def _lose_the_key(settings: "Settings") -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


Spoil = Callable[["Settings"], object]
SPOILT: dict[str, Spoil] = {
    "never connected": lambda _settings: AIRiskToken.objects.all().delete(),
    "just refused": _end_token(failure_kind="refused", failed_at=Now()),
    "sign-in just required": _end_token(failure_kind="person", failed_at=Now()),
    "no silent renewal": _end_without_renewal,
    "identity changed": lambda _settings: AIRiskIdentity.objects.update(userid="user_1"),
    "identity removed": lambda _settings: AIRiskIdentity.objects.all().delete(),
    "unreadable": _lose_the_key,
    "of another deployment": _change_token(deployment="second"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_user_without_usable_token_has_to_connect(
    spoil: Spoil, visit: Browser, mia: User, airisk: World, settings: "Settings"
) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    give_token(mia)
    spoil(settings)
    assert_sent_to_connect(visit, "/needs/")
    assert airisk.journal == []


@pytest.mark.parametrize("kind", ["refused", "person"])
def test_old_refusal_keeps_nobody_from_a_view(visit: Browser, mia: User, airisk: World, kind: str) -> None:
    paused = {"retry_at": timezone.now() + timedelta(days=1), "failed_at": timezone.now() - timedelta(seconds=6)}
    give_token(mia, ends_in=-60, failure_kind=kind, failure_count=9, **paused)
    assert visit("/needs/").status_code == 200
    assert airisk.journal == []


@pytest.mark.parametrize("path", VIEWS)
def test_unconnected_user_is_sent_to_connect(path: str, visit: Browser, airisk: World) -> None:
    assert_sent_to_connect(visit, path)
    assert airisk.journal == []


def assert_sent_to_connect(visit: Browser, path: str) -> None:
    response = visit(f"{path}?a=1")
    assert (response.status_code, response["Location"]) == (302, f"{VIEWS[path]}?{urlencode({'next': f'{path}?a=1'})}")
    assert visit(path, "post")["Location"] == VIEWS[path]


@pytest.mark.parametrize("path", VIEWS)
def test_guarded_view_sends_visitors_to_login(path: str, anonymous: Browser) -> None:
    response = anonymous(f"{path}?a=1")
    assert (response.status_code, response["Location"]) == (302, f"/accounts/login/?next={path}%3Fa%3D1")


@pytest.mark.parametrize("path", VIEWS)
def test_script_that_is_not_signed_in_gets_403(path: str, anonymous: Browser) -> None:
    response = anonymous(path, headers=SCRIPTS[0])
    assert (response.status_code, response.json()["connect_url"]) == (403, VIEWS[path])


def test_anonymous_call_ends_at_the_login_page(
    anonymous: Browser,
) -> None:
    connect_page = anonymous("/conversations/")["Location"]
    assert anonymous(connect_page)["Location"].startswith("/accounts/login/?next=/airisk/connect/")


def test_decorated_view_gets_its_arguments(browser: Client, mia: User, rf: Any) -> None:
    @airisk_required()
    def view(request: HttpRequest, number: int, *, word: str) -> HttpResponse:
        return HttpResponse(f"{number} {word}")

    give_token(mia)
    request = rf.get("/")
    request.user = mia
    assert view(request, 1, word="one").content == b"1 one"


def test_deployment_of_a_view_is_a_keyword() -> None:
    decorate: Any = airisk_required
    with pytest.raises(TypeError, match=r"@airisk_required\(deployment=.second.\)"):
        decorate("second")


def test_decorated_view_keeps_its_name_and_kind() -> None:
    assert site_views.needs_connection.__name__ == "needs_connection"
    assert not iscoroutinefunction(site_views.needs_connection)
    assert site_views.needs_second.__name__ == "needs_second"
    assert iscoroutinefunction(site_views.needs_second)


def test_sites_own_userid_function_is_used(visit: Browser, mia: User, settings: "Settings") -> None:
    set_option(settings, USERID=f"{__name__}.userid_of")
    AIRiskIdentity.objects.all().delete()
    give_token(mia, userid="mia at default")
    assert visit("/needs/").status_code == 200


def userid_of(user: User, deployment: str) -> str:
    return f"{user.username} at {deployment}"
