"""Translations of the package and the demo: all texts are marked and translated, and no page mixes languages."""

import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import django
import pytest
from babel import Locale
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.template.base import Lexer, TokenType
from django.test import Client
from django.urls import reverse
from django.utils.translation import ngettext, override, to_language

from airisk_oauth.connecting.reasons import Reason
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import report
from airisk_oauth.tokens.status import Status
from tests import messages
from tests.support.admin import ask_for, confirm, identity_page, obtain_page, token_page
from tests.support.browsing import authorize, start
from tests.support.people import give_token
from tests.support.texts import NAMES, Shown, sentences

LANGUAGES = messages.languages()
ROOTS = (messages.PACKAGE, messages.DEMO)
#: A tag, a placeholder, or a percent sign.
PLACEHOLDER = r"<[^>]+>|%\(\w+\)[a-z]|%[a-z%]"

of_each_language = pytest.mark.parametrize("language", LANGUAGES)
of_each_root = pytest.mark.parametrize("root", ROOTS, ids=[root.name for root in ROOTS])


def texts(catalogue: Catalog) -> dict[Any, tuple[str, ...]]:
    return {(forms(message.id), message.context): forms(message.string) for message in catalogue if message.id}


def forms(text: Any) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def test_languages_are_those_in_the_readme() -> None:
    readme = " ".join((messages.ROOT / "README.md").read_text(encoding="utf-8").split())
    [named] = re.findall(r"the pages are available in ([^.]+)\.", readme)
    assert {"English", *(Locale.parse(name).english_name for name in LANGUAGES)} == {*re.split(r", | and ", named)}
    assert messages.languages(messages.DEMO) == LANGUAGES


@of_each_root
@of_each_language
def test_catalogue_has_exactly_the_marked_texts(language: str, root: Path) -> None:
    """If this fails, run ``make messages`` and translate the texts that it leaves empty."""
    stored = messages.stored(language, root)
    assert texts(stored) == texts(messages.updated(language, root))
    assert not stored.obsolete


@of_each_root
@of_each_language
def test_translation_is_complete(language: str, root: Path) -> None:
    stored = messages.stored(language, root)
    assert stored.plural_forms == messages.Catalogue(language).plural_forms
    for message in stored:
        if message.id:
            translated = forms(message.string)
            assert len(translated) == (stored.num_plurals if message.pluralizable else 1), message.id
            for text in translated:
                assert text.strip(), message.id
                assert {*re.findall(PLACEHOLDER, text)} == {*re.findall(PLACEHOLDER, forms(message.id)[-1])}, text


@of_each_root
@of_each_language
def test_compiled_catalogue_is_up_to_date(language: str, root: Path) -> None:
    with messages.po_file(language, root).with_suffix(".mo").open("rb") as file:
        assert texts(read_mo(file)) == texts(messages.stored(language, root))


def test_stored_texts_are_marked_for_translation() -> None:
    fields = [field for model in (AIRiskIdentity, AIRiskToken) for field in model._meta.fields if field.editable]
    kept = [
        *(words for reason in Reason for words in (reason.title, reason.text)),
        *(
            report.LEASED_ELSEWHERE,
            report.RENEWED_ELSEWHERE,
            report.IDENTITY_CHANGED,
            report.UNRESOLVED,
            report.UNREADABLE,
            report.OTHER_ADDRESS,
            report.AIRISK_DOWN,
            report.CLIENT_REJECTED,
            report.DEACTIVATED,
            report.USER_REFUSED,
            report.PERSON_ASKED_FOR,
            report.BY_HAND,
            report.NOT_OBTAINED,
        ),
        *(report.INTERRUPTED, *Status.labels, *AIRiskToken.Failure.labels),
        *(text for field in fields if not field.primary_key for text in (field.verbose_name, field.help_text) if text),
    ]
    marked = {form for message in messages.extracted() for form in forms(message.id)}
    assert {str(text) for text in kept} <= marked | messages.OF_DJANGO | NAMES


@of_each_language
def test_catalogue_overrides_no_text_of_django(language: str) -> None:
    """A site merges all catalogues, so a text that Django has as well would change Django's own pages."""
    assert not messages.OF_DJANGO - translated_by_django(language)
    for root in ROOTS:
        ours = {form for message in messages.extracted(root) if message.id for form in forms(message.id)}
        assert ours
        assert not ours & words_of_django()


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", ["0 Tokens wurden", "1 Token wurde", "2 Tokens wurden"]),
        ("es", ["Se renovaron 0 tokens", "Se renovó 1 token", "Se renovaron 2 tokens"]),
        ("fr", ["0 jeton a été", "1 jeton a été", "2 jetons ont été"]),
        ("ja", ["0 個のトークンを", "1 個のトークンを", "2 個のトークンを"]),
        ("zh-hans", ["已为 0 个令牌", "已为 1 个令牌", "已为 2 个令牌"]),
    ],
)
def test_plurals_follow_the_language(language: str, said: list[str]) -> None:
    with override(language):
        for number, beginning in enumerate(said):
            text = ngettext("%d token was renewed.", "%d tokens were renewed.", number) % number
            assert text.startswith(beginning)


