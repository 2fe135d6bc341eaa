"""``import_airisk_identities``: all of a file, or where one row is wrong nothing, with a line for each."""

import io
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from airisk_oauth.models import AIRiskIdentity

pytestmark = pytest.mark.django_db
Import = Any


@pytest.fixture
def run(tmp_path: Path, mia: User) -> Import:
    """Import these lines; return the exit status and everything that was said."""
    User.objects.create_user("tom")

    def run(*lines: str, encoding: str = "utf-8", **options: Any) -> tuple[int, str]:
        file = tmp_path / "people.csv"
        file.write_bytes("\r\n".join(lines).encode(encoding))
        said = io.StringIO()
        status = 0
        try:
            call_command("import_airisk_identities", file, stdout=said, stderr=said, **options)
        except CommandError as error:
            status = error.returncode
            said.write(str(error))
        return status, said.getvalue()

    return run


def identities() -> set[tuple[str, str, str]]:
    return set(AIRiskIdentity.objects.values_list("user__username", "deployment", "userid"))


BEFORE = {("mia", "default", "user_42")}


def test_rows_are_added_changed_or_as_they_were(run: Import) -> None:
    lines = ["user,userid,deployment", "mia,user_42,default", "mia,user_43,second", ' tom ,"user 7, the second",']
    assert run(*lines) == (0, "2 added, 0 changed, 1 as they were.\n")
    expected = {*BEFORE, ("mia", "second", "user_43"), ("tom", "default", "user 7, the second")}
    assert identities() == expected
    assert run("userid,user", "user_44,mia", deployment="second") == (0, "0 added, 1 changed, 0 as they were.\n")
    assert ("mia", "second", "user_44") in identities()


def test_a_file_as_a_spreadsheet_saves_it_is_read(run: Import) -> None:
    assert run("user,userid", "tom,Zoë", encoding="utf-8-sig")[0] == 0
    assert ("tom", "default", "Zoë") in identities()


def test_a_dry_run_says_the_same_and_saves_nothing(run: Import) -> None:
    said = run("user,userid", "mia,user_1", "tom,user_2", dry_run=True)
    assert said == (0, "1 added, 1 changed, 0 as they were; nothing was saved.\n")
    assert identities() == BEFORE


def test_one_wrong_row_keeps_all_from_being_imported_and_each_has_a_line(run: Import) -> None:
    status, said = run(
        "user,userid,deployment",
        "tom,user_7,default",
        "nobody,user_8,default",
        "mia,,default",
        "mia,user_9,third",
        "tom,user_7,default",
        "tom",
        "tom,user_7,default,more",
    )
    assert (status, said.splitlines()) == (
        1,
        [
            "Line 3: there is no user 'nobody'.",
            "Line 4: '' cannot be a userid.",
            "Line 5: there is no deployment 'third'.",
            "Line 6: line 2 names this user already.",
            "Line 7: it has not as many fields as the first line.",
            "Line 8: it has not as many fields as the first line.",
            "6 of 7 rows are wrong. Nothing was imported.",
        ],
    )
    assert identities() == BEFORE


@pytest.mark.parametrize(
    ("lines", "encoding"),
    [
        ([], "utf-8"),
        (["name,userid", "tom,user_7"], "utf-8"),
        (["user,userid,password", "tom,user_7,x"], "utf-8"),
        (["user,userid", "tom,Zoë"], "latin-1"),
        (["user,userid", 'tom,"user_7'], "utf-8"),
    ],
)
def test_what_is_no_such_file_is_said_so(run: Import, lines: list[str], encoding: str) -> None:
    status, said = run(*lines, encoding=encoding)
    assert (status, "people.csv cannot be read: " in said) == (1, True)
    assert identities() == BEFORE


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_airisk_identities", tmp_path / "nowhere.csv")
