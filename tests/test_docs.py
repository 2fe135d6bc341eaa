"""What the documentation says about the code."""

import ast
import dataclasses
import pkgutil
import re
import shlex
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import global_settings
from django.contrib.auth.models import Permission, User
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.db import connection
from django.utils import timezone

from airisk_oauth import conf, models, sealing, urls
from airisk_oauth.connecting import flow
from airisk_oauth.database.expiry import SKEW
from airisk_oauth.database.failures import COOL_DOWN, MAX_COOL_DOWN
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.notices import sending
from airisk_oauth.oauth.deployment import Deployment
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.tokens import leases, losses, sweep, workers
from airisk_oauth.tokens import stored as stored_tokens
from tests.support import pages
from tests.support.commands import refresh_json
from tests.support.options import set_option
from tests.support.pages import DOCS, PAGES, ROOT, spans
from tests.support.people import connected_users, credential, give_token

PACKAGE = ROOT / "airisk_oauth"
SOURCE = "".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
#: How the names of other software's settings begin.
ELSEWHERE = ("AUDITLOG_", "CELERY_", "DD_", "DJANGO_", "OTEL_", "PROMETHEUS_", "SILKY_")
of_each_page = pytest.mark.parametrize("page", PAGES)


# Settings and checks


def test_settings_page_names_every_option() -> None:
    page = pages.text_of("docs/settings.md").split("## Keys")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (?:`(.+?)`|required) \|", page, re.MULTILINE))
    coded = {}
    for field in dataclasses.fields(Deployment):
        if field.name != "alias":
            default = field.default_factory() if callable(field.default_factory) else field.default
            coded[field.name.upper()] = None if default is dataclasses.MISSING else default
    assert {name: ast.literal_eval(default) if default else None for name, default in documented.items()} == coded


def test_settings_page_names_every_check() -> None:
    documented = re.findall(r"^\| `airisk_oauth\.([EW]\d{3})` \|", pages.text_of("docs/settings.md"), re.MULTILINE)
    numbers = {f"E{int(number):03}" for number in re.findall(r"\bProblem\((\d+),", SOURCE)}
    assert sorted(documented) == sorted(numbers | set(re.findall(r'"airisk_oauth\.([EW]\d{3})"', SOURCE)))


# Names


@of_each_page
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", pages.text_of(page)):
        path, _, anchor = target.partition("#")
        file = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^-\w ]", "", heading).lower().replace(" ", "-") for heading in headings}, target


@of_each_page
def test_every_file_that_a_page_names_exists(page: str) -> None:
    # Templates are named as Django finds them, and the catalogues of a new language are yet to be made.
    for path in spans(r"(?:airisk_oauth|bench|demo_project|docs|tests)/[\w./-]+", pages.text_of(page)):
        assert (ROOT / path).exists() or (PACKAGE / "templates" / path).exists() or "/locale/it/" in path, path


def is_there(name: str) -> bool:
    """Tell whether a dotted name exists. Names in a module that cannot be imported here are looked up in its source."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        module, _, defined = name.rpartition(".")
        if ROOT.joinpath(*name.split(".")).with_suffix(".py").exists():
            return True
        file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return re.search(rf"^ *(def|class) {defined}\b", text, re.MULTILINE) is not None
    return True


@of_each_page
def test_every_name_of_ours_exists(page: str) -> None:
    text = pages.text_of(page)
    for name in re.findall(r"(?<![/\w.])airisk_oauth(?:\.\w+)+", text):
        if not re.fullmatch(r"airisk_oauth\.[EW]\d{3}", name) and f'getLogger("{name}")' not in SOURCE:
            assert is_there(name), name
    assert set(re.findall(r"(?<![/\w])airisk_oauth:(\w+)", text)) <= {pattern.name for pattern in urls.urlpatterns}
    for name in spans(r"AIRisk[A-Z]\w+|\w+Required", text):
        assert f"class {name}" in SOURCE, name
    for name in spans(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", text):
        of_django = hasattr(global_settings, name) or name in connection.settings_dict
        assert of_django or name.startswith(ELSEWHERE) or re.search(rf"\b{name}\b", SOURCE, re.IGNORECASE), name


@pytest.mark.parametrize("page", ["SECURITY.md", *DOCS])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    tests = "".join(module.read_text(encoding="utf-8") for module in (ROOT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", pages.text_of(page)))
    assert named or page != "SECURITY.md"
    assert named <= set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))


def command(name: str) -> BaseCommand:
    return load_command_class(get_commands()[name], name)


def code_of(page: str) -> list[str]:
    """Return every line of a page's snippets, and every code span of its text."""
    lines = [line for _language, text in pages.snippets_of(page) for line in text.replace("\\\n", " ").splitlines()]
    return [*lines, *(span.replace("\n", " ") for span in spans(r"[^`]+", pages.text_of(page)))]


