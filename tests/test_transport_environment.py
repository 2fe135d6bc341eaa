"""Calls of the OAuth endpoints use the proxies and certificates of the environment, and no passwords of it."""

import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airisk_oauth import AIRiskSession
from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.wire.environment import obstacle
from tests.support.oauth_clients import GRANT, MakeClient, authorize, error_of, exchange, with_each_call
from tests.support.people import give_token
from tests.support.wire import Certificate, Script, Serve, Server, http, read_request, resolving_to, saying

pytestmark = pytest.mark.usefixtures("nothing_in_the_environment")


# Proxies


def test_proxy_of_the_environment_is_used(
    serve: Serve, make_client: MakeClient, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is read when the client is made."""
    settings.DEBUG = True
    proxy = serve(saying(http(GRANT)))
    monkeypatch.setenv("http_proxy", proxy.url)
    airisk = make_client("http://airisk.invalid/tenant")
    monkeypatch.delenv("http_proxy")
    assert exchange(airisk).access_token == "a-token"
    assert proxy.seen[0].startswith(b"POST http://airisk.invalid/tenant/api/oauth2/Token HTTP/1.1\r\n")


def test_no_proxy_of_the_environment_is_honoured(
    serve: Serve, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = serve(saying(http(GRANT))), serve(saying(http(GRANT)))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    exchange(make_client(server.url))
    assert (len(server.seen), len(proxy.seen)) == (1, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "me:canary-password@localhost", "//localhost"])
def test_proxy_without_a_scheme_is_http(
    serve: Serve, make_client: MakeClient, settings: Any, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    settings.DEBUG = True
    proxy = serve(saying(http(GRANT)))
    monkeypatch.setenv("http_proxy", f"{host}:{proxy.port}")
    assert exchange(make_client("http://airisk.invalid")).access_token == "a-token"


def tunnel_to(server: Server) -> Script:
    """Answer ``CONNECT`` as a proxy, and connect the client with this server."""

    def script(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(server.address) as other, ThreadPoolExecutor(1) as pool:
            pool.submit(copy, other, sock)
            copy(sock, other)

    return script


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_tunnel_of_a_proxy_is_used(
    serve: Serve, make_client: MakeClient, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    context, bundle = certificate("airisk.invalid")
    server = serve(saying(http(GRANT)), context)
    proxy = serve(tunnel_to(server))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    monkeypatch.setenv("https_proxy", f"{scheme}127.0.0.1:{proxy.port}")
    with make_client("https://airisk.invalid") as airisk:
        assert exchange(airisk).access_token == "a-token"
    assert len(server.seen) == 1


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_refused_tunnel_is_unavailable(
    serve: Serve, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    proxy = serve(saying(http(b"", "403 Forbidden")))
    monkeypatch.setenv("https_proxy", f"{scheme}127.0.0.1:{proxy.port}")
    with make_client("https://airisk.invalid") as airisk:
        assert isinstance(error_of(exchange, airisk), AIRiskUnavailable)
    assert proxy.seen


def socks(server: Server) -> Script:
    """Answer as a SOCKS5 proxy (RFC 1928) without authentication, which connects every client with this server."""

    def script(sock: socket.socket) -> None:
        sock.sendall(b"\x05\x00")
        sock.recv(262)
        sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
        with socket.create_connection(server.address) as other:
            other.sendall(read_request(sock))
            while part := other.recv(65536):
                sock.sendall(part)

    return script


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks_proxy_is_used(
    serve: Serve, make_client: MakeClient, settings: Any, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    settings.DEBUG = True
    proxy = serve(socks(serve(saying(http(GRANT)))))
    proxy.greeting = 3
    monkeypatch.setenv("http_proxy", f"{scheme}://127.0.0.1:{proxy.port}")
    with resolving_to(lambda: [("127.0.0.1", 9)]):
        assert exchange(make_client("http://airisk.invalid")).access_token == "a-token"


WITHOUT_SOCKS = """
import asyncio, sys
sys.modules["socks"] = sys.modules["socksio"] = None
from types import SimpleNamespace
from django.conf import settings
settings.configure(USE_TZ=True)
from airisk_oauth.oauth.async_transport import AsyncOAuthClient
from airisk_oauth.oauth.messages import OAuthRequest
from airisk_oauth.oauth.transport import OAuthClient
airisk = SimpleNamespace(alias="default", base_url="https://127.0.0.1:9", timeout=(1, 1))
async def flow(send):
    await send(OAuthRequest("GET", airisk.base_url))
async def run():
    async with AsyncOAuthClient(airisk) as client:
        await client.run(flow)
for call in (lambda: OAuthClient(airisk).run(flow), lambda: asyncio.run(run())):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_missing_package_for_socks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    named = "the environment names a SOCKS proxy, which needs PySocks"
    assert str(obstacle("socks5://127.0.0.1:9", bundle=True)) == named


def test_both_clients_name_the_package_for_socks() -> None:
    environment = {**os.environ, "https_proxy": "socks5h://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_SOCKS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, second = done.stdout.splitlines()
    needs = "AIRiskUnavailable AIRisk did not answer (ProxyUnusable: the environment names a SOCKS proxy, which needs"
    assert (first, second) == (f"{needs} PySocks).", f"{needs} socksio).")


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("https_proxy", "socks://me:canary-password@proxy.corp:1080", "proxy with the scheme socks,"),
        ("https_proxy", "ftp://proxy.corp", "proxy with the scheme ftp,"),
        ("https_proxy", "http://me:canary-password@[proxy.corp", "proxy with an invalid address"),
        ("https_proxy", "http://", "proxy with an invalid address"),
        ("https_proxy", "me:canary-password@[proxy.corp", "proxy with an invalid address"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem", "the CA certificate bundle .* does not exist"),
    ],
)
def test_fault_of_the_environment_is_named(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, cause: str
) -> None:
    monkeypatch.setenv(variable, value)
    error = error_of(exchange, make_client("https://127.0.0.1:9"))
    assert isinstance(error, AIRiskUnavailable)
    assert re.search(cause, str(error))


# Certificates


of_each_variable = pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])


