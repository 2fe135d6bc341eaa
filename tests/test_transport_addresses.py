"""Calls of the OAuth endpoints where a host has several addresses, none, or some that do not respond."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from airisk_oauth import conf
from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.oauth.transport import OAuthClient
from tests.support.oauth_clients import GRANT, MakeClient, assert_times_out_within, error_of, exchange, with_each_call
from tests.support.options import set_option
from tests.support.wire import TOO_LONG, Serve, http, resolving_to, saying

pytestmark = pytest.mark.usefixtures("nothing_in_the_environment")


@contextmanager
def unresponsive(number: int, port: int) -> Iterator[tuple[str, int]]:
    """Make an address that accepts no connection, because its queue is full."""
    with ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.create_server((f"127.0.0.{number}", port), backlog=0))
        for _ in range(4):
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_busyes_share_one_timeout(make_client: MakeClient, settings: Any) -> None:
    settings.DEBUG = True
    with ExitStack() as open_sockets:
        port = open_sockets.enter_context(unresponsive(2, 0))[1]
        addresses = [
            ("127.0.0.2", port),
            *(open_sockets.enter_context(unresponsive(number, port)) for number in (3, 4, 5)),
        ]
        with resolving_to(lambda: addresses):
            assert_times_out_within(1.5, make_client(f"http://airisk.invalid:{port}", TIMEOUT=(0.6, 0.9)))


def test_working_address_is_found_behind_others(serve: Serve, make_client: MakeClient, settings: Any) -> None:
    settings.DEBUG = True
    server = serve(saying(http(GRANT)))
    with (
        unresponsive(2, server.port) as busy,
        resolving_to(lambda: [("127.0.0.3", server.port), busy, server.address]),
    ):
        assert exchange(make_client(f"http://airisk.invalid:{server.port}", TIMEOUT=(3, 4))).access_token == "a-token"


def test_refusing_address_leaves_time_for_others(make_client: MakeClient, settings: Any) -> None:
    settings.DEBUG = True
    with (
        unresponsive(2, 0) as busy,
        resolving_to(lambda: [busy, ("127.0.0.3", busy[1])]),
    ):
        error = error_of(exchange, make_client(f"http://airisk.invalid:{busy[1]}", TIMEOUT=(0.4, 0.5)))
    assert "Timeout" in str(error)


@with_each_call
def test_refused_connection_is_unavailable(make_client: MakeClient, call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(error_of(call, make_client(f"http://127.0.0.1:{port}")), AIRiskUnavailable)


@with_each_call
def test_overlong_host_name_is_unavailable(make_client: MakeClient, call: Any) -> None:
    assert isinstance(error_of(call, make_client(f"https://{'a' * 70}.example")), AIRiskUnavailable)


def test_unknown_host_name_is_unavailable(make_client: MakeClient, settings: Any) -> None:
    def unknown() -> list[tuple[str, int]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    settings.DEBUG = True
    with resolving_to(unknown):
        assert isinstance(error_of(exchange, make_client("http://airisk.invalid")), AIRiskUnavailable)


def test_host_without_addresses_is_unavailable(make_client: MakeClient, settings: Any) -> None:
    settings.DEBUG = True
    with resolving_to(list):
        assert isinstance(error_of(exchange, make_client("http://airisk.invalid")), AIRiskUnavailable)


def test_hanging_resolver_is_not_waited_for(make_client: MakeClient, settings: Any) -> None:
    settings.DEBUG = True
    over = threading.Event()

    def hang() -> list[tuple[str, int]]:
        over.wait(TOO_LONG)
        return []

    # Closing an event loop waits for the thread that resolves names.
    with resolving_to(hang), ExitStack() as end:
        airisk = make_client("http://airisk.invalid", TIMEOUT=(0.1, 0.2))
        end.callback(over.set)
        assert isinstance(error_of(exchange, airisk), AIRiskUnavailable)


def test_replaced_create_connection_is_used(serve: Serve, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Replacing ``create_connection`` of urllib3 is how many sites choose addresses."""
    settings.DEBUG = True
    server = serve(saying(http(GRANT)))
    monkeypatch.setattr(
        "urllib3.util.connection.create_connection",
        lambda _address, *_args, **_kwargs: socket.create_connection(server.address),
    )
    set_option(settings, BASE_URL="http://airisk.invalid")
    with OAuthClient(conf.deployment()) as airisk:
        assert exchange(airisk).access_token == "a-token"