OURS = [name for name, app in get_commands().items() if app == "airisk_oauth"]


@of_each_page
def test_every_command_takes_its_options(page: str) -> None:
    for line in code_of(page):
        called = re.search(rf"(?:manage\.py +|^)((?:{'|'.join(get_commands())})\b(?: \"[^\"]*\"|[^|>&;#\"])*)", line)
        if called and ("manage.py" in line or called[1].startswith(tuple(OURS))):
            name, *arguments = shlex.split(called[1])
            if arguments:
                command(name).create_parser("manage.py", name).parse_args(arguments)
    known = {
        option for name in [*OURS, "check"] for option in command(name).create_parser("", name)._option_string_actions
    }
    assert spans(r"--[a-z-]+", pages.text_of(page)) <= known


@of_each_page
def test_every_make_target_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    named = {line.split()[1] for line in code_of(page) if re.match(r"make [a-z]", line)}
    assert named <= targets


@of_each_page
def test_python_snippets_compile_and_import(page: str) -> None:
    for language, text in pages.snippets_of(page):
        if language == "python":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("airisk_oauth", "django"):
                    for each in node.names:
                        assert is_there(f"{node.module}.{each.name}"), each.name


# Claims


def test_pages_name_the_numbers_of_the_code() -> None:
    deployment = conf.deployment()
    lease = leases.lease_seconds(deployment)
    in_a_sweep = lease + (sweep.RESERVE + sweep.PAGE - 1) * deployment.timeout[1]
    said = {
        "docs/how-it-works.md": [
            f"claim the token: a lease of {lease:.0f} s",
            f"both numbers of `TIMEOUT` plus {leases.LEASE_MARGIN:.0f} s: {lease:.0f} s by default",
            f"so its leases are longer: {in_a_sweep:.0f} s",
            f"or expires within {SKEW.total_seconds():.0f} s",
            f"For {stored_tokens.REPEAT_ERROR_FOR.total_seconds():.0f} s after a failed renewal",
            f"looks at the row again after {stored_tokens.RECHECK_AFTER.total_seconds():.0f} s",
            f"or after {stored_tokens.RECHECK_AFTER_WHILE_DUE.total_seconds():.0f} s while a renewal is due",
        ],
        "docs/operating.md": [
            f"If {losses.IN_A_ROW} users of a deployment lose their connection",
            f"for `EMAIL_TIMEOUT`, or {sending.TIMEOUT:.0f} s if the site does not set it",
            f"after {sweep.PATIENCE:.0f} s the sweep gives up and exits with 1",
            f"up to the second number of `TIMEOUT` ({deployment.timeout[1]} s)",
        ],
    }
    missing = [each for page, words in said.items() for each in words if each not in pages.text_of(page)]
    assert missing == []
    in_words = {
        flow.LIFETIME: timedelta(minutes=10),
        COOL_DOWN: timedelta(seconds=30),
        MAX_COOL_DOWN: timedelta(hours=1),
        stored_tokens.REJECTED_NEW_TOKEN_PAUSE: timedelta(minutes=1),
    }
    assert list(in_words) == list(in_words.values())
    assert (models.MAX_PENDING, workers.GIVE_UP_AFTER) == (10, 5)


#: What plays AIRisk's part, for development and for tests.
BESIDE = {"sandbox", "testing", "pytest_plugin"}


