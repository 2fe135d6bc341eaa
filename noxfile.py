"""Runs the tests on every supported Python and Django, with the oldest dependencies, and the README with the wheel.

Pythons that are not installed on this machine are left out; none is downloaded.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nox
from python_discovery import get_interpreter

nox.needs_version = ">=2026.8"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
# One more than there are processors, because the tests also wait.
nox.options.parallel = (os.cpu_count() or 1) + 1

# Of pyenv's Pythons, only those that are activated can be found.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
if PYENV.is_dir():
    os.environ["PYENV_VERSION"] = ":".join(folder.name for folder in PYENV.iterdir())

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = [python for python in nox.project.python_versions(PROJECT) if get_interpreter(python)]
DJANGO = "Framework :: Django :: "
DJANGOS = [line.removeprefix(DJANGO) for line in PROJECT["project"]["classifiers"] if line.startswith(DJANGO)]
UNSUPPORTED = {("3.11", "6.0"), ("3.11", "6.1"), ("3.15", "5.2"), ("3.15", "6.0")}
PAIRS = [(python, django) for django in DJANGOS for python in PYTHONS if (python, django) not in UNSUPPORTED]
# There is no package of a PostgreSQL server for Python 3.15.
WITH_SERVER = [(python, django) for python, django in PAIRS if python != "3.15"]
NEWEST = [(python, django) for django, python in {django: python for python, django in WITH_SERVER}.items()]

matrix = nox.session(venv_params=["--seed"], allow_parallel=True)
on_the_oldest = nox.session(python=PYTHONS[0], venv_params=["--seed"], allow_parallel=True)


@matrix
@nox.parametrize(["python", "django"], PAIRS)
def sqlite(session: nox.Session, django: str) -> None:
    session.install("--group=test", "--editable=.", f"django=={django}.*")
    session.run("pytest", "-q", *session.posargs)


@matrix
@nox.parametrize(["python", "django"], NEWEST)
def postgresql(session: nox.Session, django: str) -> None:
    session.install("--group=test", "--editable=.", f"django=={django}.*")
    session.run("python", "-m", "tests.with_postgresql", "pytest", "-q", *session.posargs)


@on_the_oldest
def oldest(session: nox.Session) -> None:
    """Test with the oldest versions that ``pyproject.toml`` allows."""
    session.install("--resolution=lowest-direct", "--group=test", "--editable=.")
    session.run("pytest", "-q", *session.posargs)


@on_the_oldest
def wheel(session: nox.Session) -> None:
    """Install the wheel in an empty environment, and follow the README there."""
    session.install("--group=test", "--editable=.")
    with TemporaryDirectory() as folder:
        session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
        session.run("python", "-m", "venv", f"{folder}/site")
        python = f"{folder}/site/bin/python"
        [built] = Path(folder).glob("*.whl")
        session.run(python, "-m", "pip", "install", "--quiet", str(built), "django-environ", external=True)
        session.run("pytest", "-q", "tests/test_readme.py", env={"AIRISK_OAUTH_SITE_PYTHON": python})
