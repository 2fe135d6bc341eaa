"""The page of one token in the admin: its buttons, and the questions before they do anything."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support.admin import allow, messages_in, person, text_of, token_page
from tests.support.people import give_token


def tools(browser: Client, token: AIRiskToken) -> list[tuple[str, str]]:
    """Return the address and the label of each button on a token's page."""
    page = browser.get(token_page("change", token.pk)).text
    return re.findall(r'<li class="airisk-tool">\s*<a href="([^"]+)"[^>]*>([^<]+)</a>', page)


def test_token_is_renewed_from_its_page(admin_client: Client, airisk: World) -> None:
    token = give_token(person("mia"))
    [(address, _label)] = [tool for tool in tools(admin_client, token) if tool[1] == "Renew now"]
    question = admin_client.get(address)
    assert "Renew 1 token now?" in text_of(question)
    assert f'<a href="{token_page("change", token.pk)}" class="button cancel-link' in question.text
    assert airisk.journal == []
    [target] = re.findall(r'class="airisk-confirm" action="([^"]+)"', question.text)
    fields = dict(re.findall(r'<input type="hidden" name="(?!csrf)(\w+)" value="(\w*)">', question.text))
    assert admin_client.post(target, fields).status_code == 302
    assert messages_in(admin_client) == ["1 token was renewed."]
    assert AIRiskToken.objects.get().sealed != token.sealed


def test_token_is_disconnected_from_its_page(admin_client: Client) -> None:
    token = give_token(person("mia"))
    page = admin_client.get(token_page("change", token.pk))
    assert "Delete" not in text_of(page)
    [(address, _label)] = [tool for tool in tools(admin_client, token) if tool[1] == "Disconnect"]
    question = text_of(admin_client.get(address))
    assert "Disconnect 1 token?" in question
    assert "Their users will have to connect again." in question
    assert AIRiskToken.objects.exists()
    admin_client.post(address, {"post": "yes"})
    assert messages_in(admin_client) == ["1 token was disconnected."]
    assert not AIRiskToken.objects.exists()


@pytest.mark.parametrize(("codename", "labels"), [("view", []), ("change", ["Renew now"]), ("delete", ["Disconnect"])])
def test_buttons_of_a_token_need_permissions(codename: str, labels: list[str], desk: Client, staff: User) -> None:
    allow(staff, *{"view_airisktoken", f"{codename}_airisktoken"})
    token = give_token(person("mia"))
    assert [label for _address, label in tools(desk, token)] == labels
    assert desk.get(token_page("renew", token.pk)).status_code == (200 if "Renew now" in labels else 403)
    assert desk.get(token_page("delete", token.pk)).status_code == (200 if "Disconnect" in labels else 403)


@pytest.mark.parametrize("key", ["0", "none"])
def test_token_that_is_gone_cannot_be_renewed(key: str, admin_client: Client) -> None:
    assert admin_client.get(token_page("renew", key)).status_code == 404
