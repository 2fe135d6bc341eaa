"""What the documentation says of the code."""

import ast
import dataclasses
import re
from pathlib import Path

from airisk_oauth.conf import Deployment

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def test_the_settings_page_names_every_option_with_its_default() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8").split("## Keys")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (?:`(.+?)`|required) \|", page, re.MULTILINE))
    coded = {}
    for field in dataclasses.fields(Deployment):
        if field.name != "alias":
            default = field.default_factory() if callable(field.default_factory) else field.default
            coded[field.name.upper()] = None if default is dataclasses.MISSING else default
    assert {name: ast.literal_eval(default) if default else None for name, default in documented.items()} == coded


def test_every_test_that_the_security_page_calls_on_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8")))
    tests = "".join(module.read_text(encoding="utf-8") for module in (ROOT / "tests").glob("test_*.py"))
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))