@of_each_variable
def test_ca_bundle_of_the_environment_is_trusted(
    serve: Serve, make_client: MakeClient, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    context, bundle = certificate("127.0.0.1")
    server = serve(saying(http(GRANT)), context)
    monkeypatch.setenv(variable, bundle)
    assert exchange(make_client(server.url)).access_token == "a-token"


@of_each_variable
def test_certificate_needs_a_bundle_to_be_trusted(
    serve: Serve, make_client: MakeClient, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A variable that is empty is as good as none."""
    context, _bundle = certificate("127.0.0.1")
    server = serve(saying(http(GRANT)), context)
    assert isinstance(error_of(exchange, make_client(server.url)), AIRiskUnavailable)
    monkeypatch.setenv(variable, "")
    assert isinstance(error_of(exchange, make_client(server.url)), AIRiskUnavailable)
    assert server.seen == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("host", "minutes", "trusted"),
    [("127.0.0.1", 1, "demo.aicrisk.com"), ("demo.aicrisk.com", 1, "demo.aicrisk.com"), ("127.0.0.1", -1, "127.0.0.1")],
    ids=["of an unknown authority", "of another host", "expired"],
)
def test_invalid_certificate_gets_no_secret(
    serve: Serve,
    make_client: MakeClient,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    minutes: float,
    trusted: str,
) -> None:
    """Neither a code nor the client secret nor a token is sent."""
    made = {name: certificate(name, valid_for=timedelta(minutes=minutes)) for name in {host, trusted}}
    server = serve(saying(http(GRANT)), made[host][0])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", made[trusted][1])
    for call in (authorize, exchange):
        assert isinstance(error_of(call, make_client(server.url)), AIRiskUnavailable)
    give_token(None)
    with AIRiskSession.for_application() as session, pytest.raises(AIRiskUnavailable):
        session.get("/api/Chat/ListAgents")
    assert server.seen == []


@pytest.mark.parametrize("bundle", ["nowhere.pem", "empty"])
def test_missing_or_empty_ca_bundle_trusts_none(
    serve: Serve,
    make_client: MakeClient,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bundle: str,
) -> None:
    context, _bundle = certificate("127.0.0.1")
    server = serve(saying(http(GRANT)), context)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / bundle))
    assert isinstance(error_of(exchange, make_client(server.url)), AIRiskUnavailable)
    assert server.seen == []


@with_each_call
def test_plain_http_instead_of_tls_is_unavailable(serve: Serve, make_client: MakeClient, call: Any) -> None:
    server = serve(saying(http(GRANT)))
    airisk = make_client(server.url.replace("http:", "https:"), TIMEOUT=(0.1, 0.2))
    assert isinstance(error_of(call, airisk), AIRiskUnavailable)


# Passwords


@with_each_call
def test_hostile_netrc_changes_no_header(
    serve: Serve, make_client: MakeClient, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login evil password evil\ndefault login evil password evil\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = serve(saying(http(b"", "400 Bad Request")))
    error_of(call, make_client(server.url))
    assert "Authorization" not in server.headers()