def imports_of(module: Path) -> set[str]:
    """Return the top-level names of ours that this module imports, those for its types left out."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    package = module.relative_to(ROOT).parts[:-1]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = [*base, *(node.module or "").split(".")] if node.module else [*base]
            if names[0] == "airisk_oauth":
                found |= {names[1]} if len(names) > 1 else {each.name for each in node.names}
    return found - {package[1] if len(package) > 1 else module.stem}


def test_modules_import_from_layers_above_only() -> None:
    table = pages.text_of("docs/how-it-works.md").split("## Layers")[1]
    rows = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| [^|]+ \| (`.+`) \|$", table, re.MULTILINE)]
    layer = {module: number for number, modules in enumerate(rows) for module in modules}
    of_modules = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py"): path for path in sorted(PACKAGE.rglob("*.py"))
    }
    assert layer.keys() == of_modules.keys() - BESIDE - {"__init__", "migrations"}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name in layer:
            lower = {each for each in imports_of(path) if layer.get(each, 0) > layer[name]}
            assert not lower, f"{name} imports {lower}"
            assert not imports_of(path) & BESIDE
    for path in (PACKAGE / "sandbox").glob("*.py"):
        assert not imports_of(path) & layer.keys(), path


# Snippets


snippet = partial(pages.snippet, "docs/upgrading.md")


@pytest.mark.django_db
def test_tokens_of_another_client_are_taken_over(airisk: World, mia: User) -> None:
    ben = User.objects.create_user("ben")
    given: dict[str, Any] = {}
    exec(snippet("def take_over"), given)  # noqa: S102 - the page's own
    old, _ends = airisk.new_token(Caller("client-1", "user_42"))
    later = timezone.now() + timedelta(hours=1)
    rows = [(mia, "user_42", old, later), (ben, "user_7", "ended", datetime(2020, 1, 1, tzinfo=UTC))]
    given["take_over"](rows)
    assert credential(mia).token == old
    status, report = refresh_json()
    assert (status, report["renewed"]) == (0, 1)
    renewed = AIRiskToken.objects.get(user=ben)
    assert renewed.access_token != "ended"
    given["take_over"](rows)
    assert AIRiskToken.objects.get(user=ben).access_token == renewed.access_token
    assert set(AIRiskIdentity.objects.values_list("user__username", "userid")) == {
        ("mia", "user_42"),
        ("ben", "user_7"),
    }


def test_changing_the_key_locks_out_no_host(settings: Any) -> None:
    """These are the steps on the page, with one of two hosts always a step behind."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    steps = [[old], [old, new], [new, old]]
    owner = ("default", "1", "user_42")
    for behind, ahead in pairwise(steps):
        for sealing_with, opening_with in ((behind, ahead), (ahead, behind)):
            settings.AIRISK_OAUTH_ENCRYPTION_KEYS = sealing_with
            sealed, _key_id = sealing.seal("token", owner)
            settings.AIRISK_OAUTH_ENCRYPTION_KEYS = opening_with
            assert sealing.unseal(sealed, owner, derived_keys_accepted=lambda: False) == "token"


@pytest.mark.django_db
def test_renamed_deployment_keeps_its_tokens(mia: User, staff: User, capsys: pytest.CaptureFixture[str]) -> None:
    AIRiskIdentity.objects.update(deployment="old")
    give_token(mia, deployment="old")
    give_token(None, deployment="old", access_token="of-the-application")
    AIRiskToken.objects.create(user=staff, deployment="old", userid="user_1", sealed="of-another-key", key_id="gone")
    exec(pages.snippet("docs/operating.md", 'token.deployment = "new"'), {})  # noqa: S102 - the page's own
    tokens = AIRiskToken.objects.filter(deployment="new").order_by("userid")
    assert [token.access_token for token in tokens] == ["of-the-application", "stored-token"]
    assert AIRiskIdentity.objects.get().deployment == "new"
    assert AIRiskToken.objects.get(deployment="old").sealed == "of-another-key"
    assert f"user {staff.pk} has to connect again" in capsys.readouterr().out


@pytest.mark.django_db
def test_unused_tokens_can_be_deleted(mia: User, staff: User) -> None:
    give_token(mia, last_used_at=timezone.now() - timedelta(days=366))
    kept = [give_token(staff), give_token(None, last_used_at=timezone.now() - timedelta(days=366))]
    exec(pages.snippet("docs/operating.md", "long_ago"), {})  # noqa: S102 - the page's own
    assert list(AIRiskToken.objects.order_by("pk")) == kept


@pytest.mark.django_db
def test_operating_page_names_every_permission() -> None:
    section = pages.text_of("docs/operating.md").split("## Who may do what")[1].split("##")[0]
    ours = Permission.objects.filter(content_type__app_label="airisk_oauth", codename__endswith="_airisktoken")
    ours |= Permission.objects.filter(content_type__app_label="airisk_oauth", codename__endswith="_airiskidentity")
    assert pages.spans(r"\w+_airisk(token|identity)", section) == set(ours.values_list("codename", flat=True))


@pytest.mark.django_db
def test_documented_userid_function_works(airisk: World, settings: Any) -> None:
    tokens = connected_users(3)
    AIRiskIdentity.objects.all().delete()
    pages.module("userids_of_the_page", pages.snippet("docs/settings.md", "def userid_of"))
    set_option(settings, USERID="userids_of_the_page.userid_of")
    status, report = refresh_json(deployment="default")
    assert (status, report["renewed"]) == (0, 3)
    assert credential(tokens[0].user).token


@pytest.mark.django_db
def test_documented_auth_calls_as_the_user(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    code = pages.snippet("docs/how-it-works.md", "AIRiskAuth.for_user")
    given: dict[str, Any] = {"mia": mia}
    exec(code.replace("https://your-company.aicrisk.com", conf.deployment().base_url), given)  # noqa: S102 - the page's own
    assert given["response"].status_code == 200


@pytest.mark.django_db
def test_tokens_can_be_deleted_from_a_copy(mia: User) -> None:
    give_token(mia)
    exec(pages.snippet("docs/operating.md", "all().delete()"), {})  # noqa: S102 - the page's own
    assert not AIRiskToken.objects.exists()
    assert not AIRiskIdentity.objects.exists()
