"""A site of a user's own, and the snippets of ``docs/typing.md``, under strict mypy and under pyright.

basedpyright stands in for pyright. It adds rules to pyright's, which ``typeCheckingMode = "standard"`` turns off, and
its wheel is complete; that of pyright downloads the rest from npm when it is first run. A checker that is not installed
is skipped, except in CI, where that is a failure.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.pages import ROOT, snippets_of

CHECKERS = {"mypy": ["--cache-dir=../cache"], "basedpyright": [f"--pythonpath={sys.executable}", "mysite"]}


def needs(checker: str) -> pytest.MarkDecorator:
    is_missing = find_spec(checker) is None and "CI" not in os.environ
    return pytest.mark.skipif(is_missing, reason=f"there is no {checker}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests here, so that mypy reads Django only once."""
    return tmp_path_factory.mktemp("typed")


@pytest.fixture
def site(folder: Path) -> Path:
    """The site in a folder of its own, so that its name is not ``tests.typed_site``."""
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "tests/typed_site", site)
    python = [text for language, text in snippets_of("docs/typing.md") if language == "python"]
    for number, text in enumerate(python):
        (site / f"mysite/documented_{number}.py").write_text(text, encoding="utf-8")
    return site


@pytest.mark.parametrize("checker", [pytest.param(checker, marks=needs(checker)) for checker in CHECKERS])
def test_typed_site_passes_the_type_checker(checker: str, site: Path) -> None:
    done = check(checker, site)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", [pytest.param(checker, marks=needs(checker)) for checker in CHECKERS])
def test_type_checker_finds_a_wrong_attribute(checker: str, site: Path) -> None:
    """Or else the package would be one of Anys to it."""
    views = site / "mysite/views.py"
    views.write_text(views.read_text(encoding="utf-8").replace("airisk.get(", "airisk.fetch("), encoding="utf-8")
    done = check(checker, site)
    assert done.returncode == 1
    assert "fetch" in done.stdout


def check(checker: str, site: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", checker, *CHECKERS[checker]],
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
