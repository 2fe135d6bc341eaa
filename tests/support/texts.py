"""The texts on a page."""

import re
from html.parser import HTMLParser

#: Names, which are the same in every language, and what the tests themselves put on a page.
NAMES = {"AIRisk", "userid", "Userid", "traceId", "expires_in", "Retry-After", "refresh_airisk_tokens", "UTC"}
OURS = {"admin", "mia", "user_42", "user_1", "default", "second", "journal.json"}


class Shown(HTMLParser):
    """Collects the texts that a page shows or reads out, split into lines and sentences."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.hidden = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = tag in ("code", "script", "style")
        seen = {"alt", "aria-label", "placeholder", "title", *(["value"] if ("type", "submit") in attrs else [])}
        for name, value in attrs:
            if name in seen:
                self.handle_data(value or "")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.found.update(sentences(data))


def sentences(text: str) -> set[str]:
    """Return a text's lines and sentences, except those that hold only names and signs."""
    parts = re.split(r"\n|(?<=[.:?!])\s|(?<=[。\uff1a])", text)
    return {part.strip() for part in parts if has_words(part)}


def has_words(text: str) -> bool:
    for name in sorted(NAMES | OURS, key=len, reverse=True):
        text = text.replace(name, "")
    return re.search(r"[^\W\d_]", text) is not None
