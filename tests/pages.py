"""The documentation as the tests read it: pages, and the fenced snippets in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.name: path for path in [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]}


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def snippets_of(page: str) -> list[tuple[str, str]]:
    """Return language and text of every fenced snippet of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def snippet(page: str, words: str) -> str:
    """Return the one snippet of a page that holds these words."""
    [found] = [text for _language, text in snippets_of(page) if words in text]
    return found
