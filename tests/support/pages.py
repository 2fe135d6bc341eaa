"""The documentation's pages and their code snippets."""

import re
import sys
from importlib.abc import InspectLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
PAGES = {name: ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS)}
_FENCED = r"^```(\w*)\n(.*?)^```"


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def snippets_of(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of every snippet of a page."""
    return re.findall(_FENCED, text_of(page), re.DOTALL | re.MULTILINE)


def snippet(page: str, words: str) -> str:
    """Return the only snippet of a page that contains these words."""
    [found] = [text for _language, text in snippets_of(page) if words in text]
    return found


def spans(pattern: str, text: str) -> set[str]:
    """Return the inline code in a text that matches a pattern as a whole."""
    prose = re.sub(_FENCED, "", text, flags=re.DOTALL | re.MULTILINE)
    return {span for span in re.findall(r"`([^`]+)`", prose) if re.fullmatch(pattern, span)}


class _Snippets(InspectLoader):
    def __init__(self, snippets: tuple[str, ...]) -> None:
        self._source = "\n".join(snippets)

    def get_source(self, fullname: str) -> str:
        return self._source


def module(name: str, *snippets: str) -> Any:
    """Make a module of these snippets, as the reader of a page would."""
    loader = _Snippets(snippets)
    spec = spec_from_loader(name, loader)
    assert spec is not None
    made = sys.modules[name] = module_from_spec(spec)
    loader.exec_module(made)
    return made
