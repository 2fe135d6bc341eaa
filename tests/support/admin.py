"""The admin's pages for tokens and identities."""

import re
from typing import Any

from django.test import Client
from django.urls import reverse

from airisk_oauth.models import AIRiskToken


def token_page(page: str, *args: Any) -> str:
    return reverse(f"admin:airisk_oauth_airisktoken_{page}", args=args)


def identity_page(page: str, *args: Any) -> str:
    return reverse(f"admin:airisk_oauth_airiskidentity_{page}", args=args)


def obtain_page(alias: str = "default") -> str:
    return token_page("obtain", alias)


def ask_for(browser: Client, action: str, *chosen: AIRiskToken, **data: Any) -> Any:
    """Choose an action for tokens in the list, and return the page that asks for confirmation."""
    data = {"action": action, "_selected_action": [token.pk for token in chosen], "index": 0, **data}
    return browser.post(token_page("changelist"), data)


def confirm(browser: Client, response: Any) -> Any:
    """Submit the form of the page that asks for confirmation."""
    fields = re.findall(r'<input type="hidden" name="(?!csrf)(\w+)" value="(\w*)">', response.content.decode())
    data: dict[str, list[str]] = {}
    for name, value in fields:
        data.setdefault(name, []).append(value)
    return browser.post(response.request["PATH_INFO"], data, follow=True)
