"""AIRISK_OAUTH_NOTIFY: who gets an e-mail about a lost connection, what it says, and what it must not cost."""

import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from email import message_from_bytes, policy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import Client
from django.utils.translation import gettext, override, to_language

from airisk_oauth.exceptions import AIRiskRefused, ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.notices import gathering, letters, sending
from airisk_oauth.notices.loss import Loss
from airisk_oauth.notices.options import options
from airisk_oauth.sandbox.world import World
from airisk_oauth.signals import connection_lost
from airisk_oauth.tokens.report import BY_HAND, IDENTITY_CHANGED, PERSON_ASKED_FOR
from tests import messages
from tests.support.admin import ask_for, confirm
from tests.support.clock import set_clock
from tests.support.commands import refresh_json
from tests.support.database import committing, database_away
from tests.support.mail import Counting, send_by
from tests.support.options import set_option, trouble
from tests.support.people import connected_users, credential, give_token, renew_token
from tests.support.texts import Shown
from tests.support.threads import result_or_error

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("save_soon")]

COUNTING = "tests.support.mail.Counting"


@pytest.fixture(autouse=True)
def notify(settings: Any) -> None:
    settings.AIRISK_OAUTH_NOTIFY = {"users": True, "managers": True}
    settings.MANAGERS = ["boss@example.com"]


@pytest.fixture
def counting(settings: Any) -> Iterator[type[Counting]]:
    """A mail server that counts its connections."""
    send_by(settings, COUNTING)
    Counting.opened = Counting.closed = Counting.failing = 0
    yield Counting
    assert Counting.opened == Counting.closed


def lose(user: User | None = None) -> None:
    """Have a call find out that only a person can get a token."""
    give_token(user, ends_in=-60)
    result_or_error(partial(credential, user))


def reachable_users(number: int, alias: str = "default") -> list[User]:
    """Connected users with an e-mail address."""
    users = [token.user for token in connected_users(number, alias) if token.user is not None]
    for user in users:
        user.email = f"{user.username}@example.com"
        user.save()
    return users


def sent_to() -> list[str]:
    return sorted(address for each in mail.outbox for address in each.to)


def parts_of(letter: mail.EmailMessage) -> tuple[str, str]:
    """Return an e-mail's text and HTML, as a mail program reads them."""
    whole = message_from_bytes(letter.message().as_bytes(), policy=policy.default)
    [text], [page] = ([part for part in whole.walk() if part.get_content_type() == kind] for kind in TYPES)
    return text.get_content(), page.get_content()


TYPES = ("text/plain", "text/html")


# To the user


