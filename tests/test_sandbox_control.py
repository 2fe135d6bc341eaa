"""The sandbox's control page."""

import re
from dataclasses import fields
from typing import Any
from urllib.parse import urljoin

import pytest
from django.test import Client
from django.urls import reverse

from airisk_oauth.sandbox import control
from airisk_oauth.sandbox.world import REFUSALS, Switches, world
from tests.support.sandbox import (
    OTHER_CALLBACK,
    assert_unauthorized,
    authorize,
    call,
    obtain,
)

pytestmark = pytest.mark.usefixtures("two_clients")


def switch_fields(**changes: str) -> dict[str, str]:
    return {"action": "save", "latency": "0", "retry_after": "", "token_life": "3600", **changes}


def press(client: Client, action: str) -> str:
    """Press a button, and return the page that it leads to."""
    url = reverse("airisk_sandbox:control")
    return client.get(urljoin(url, client.post(url, {"action": action})["Location"])).text


def test_control_page_shows_state_but_no_secrets(
    client: Client,
) -> None:
    authorize(client, userid="<b>user")
    page = client.get(reverse("airisk_sandbox:control")).content.decode()
    assert "http://testserver" in page
    assert OTHER_CALLBACK in page
    assert "&lt;b&gt;user" in page
    assert "GET /api/oauth2" in page
    assert "secret-1" not in page
    assert not re.search("<script|<link|<img|@import|url\\(|<b>", page)


def test_control_page_sets_every_switch(client: Client) -> None:
    flags = {switch.name: True for switch in fields(Switches) if switch.type is bool}
    changes = {"latency": "0.5", "retry_after": "7", "token_life": "", "first_text_after": "2.5", "refusals": "json"}
    given = switch_fields(**changes, **dict.fromkeys(flags, "on"))
    url = reverse("airisk_sandbox:control")
    response = client.post(url, given)
    assert (response.status_code, response["Location"]) == (303, "?done=save")
    assert len(flags) == 13
    of_numbers: Any = {"latency": 0.5, "retry_after": 7, "token_life": None, "first_text_after": 2.5}
    assert world.switches == Switches(refusals="json", **of_numbers, **flags)
    assert 'value="0.5"' in client.get(url).content.decode()


def test_control_page_offers_every_way_to_refuse() -> None:
    field: Any = control.SwitchesForm().fields["refusals"]
    assert tuple(dict(field.choices)) == REFUSALS


def test_control_page_resets_omitted_switches(client: Client) -> None:
    client.post(reverse("airisk_sandbox:control"), switch_fields())
    assert world.switches == Switches()


@pytest.mark.parametrize(
    "changes",
    [
        {"latency": "nan"},
        {"latency": ""},
        {"token_life": "0"},
        {"retry_after": "x"},
        {"refusals": "x"},
        {"first_text_after": "-1"},
    ],
)
def test_control_page_rejects_invalid_values(client: Client, changes: dict[str, str]) -> None:
    url = reverse("airisk_sandbox:control", query={"done": "save"})
    assert "AIRisk now behaves as set here." in client.get(url).text
    response = client.post(url, switch_fields(outage="on", **changes))
    assert response.status_code == 400
    assert "AIRisk now behaves as set here." not in response.text
    assert b"errorlist" in response.content
    assert world.switches == Switches()


def test_control_page_expires_all_tokens(client: Client) -> None:
    token = obtain(client)["access_token"]
    world.switches.latency = 0.01
    page = press(client, "end_all_tokens")
    assert '<p class="done" role="status">AIRisk now refuses all tokens' in page
    assert_unauthorized(call(client, "list_agents", token=token))
    assert world.switches == Switches(latency=0.01)


def test_control_page_resets_everything(client: Client) -> None:
    world.switches.outage = True
    authorize(client)
    page = press(client, "reset")
    assert "The switches, the conversations and the received requests are reset." in page
    assert (world.switches, world.journal) == (Switches(), [])


def test_control_page_checks_the_csrf_token() -> None:
    browser = Client(enforce_csrf_checks=True)
    assert browser.post(reverse("airisk_sandbox:control"), switch_fields(outage="on")).status_code == 403
    assert world.switches == Switches()
