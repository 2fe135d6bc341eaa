"""The contents and the metadata of the wheel, and the structure of the tests."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True, timeout=60
    )
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


def metadata(wheel: zipfile.ZipFile) -> Message:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_wheel_contains_exactly_the_package(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "airisk_oauth"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    kept = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert {"airisk_oauth/py.typed", "airisk_oauth/templates/airisk_oauth/base.html"} <= kept
    packed = {name for name in wheel.namelist() if not re.match(r"[^/]+\.dist-info/", name)}
    assert packed == kept


def test_wheel_metadata_match_pyproject(wheel: zipfile.ZipFile) -> None:
    told = metadata(wheel)
    assert (told["Name"], told["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert (told["License-Expression"], told["License-File"]) == ("MIT", "LICENSE")
    assert told["Requires-Python"] == ">=3.11"
    needed = [line for line in told.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(needed) == sorted(PROJECT["dependencies"])
    assert told.get_all("Provides-Extra") == sorted(PROJECT["optional-dependencies"])


def test_readme_leads_somewhere_on_the_package_index(wheel: zipfile.ZipFile) -> None:
    told = metadata(wheel)
    urls = dict(url.split(", ") for url in told.get_all("Project-URL", []))
    text = str(told.get_payload())
    assert not re.findall(r"\]\((?!https?://|#)", text)
    for kind in ("blob", "raw"):
        text = text.replace(f"({urls['Repository']}/{kind}/v{PROJECT['version']}/", "(")
    assert text == (ROOT / "README.md").read_text(encoding="utf-8")
    images = re.findall(r"!\[[^]]*\]\((\S+)\)", str(told.get_payload()))
    assert images
    assert all("/raw/" in image for image in images)


def test_no_test_module_imports_another() -> None:
    """What tests share is in ``tests/support``: importing an autouse fixture from another test would activate it."""
    lent = re.compile(r"^\s*(?:from|import) (?:tests)?\.?test_\w+|^\s*from (?:tests|\.) import .*\btest_", re.MULTILINE)
    for module in (ROOT / "tests").rglob("*.py"):
        assert not lent.search(module.read_text(encoding="utf-8")), module