def test_user_is_written_to_once(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    airisk.switches.login_page = True
    lose(mia)
    set_clock(monkeypatch, 3600)
    result_or_error(partial(credential, mia))
    refresh_json(all=True)
    [letter] = mail.outbox
    assert (letter.subject, letter.to) == ("Please connect to AIRisk again", ["mia@example.com"])
    assert letter.message()["Auto-Submitted"] == "auto-generated"
    text, page = parts_of(letter)
    for words in ("app.example.com can no longer use AIRisk in your name", "https://app.example.com/airisk/connect/"):
        assert words in text
        assert words in page
    assert "user_42" not in text + page
    assert "&" not in text


def test_letter_leads_through_proxy_to_the_alias(airisk: World, settings: Any, mia: User) -> None:
    set_option(settings, "second", REDIRECT_URI="https://app.example.com/prefix/airisk/callback/second/")
    AIRiskIdentity.objects.create(user=mia, userid="user_42", deployment="second")
    give_token(mia, deployment="second", ends_in=60)
    airisk.switches.refuse = True
    refresh_json()
    [letter] = [each for each in mail.outbox if each.to == [mia.email]]
    assert letter.subject == "Please connect to AIRisk “second” again"
    assert "https://app.example.com/prefix/airisk/connect/second/" in letter.body


@pytest.mark.parametrize("values", [{"email": ""}, {"is_active": False}], ids=["without an address", "deactivated"])
def test_unreachable_user_gets_no_mail(airisk: World, mia: User, values: dict[str, Any]) -> None:
    User.objects.filter(pk=mia.pk).update(**values)
    airisk.switches.refuse = True
    lose(mia)
    assert mail.outbox == []


def test_site_without_our_pages_writes_to_no_user(airisk: World, mia: User, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.support.echo"
    airisk.switches.refuse = True
    lose(mia)
    assert mail.outbox == []


def test_deleted_user_gets_no_mail(mia: User) -> None:
    loss: dict[str, Any] = {"deployment": "default", "error": AIRiskRefused(403), "connect_url": "/airisk/connect/"}
    connection_lost.send(AIRiskToken, user_id=mia.pk + 1, **loss)
    assert mail.outbox == []


@pytest.mark.parametrize("what", ["outage", "malformed", "unknown client"])
def test_outage_or_refused_site_writes_to_no_user(airisk: World, mia: User, settings: Any, what: str) -> None:
    trouble(airisk, settings, what)
    lose(mia)
    refresh_json(all=True)
    assert mail.outbox == []


@pytest.mark.parametrize("language", ["en", *(to_language(name) for name in messages.languages())])
def test_letters_are_written_in_each_language(airisk: World, mia: User, settings: Any, language: str) -> None:
    """In the site's language, whichever is active, and a part of another language in none."""
    settings.LANGUAGE_CODE = language
    airisk.switches.login_page = True
    AIRiskIdentity.objects.create(user=mia, userid="user_42", deployment="second")
    give_token(mia, deployment="second", ends_in=60)
    give_token(None, ends_in=60)
    with override("it"):
        refresh_json()
    assert len(mail.outbox) == 2
    written = [words for each in mail.outbox for words in (str(each.subject), *parts_of(each))]
    with override(language):
        expected = [gettext(words) for words in ("Hello,", "Lost connections to AIRisk", "Connect")]
    assert all(any(words in each for each in written) for words in expected)
    if language != "en":
        english = {"Hello,", "Lost connections to AIRisk", "This command says what to do:"}
        assert not english & set().union(*(Shown(each).found for each in written))
    assert [re.findall('<html lang="([-a-z]+)"', parts_of(each)[1]) for each in mail.outbox] == [[language]] * 2


def test_users_language_is_the_sites_to_tell(airisk: World, mia: User, settings: Any) -> None:
    settings.AIRISK_OAUTH_NOTIFY = {"users": True, "language": "tests.support.languages.of_last_name"}
    User.objects.filter(pk=mia.pk).update(last_name="de")
    airisk.switches.refuse = True
    lose(mia)
    ben = User.objects.create_user("ben", "ben@example.com")
    AIRiskIdentity.objects.create(user=ben, userid="user_42")
    lose(ben)
    assert [each.subject for each in mail.outbox] == [
        "Bitte verbinden Sie sich neu mit AIRisk",
        "Please connect to AIRisk again",
    ]


def test_site_can_override_templates(airisk: World, mia: User, settings: Any) -> None:
    [engine] = settings.TEMPLATES
    own = {
        "airisk_oauth/email/connection_lost_subject.txt": "Dear {{ user.username }}\nBcc: everybody@example.com\n",
        "airisk_oauth/email/connection_lost.txt": "{{ deployment }}: {{ connect_url }}",
        "airisk_oauth/email/connection_lost.html": "<p>{{ site }}</p>",
    }
    loaders = [("django.template.loaders.locmem.Loader", own)]
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": {**engine["OPTIONS"], "loaders": loaders}}]
    airisk.switches.refuse = True
    lose(mia)
    [letter] = mail.outbox
    assert letter.subject == "Dear mia Bcc: everybody@example.com"
    text, page = parts_of(letter)
    assert (text, page.strip()) == ("default: https://app.example.com/airisk/connect/\n", "<p>app.example.com</p>")
    assert letter.recipients() == ["mia@example.com"]


# To the managers


def test_managers_are_told_of_the_application(airisk: World, mia: User, settings: Any) -> None:
    settings.MANAGERS = [("Boss", "boss@example.com"), "chief@example.com"]
    trouble(airisk, settings, "unknown client")
    lose()
    lose(mia)
    [letter] = mail.outbox
    assert letter.to == ["boss@example.com", "chief@example.com"]
    assert letter.from_email == settings.SERVER_EMAIL
    assert letter.subject == "[Django] app.example.com has lost its own connection to AIRisk"
    text, page = parts_of(letter)
    for written in (text, page):
        assert "refused by AIRisk · 401 · Unauthorized · 00-" in written
        assert "python manage.py check_airisk --deployment default" in written


def test_sweep_writes_one_letter_to_the_managers(airisk: World, settings: Any, mia: User) -> None:
    users, others = reachable_users(3), reachable_users(2, "second")
    give_token(mia, ends_in=60)
    AIRiskIdentity.objects.filter(user=mia).delete()
    airisk.switches.refuse = True
    for _again in range(2):
        refresh_json()
    assert sent_to() == sorted(["boss@example.com", *(user.email for user in (*users, *others))])
    [letter] = [each for each in mail.outbox if each.to == ["boss@example.com"]]
    assert letter.subject == "[Django] 6 users have lost the connection to AIRisk"
    text, page = parts_of(letter)
    for user in users:
        assert f"- {user} ({user.pk}): refused by AIRisk · 302 · access_denied\n" in text
        assert f"<b>{user}</b>" in page
    assert f"- mia ({mia.pk}): {IDENTITY_CHANGED}\n" in text
    assert text.index("AIRisk “second”") < text.index(str(others[0]))
    assert "In all" not in text + page


def test_letter_to_managers_names_only_a_few(airisk: World, monkeypatch: pytest.MonkeyPatch, mia: User) -> None:
    monkeypatch.setattr(letters, "NAMED", 2)
    airisk.switches.refuse = True
    lose(mia)
    connected_users(3)
    refresh_json()
    text, page = parts_of(mail.outbox[-1])
    assert text.count("access_denied") == page.count("access_denied") == 2
    for written in (text, page):
        assert "and 1 other user" in written
        assert "In all, 4 users of this deployment have lost the connection." in written


def test_letter_to_managers_explains_each_loss(mia: User, settings: Any) -> None:
    set_option(settings, "second", SILENT_RENEWAL=False)
    page = ConnectionRequired("AIRisk requires a sign-in in a browser.")
    losses = [Loss(mia.pk, alias, page, None) for alias in ("default", "second")]
    letter = letters.letter_to_managers(losses, {})
    assert f"- ({mia.pk}): {PERSON_ASKED_FOR}\n" in letter.body
    assert f"- ({mia.pk}): {BY_HAND}\n" in letter.body


def test_names_in_letters_are_escaped(airisk: World) -> None:
    [user] = reachable_users(1)
    user.username = "<b>&'"
    user.save()
    airisk.switches.refuse = True
    refresh_json()
    text, page = parts_of(mail.outbox[0])
    assert "<b>&'" in text
    assert "&lt;b&gt;&amp;&#x27;" in page


def test_renewing_in_the_admin_writes_one_letter(airisk: World, admin_client: Client) -> None:
    tokens = connected_users(3)
    airisk.switches.refuse = True
    confirm(admin_client, ask_for(admin_client, "renew_now", *tokens))
    assert sent_to() == ["boss@example.com"]


# Who wants none


def test_nobody_is_written_to_unless_asked_for(airisk: World, mia: User, settings: Any) -> None:
    del settings.AIRISK_OAUTH_NOTIFY
    airisk.switches.refuse = True
    lose(mia)
    lose()
    refresh_json(all=True)
    assert mail.outbox == []


@pytest.mark.parametrize(("who", "expected"), [("users", "mia@example.com"), ("managers", "boss@example.com")])
def test_users_and_managers_are_asked_for_apart(
    airisk: World, mia: User, settings: Any, who: str, expected: str
) -> None:
    settings.AIRISK_OAUTH_NOTIFY = {who: True}
    airisk.switches.refuse = True
    lose(mia)
    lose()
    assert sent_to() == [expected]


def test_site_without_managers_writes_to_none(airisk: World, settings: Any) -> None:
    settings.MANAGERS = []
    airisk.switches.refuse = True
    lose()
    assert mail.outbox == []


# What it must not cost


def test_sweep_needs_one_connection_for_all(airisk: World, counting: type[Counting]) -> None:
    reachable_users(5)
    reachable_users(5, "second")
    airisk.switches.refuse = True
    refresh_json()
    assert (len(mail.outbox), counting.opened) == (11, 1)


def failures_in(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, str, str]]:
    """Return for whom and where no e-mail was sent, and by which error."""
    failed = [record for record in caplog.records if record.name == "airisk_oauth.notices"]
    assert {vars(record)["event"] for record in failed} <= {"notice.failed"}
    return [(each.user_id, each.deployment, each.error) for each in failed]  # type: ignore[attr-defined]


def test_refused_address_costs_one_letter(
    airisk: World, counting: type[Counting], caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.AIRISK_OAUTH_NOTIFY = {"users": True}
    reachable_users(4)
    counting.failing = 2
    airisk.switches.refuse = True
    refresh_json()
    assert len(mail.outbox) == 2
    assert [error for _user_id, _deployment, error in failures_in(caplog)] == ["SMTPRecipientsRefused"] * 2
    assert "@" not in caplog.text


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_dead_mail_server_costs_the_letters_only(
    airisk: World, mia: User, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    send_by(settings, "django.core.mail.backends.smtp.EmailBackend", host="127.0.0.1", port=closed_port())
    users = reachable_users(4)
    airisk.switches.refuse = True
    status, report = refresh_json()
    assert (status, report["refused"]) == (1, 4)
    assert sorted(failures_in(caplog), key=str) == [
        *(sorted((user.pk, "default", "ConnectionRefusedError") for user in users)),
        (None, "default", "ConnectionRefusedError"),
    ]
    caplog.clear()
    lose(mia)
    assert failures_in(caplog) == [(mia.pk, "default", "ConnectionRefusedError")]


def test_mail_server_that_is_silent_is_given_up(
    airisk: World, mia: User, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the site itself sets no limit; and after three letters for all."""
    monkeypatch.setattr(sending, "TIMEOUT", 0.2)
    reachable_users(12)
    airisk.switches.refuse = True
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as silent:
        port = silent.getsockname()[1]
        send_by(settings, "django.core.mail.backends.smtp.EmailBackend", host="127.0.0.1", port=port)
        began = time.monotonic()
        refresh_json()
    assert time.monotonic() - began < 5
    assert [error for _user_id, _deployment, error in failures_in(caplog)] == ["SMTPServerDisconnected"] * 13


def test_limit_of_the_site_is_kept(settings: Any) -> None:
    send_by(settings, "django.core.mail.backends.smtp.EmailBackend", host="127.0.0.1", port=closed_port(), timeout=3)
    seen = []

    def write() -> mail.EmailMessage:
        return mail.EmailMessage("subject", "text", to=["mia@example.com"])

    def note(connection: Any) -> bool:
        seen.append(connection.timeout)
        raise ConnectionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.core.mail.backends.smtp.EmailBackend.open", note)
        sending.deliver([sending.Letter(None, "default", write)])
    assert seen == [3]


@committing
def test_failing_database_costs_the_letters_only(airisk: World, mia: User, caplog: pytest.LogCaptureFixture) -> None:
    airisk.switches.refuse = True
    with database_away('SELECT "auth_user"', 1):
        lose(mia)
    assert mail.outbox == []
    assert failures_in(caplog) == [(None, "default", "OperationalError")]


def test_failing_language_costs_one_letter(
    airisk: World, mia: User, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AIRISK_OAUTH_NOTIFY = {"users": True, "language": "tests.support.languages.of_last_name"}
    User.objects.filter(pk=mia.pk).update(last_name="Faulty")
    airisk.switches.refuse = True
    lose(mia)
    assert failures_in(caplog) == [(mia.pk, "default", "LookupError")]


def test_address_with_a_newline_reaches_nobody(airisk: World, mia: User, caplog: pytest.LogCaptureFixture) -> None:
    User.objects.filter(pk=mia.pk).update(email="mia@example.com\nBcc: everybody@example.com")
    airisk.switches.refuse = True
    lose(mia)
    assert mail.outbox == []
    assert [user_id for user_id, _deployment, _error in failures_in(caplog)] == [mia.pk]


@committing
def test_letter_waits_for_the_callers_transaction(airisk: World, mia: User) -> None:
    airisk.switches.refuse = True
    connected_users(1)
    with transaction.atomic():
        lose(mia)
        refresh_json()
        assert mail.outbox == []
    assert sent_to() == ["boss@example.com", "mia@example.com"]


def test_gathering_within_gathering_is_one(airisk: World, mia: User) -> None:
    airisk.switches.refuse = True
    with gathering.together():
        with gathering.together():
            lose(mia)
        assert mail.outbox == []
    assert sent_to() == ["boss@example.com", "mia@example.com"]


def test_sweep_that_breaks_off_sends_its_letters(airisk: World, mia: User) -> None:
    airisk.switches.refuse = True

    @gathering.together()
    def broken_off() -> None:
        lose(mia)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert sent_to() == ["boss@example.com", "mia@example.com"]


def test_recovery_is_told_by_no_letter(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    airisk.switches.refuse = True
    lose(mia)
    airisk.switches.refuse = False
    renew_token(mia)
    assert sent_to() == ["mia@example.com"]


# Several hosts

SITE = """
import sys
import django
from django.conf import settings

django.setup()
[folder] = sys.argv[1:]
settings.AIRISK_OAUTH_NOTIFY = {"users": True, "managers": True}
settings.MANAGERS = ["boss@example.com"]
backend = "django.core.mail.backends.filebased.EmailBackend"
settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": {"file_path": folder}}}
settings.EMAIL_BACKEND, settings.EMAIL_FILE_PATH = backend, folder
from airisk_oauth.refresh import refresh_tokens

print("ready", flush=True)
sys.stdin.readline()
print(refresh_tokens(within="10m", deployment="default", workers=4)["refused"])
"""


@committing
def test_two_hosts_write_each_letter_once(airisk: World, environment: dict[str, str], tmp_path: Path) -> None:
    users = reachable_users(20)
    airisk.switches.refuse = True
    script = tmp_path / "site.py"
    script.write_text(SITE, encoding="utf-8")
    environment = {**environment, "PYTHONPATH": str(messages.ROOT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
    folders = [tmp_path / "first", tmp_path / "second"]
    hosts = [subprocess.Popen([sys.executable, script, folder], **pipes) for folder in folders]
    for host in hosts:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
    refused = [json.loads(host.communicate("\n", timeout=60)[0]) for host in hosts]
    assert sum(refused) == 20
    written = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*")]
    addresses = Counter(address for text in written for address in re.findall(r"^To: (.+)$", text, re.MULTILINE))
    assert addresses.pop("boss@example.com") == len([number for number in refused if number])
    assert addresses == Counter(user.email for user in users)


# The setting


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (True, "must be a dictionary", "users, managers, language"),
        ({"user": True}, "has an unknown key 'user'", "users, managers, language"),
        ({"users": "yes"}, "has a wrong 'users'", "True or False"),
        ({"managers": 1}, "has a wrong 'managers'", "True or False"),
        ({"language": "tests.support.languages.absent"}, "has a wrong 'language'", "the dotted path"),
        ({"language": "de"}, "has a wrong 'language'", "the dotted path"),
        ({"language": 5}, "has a wrong 'language'", "the dotted path"),
    ],
)
def test_wrong_setting_is_a_check_error(settings: Any, value: Any, message: str, hint: str) -> None:
    settings.AIRISK_OAUTH_NOTIFY = value
    [error] = [each for each in run_checks() if each.id == "airisk_oauth.E009"]
    assert message in error.msg
    assert hint in str(error.hint)
    with pytest.raises(ImproperlyConfigured, match=message):
        options()


@pytest.mark.parametrize("value", [{}, {"users": True, "managers": False, "language": None}])
def test_right_setting_is_no_error(settings: Any, value: dict[str, Any]) -> None:
    settings.AIRISK_OAUTH_NOTIFY = value
    assert [each.id for each in run_checks() if str(each.id).startswith("airisk_oauth")] in ([], ["airisk_oauth.W009"])


def test_managers_that_do_not_exist_are_a_warning(settings: Any) -> None:
    assert "airisk_oauth.W012" not in [each.id for each in run_checks()]
    settings.MANAGERS = []
    assert "airisk_oauth.W012" in [each.id for each in run_checks()]


def test_wrong_setting_costs_the_letters_only(
    airisk: World, mia: User, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AIRISK_OAUTH_NOTIFY = {"users": "yes"}
    airisk.switches.refuse = True
    lose(mia)
    assert AIRiskToken.objects.get().lost_at is not None
    assert mail.outbox == []
    assert "AIRISK_OAUTH_NOTIFY has a wrong 'users'" in caplog.text
