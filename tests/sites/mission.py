"""What a site uses this package for: a person connects, calls AIRisk, has tokens renewed, and disconnects."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import requests
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from tests.sites.running import HOST
from tests.support.airisk import AIRisk


@dataclass
class Person:
    """A user with a browser.

    :ivar caller: the client that makes the calls: the browser, or an API client.
    :ivar tenant: activates the user's tenant, for work outside of a request.
    """

    user: Any
    userid: str
    browser: Client
    caller: Client
    tenant: Callable[[], AbstractContextManager[object]] = nullcontext
    page: str = "/conversations/"

    @property
    def token(self) -> Any:
        """A queryset of their token, to be used within their tenant."""
        return AIRiskToken.objects.filter(user=self.user.pk)

    def has_fresh_token(self) -> bool:
        """Tell whether the stored token expires in more than half an hour."""
        with self.tenant():
            return bool(self.token.get().expires_at > timezone.now() + timedelta(minutes=30))

    def expire_in(self, seconds: float) -> None:
        """Set in how many seconds their stored token expires; negative if it has expired."""
        with self.tenant():
            assert self.token.update(expires_at=timezone.now() + timedelta(seconds=seconds)) == 1

    def call(self) -> Any:
        """Return the site's answer with this person's conversations."""
        return self.caller.get(self.page, secure=True)


def new_browser(**headers: str) -> Client:
    """Return a browser whose forms are checked like a real one's."""
    return Client(
        raise_request_exception=False,
        enforce_csrf_checks=True,
        headers={"host": HOST, "origin": f"https://{HOST}", "accept": "text/html", **headers},
    )


def new_person(name: str, userid: str, *, host: str = HOST, **fields: Any) -> Person:
    """Create a user who has an AIRisk identity and is signed in in a browser."""
    users = get_user_model()
    user = users._default_manager.create(**{users.USERNAME_FIELD: name}, **fields)
    AIRiskIdentity.objects.create(user=user, userid=userid)
    browser = new_browser(host=host, origin=f"https://{host}")
    browser.force_login(user)
    return Person(user, userid, browser, caller=browser)


def new_connected_person(
    airisk: AIRisk, name: str, userid: str, *, host: str = HOST, expires_in: float = 3600
) -> Person:
    """Create a user whose token AIRisk accepts; ``expires_in`` is in seconds, negative for an expired one."""
    person = new_person(name, userid, host=host)
    give_token(person, airisk.new_token(userid), expires_in=expires_in)
    return person


def give_token(person: Person, token: str, *, expires_in: float) -> None:
    expires = timezone.now() + timedelta(seconds=expires_in)
    renewed = expires - timedelta(hours=1)
    values: dict[str, Any] = {"access_token": token, "expires_at": expires, "renewed_at": renewed}
    AIRiskToken.objects.create(user=person.user, userid=person.userid, **values)


def press(person: Person, page: str, action: str) -> Any:
    """Open a page, press its button for this action, and return the site's answer."""
    shown = person.browser.get(page, secure=True)
    assert shown.status_code == 200, shown
    form = re.search(
        rf'<form[^>]*action="({action}[^"]*)".*?name="csrfmiddlewaretoken" value="(\w+)"', text(shown), re.DOTALL
    )
    assert form, text(shown)
    return person.browser.post(form[1], {"csrfmiddlewaretoken": form[2]}, secure=True)


def connect(person: Person) -> Any:
    """Press Connect, go to AIRisk and back, and return the site's answer to the callback."""
    started = press(person, "/airisk/connect/", "/airisk/connect/")
    assert started.status_code in (302, 303), why(started)
    at_airisk = requests.get(started["Location"], allow_redirects=False, timeout=10)
    back = urlsplit(at_airisk.headers["Location"])
    return person.browser.get(f"{back.path}?{back.query}", secure=True)


def go_on(person: Person, response: Any) -> str:
    """Follow the site's redirect, and return the text of the page."""
    assert response.status_code in (302, 303), why(response)
    return text(person.browser.get(response["Location"], secure=True))


def text(response: Any) -> str:
    return str(response.content.decode())


def why(response: Any) -> str:
    """Describe a response, with the error that caused it if its status is 500."""
    error = getattr(response, "exc_info", None)
    return f"500 {error[1]!r}" if response.status_code == 500 and error else repr(response)


def assert_called(person: Person) -> None:
    """Check that the call is answered with this person's conversations and nobody else's."""
    response = person.call()
    assert response.status_code == 200, why(response)
    assert re.findall(r'"userID": *"(\w+)"', text(response)) == [person.userid], text(response)


def assert_sent_to_connect(person: Person) -> None:
    """Check that the call is not made: a browser is redirected to the connect page, a script gets its address."""
    response = person.call()
    where = response.get("Location") if response.status_code == 302 else text(response)
    assert response.status_code in (302, 403), why(response)
    assert "/airisk/connect/" in where, why(response)


def mission(airisk: AIRisk, person: Person) -> None:
    """Connect, call, renew on use, after a 401 and by the sweep, disconnect, and be refused.

    :param person: somebody who has not connected yet.
    """
    airisk.granted.clear()
    assert_sent_to_connect(person)
    page = go_on(person, connect(person))
    assert person.userid in page, page
    assert_called(person)
    assert airisk.granted == [person.userid]
    _renew(airisk, person)
    _leave(airisk, person)


def _renew(airisk: AIRisk, person: Person) -> None:
    person.expire_in(-60)
    assert_called(person)
    assert airisk.granted == [person.userid] * 2, "expired"
    assert person.has_fresh_token()
    airisk.refuse_all_tokens()
    assert_called(person)
    assert airisk.granted == [person.userid] * 3, "401"
    person.expire_in(60)
    with person.tenant():
        call_command("refresh_airisk_tokens", stdout=StringIO())
    assert airisk.granted == [person.userid] * 4, "sweep"
    assert person.has_fresh_token()
    assert_called(person)


def _leave(airisk: AIRisk, person: Person) -> None:
    go_on(person, press(person, "/airisk/", "/airisk/disconnect/"))
    assert_sent_to_connect(person)
    airisk.refuses = True
    page = go_on(person, connect(person))
    airisk.refuses = False
    assert "did not allow" in page, page
    with person.tenant():
        assert not person.token.exists()
    assert_sent_to_connect(person)
    assert airisk.granted == [person.userid] * 4


def keeps_to_own_tenant(airisk: AIRisk, person: Person, namesake: Person) -> None:
    """Check that this person's calls carry their own token, whether it is valid, due, expired or refused.

    :param namesake: somebody of another tenant, with the same primary key and a valid token.
    """
    assert person.user.pk == namesake.user.pk
    go_on(person, connect(person))
    for seconds in (3600, 60, -60):
        person.expire_in(seconds)
        airisk.calls.clear()
        assert_called(person)
        assert [call.userid for call in airisk.calls] == [person.userid]
    airisk.refuse_all_tokens()
    assert_called(person)
    assert set(airisk.granted) == {person.userid}, airisk.granted
    assert_called(namesake)
