"""The documentation site: the pages as they are in the repository, and a reference made from the docstrings.

``make docs`` builds it. Warnings are errors.
"""

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any, Final

import django
from sphinx.application import Sphinx

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

PYPROJECT: Final = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text(encoding="utf-8"))

#: The pages in the sidebar, by what they are for.
GROUPS: Final = {
    "Tutorial": ["Getting started <self>", "All pages <docs/README>"],
    "How-to guides": [
        "docs/chat", "docs/pages", "docs/scripts", "docs/async", "docs/frameworks", "docs/testing", "docs/typing",
        "docs/admin", "docs/operating", "docs/providers", "docs/scheduling", "docs/monitoring", "docs/upgrading",
    ],
    "Reference": ["docs/settings", "docs/reference", "docs/glossary", "CHANGELOG"],
    "Explanation": ["docs/how-it-works", "SECURITY", "docs/privacy", "docs/performance", "docs/sizing"],
    "The project": ["CONTRIBUTING", "CODE_OF_CONDUCT"],
}  # fmt: skip

project = "django-airisk-oauth"
author = project_copyright = PYPROJECT["project"]["authors"][0]["name"]
version = release = PYPROJECT["project"]["version"]

root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*.rst"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]

# Links to headings are written as GitHub makes them.
myst_heading_anchors = 4
# Examples leave out parts of JSON, and of commands.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}

html_theme = "furo"
html_title = f"{project} {version}"
html_theme_options = {
    "source_repository": PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"],
    "source_branch": "main",
    "source_directory": "",
}
html_copy_source = False
html_show_sphinx = False


def add_sidebar(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the groups of pages to the first page. In its file they would be shown as text elsewhere, on GitHub say."""
    if docname == root_doc:
        for caption, pages in GROUPS.items():
            source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```", ""])


def copy_first_page(app: Sphinx, exception: Exception | None) -> None:
    """Let a web server find the first page."""
    if exception is None:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", add_sidebar)
    app.connect("build-finished", copy_first_page)
    return {"parallel_read_safe": True}
