"""The catalogues of the package's texts and of the demo's: taken from the sources, brought up to date, compiled.

Usage: python -m tests.messages [LANGUAGE …]; a language that has none, such as ``it`` or ``pt_BR``, gets one to fill.
"""

import sys
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "airisk_oauth"
DEMO: Final = ROOT / "demo_project"
#: What Django's admin says too, shown where the admin is: Django translates these, into more languages than we do.
OF_DJANGO: Final = frozenset(
    {"Home", "Log out", "No, take me back", "Password", "Yes, I’m sure", "user"}  # noqa: RUF001 - as Django writes it
)
_KEYWORDS: Final = {**DEFAULT_KEYWORDS, "gettext_lazy": None, "gettext_noop": None, "ngettext_lazy": (1, 2)}


class Catalogue(Catalog):
    """A catalogue without dates and names, which would change when nothing else does."""

    def __init__(self, language: str | None = None) -> None:
        super().__init__(
            language, header_comment="# Written by `make messages`; edit the lines with msgstr.", fuzzy=False
        )

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        return [
            ("Language", self.locale_identifier or ""),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=UTF-8"),
            ("Content-Transfer-Encoding", "8bit"),
            ("Plural-Forms", self.plural_forms),
        ]


def languages(root: Path = PACKAGE) -> list[str]:
    return sorted(folder.name for folder in (root / "locale").iterdir() if folder.is_dir())


def po_file(language: str, root: Path = PACKAGE) -> Path:
    return root / "locale" / language / "LC_MESSAGES" / "django.po"


def templates(root: Path) -> list[Path]:
    """Return the templates of pages and of e-mails."""
    return sorted([*root.rglob("*.html"), *root.rglob("*.txt")])


@cache
def extracted(root: Path = PACKAGE) -> Catalogue:
    """Return what the sources mark for translation, without what Django itself or the package already translates."""
    found = Catalogue()
    elsewhere = {message.id for message in extracted()} if root == DEMO else set()
    for source in (*sorted(root.rglob("*.py")), *templates(root)):
        text = source.read_text(encoding="utf-8")
        if source.suffix != ".py":
            # Each line by itself: what stands before a tag is no indentation of Python's.
            text = "\n".join(line.strip() for line in templatize(text).splitlines())
        for _line, words, comments, context in extract("python", BytesIO(text.encode()), _KEYWORDS, ["Translators:"]):
            if words not in OF_DJANGO | elsewhere:
                found.add(words, context=context, auto_comments=comments)
    return found


def stored(language: str, root: Path = PACKAGE) -> Catalog:
    path = po_file(language, root)
    if not path.exists():
        return Catalogue(language)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def updated(language: str, root: Path = PACKAGE) -> Catalogue:
    """Return what the sources say now with the translations there are; a changed text has to be translated anew."""
    before, now = stored(language, root), Catalogue(language)
    for message in extracted(root):
        if message.id:
            known: Any = before.get(message.id, message.context)
            usable = isinstance(known, Message) and known.id == message.id and not known.fuzzy
            now.add(
                message.id,
                known.string if usable else "",
                auto_comments=message.auto_comments,
                user_comments=known.user_comments if usable else (),
                context=message.context,
            )
    return now


def write(language: str, root: Path) -> None:
    catalogue, path = updated(language, root), po_file(language, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalogue, width=0, sort_output=True)
    with path.with_suffix(".mo").open("wb") as file:
        write_mo(file, catalogue)


if __name__ == "__main__":
    for name in sorted({*languages(), *sys.argv[1:]}):
        for root in (PACKAGE, DEMO):
            write(name, root)
