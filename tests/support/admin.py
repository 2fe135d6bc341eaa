"""The admin's pages for tokens and identities."""

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from airisk_oauth.models import AIRiskIdentity, AIRiskToken


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


def act(browser: Client, action: str, *chosen: AIRiskToken) -> list[str]:
    """Apply an action to tokens in the list, confirm it, and return the messages about it."""
    response = ask_for(browser, action, *chosen)
    return [str(message) for message in confirm(browser, response).context["messages"]]


def messages_in(browser: Client) -> list[str]:
    """Return the messages that the list of tokens shows now."""
    return [str(message) for message in browser.get(token_page("changelist")).context["messages"]]


def text_of(response: Any) -> str:
    """Return the text of a page, without its markup."""
    assert response.status_code == 200
    page = response.content.decode()
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page[page.index("<body") :])).split())


def listed(response: Any) -> list[Any]:
    """Return the rows that a list shows."""
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def person(name: str, userid: str = "user_42", deployment: str = "default") -> User:
    """Create a user who has an identity on AIRisk."""
    user = User.objects.create_user(name, email=f"{name}@example.com")
    AIRiskIdentity.objects.create(user=user, userid=userid, deployment=deployment)
    return user


def allow(user: User, *codenames: str) -> None:
    """Give a user these permissions and no others."""
    permissions = Permission.objects.filter(content_type__app_label="airisk_oauth", codename__in=codenames)
    assert len(permissions) == len(codenames)
    user.user_permissions.set(permissions)


@pytest.fixture
def staff(db: None) -> User:
    """A member of staff who has no permissions yet."""
    return User.objects.create_user("sam", is_staff=True)


@pytest.fixture
def desk(staff: User) -> Client:
    """The browser in which Sam is signed in."""
    browser = Client()
    browser.force_login(staff)
    return browser