def messages_of_django(language: str) -> Iterator[Message]:
    for path in Path(django.__file__).parent.rglob(f"locale/{language}/LC_MESSAGES/django.po"):
        yield from (message for message in read_po(BytesIO(path.read_bytes())) if message.id)


@cache
def words_of_django() -> set[str]:
    """Return the texts that Django marks for translation; not every language has all of them."""
    return {form for message in messages_of_django("en") for form in forms(message.id)}


def translated_by_django(language: str) -> set[str]:
    """Return the texts that Django translates into a language, even where the translation reads like the original."""
    known = (message for name in {language, language.partition("_")[0]} for message in messages_of_django(name))
    return {form for message in known if any(forms(message.string)) and not message.fuzzy for form in forms(message.id)}


# Pages


TEMPLATES = [path for root in ROOTS for path in messages.templates(root)]


@pytest.mark.parametrize("path", TEMPLATES, ids=[str(path.relative_to(messages.ROOT)) for path in TEMPLATES])
def test_templates_mark_all_their_words(path: Path) -> None:
    page, translated = "", False
    for token in Lexer(path.read_text(encoding="utf-8")).tokenize():
        if token.token_type is TokenType.BLOCK:
            name = token.split_contents()[0]
            translated = name == "blocktranslate" or (translated and name != "endblocktranslate")
        elif token.token_type is TokenType.TEXT and not translated:
            page += token.contents
    assert Shown(page).found == set()


def pages(staff: Client, browser: Client, airisk: World) -> Iterator[str]:
    """Yield the pages for users and for staff in many states, and restore the initial state."""
    mia = User.objects.get(username="mia")

    def read(response: Any) -> str:
        assert response.status_code in (200, 400)
        # Staff see untranslated messages of AIRisk and of exceptions in brackets.
        return re.sub(r"\[.*?\]", "", response.content.decode())

    yield read(staff.get(reverse("admin:index")))
    yield read(browser.get("/airisk/"))
    yield read(browser.get("/airisk/connect/"))
    yield read(browser.get("/airisk/callback/"))
    yield read(browser.get(authorize(start(browser)), follow=True))
    yield read(browser.get("/airisk/"))
    AIRiskIdentity.objects.update(userid="user_1")
    yield read(browser.get("/airisk/"))
    yield read(ask_for(staff, "renew_now", *AIRiskToken.objects.all()))
    yield read(confirm(staff, ask_for(staff, "renew_now", *AIRiskToken.objects.all())))
    AIRiskIdentity.objects.update(userid="user_42")
    yield read(browser.post("/airisk/disconnect/", follow=True))
    airisk.switches.refuse = True
    yield read(browser.get(authorize(start(browser)), follow=True))
    yield read(staff.post(obtain_page(), follow=True))
    airisk.switches.refuse = False
    token = give_token(mia, ends_in=None, failure_kind="unavailable", failure_count=2)
    yield read(staff.get(token_page("changelist")))
    yield read(staff.get(token_page("change", token.pk)))
    yield read(ask_for(staff, "delete_selected", token))
    yield read(confirm(staff, ask_for(staff, "delete_selected", *AIRiskToken.objects.all())))
    yield read(staff.get(identity_page("add")))
    yield read(staff.post(identity_page("add"), {"user": mia.pk, "deployment": "second", "userid": " \t"}))
    yield read(staff.get(identity_page("changelist")))
    for lines in (b"user,userid\nmia,user_1", b"user,userid\nmia,", b"user"):
        file = {"file": SimpleUploadedFile("people.csv", lines), "deployment": "default"}
        yield read(staff.post(identity_page("import"), file))
    airisk.reset()
    yield read(staff.get(reverse("airisk_sandbox:control")))
    airisk.switches.login_page = True
    yield read(browser.get(f"/sandbox/api/oauth2?{start(browser).partition('?')[2]}"))
    airisk.reset()


@pytest.mark.once
def test_translated_pages_have_no_english_left(admin_client: Client, browser: Client, airisk: World) -> None:
    with override("en"):
        english = [Shown(page).found for page in pages(admin_client, browser, airisk)]
    for language in LANGUAGES:
        alike = {text for message in messages.stored(language) for text in forms(message.id) if text == message.string}
        LogEntry.objects.all().delete()
        with override(to_language(language)):
            translated = [Shown(page).found for page in pages(admin_client, browser, airisk)]
            known = alike | {part for text in words_of_django() for part in (text, *sentences(text))}
        for before, after in zip(english, translated, strict=True):
            assert len(before) >= 3
            assert before & after - known == set(), language
