"""``import_airisk_identities`` imports a whole file, or nothing if a row is wrong, and reports each wrong row."""

import io
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User, UserManager
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from airisk_oauth.management import importing
from airisk_oauth.models import AIRiskIdentity
from tests.support.clock import wait_until
from tests.support.database import ask_server, not_on_sqlite
from tests.support.threads import attempt

pytestmark = pytest.mark.django_db
Import = Any


@pytest.fixture
def run(tmp_path: Path, mia: User) -> Import:
    """A function that imports lines, and returns the exit status and the output."""
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


def test_rows_are_added_changed_or_unchanged(run: Import) -> None:
    lines = ["user,userid,deployment", "mia,user_42,default", "mia,user_43,second", ' tom ,"user 7, the second",']
    assert run(*lines) == (0, "2 added, 0 changed, 1 unchanged.\n")
    expected = {*BEFORE, ("mia", "second", "user_43"), ("tom", "default", "user 7, the second")}
    assert identities() == expected
    assert run("userid,user", "user_44,mia", deployment="second") == (0, "0 added, 1 changed, 0 unchanged.\n")
    assert ("mia", "second", "user_44") in identities()


@pytest.mark.parametrize(
    "lines",
    [
        ["user,userid", "tom,Zoë"],
        ["user;userid", "tom;Zoë"],
        ["user\tuserid", "tom\tZoë"],
        ['"User";"UserID ";deployment', '"tom";"Zoë";'],
        ["user,userid", ",", "", "  ", "tom,Zoë", ",", ""],
    ],
)
def test_files_of_spreadsheets_are_read(run: Import, lines: list[str]) -> None:
    assert run(*lines, encoding="utf-8-sig") == (0, "1 added, 0 changed, 0 unchanged.\n")
    assert ("tom", "default", "Zoë") in identities()


def labels() -> dict[str, str]:
    return dict(AIRiskIdentity.objects.values_list("user__username", "label"))


def test_labels_are_imported_with_their_userids(run: Import) -> None:
    lines = ["user,userid,label", "mia,user_42,Mia Meyer", "tom,user_7,"]
    assert run(*lines) == (0, "1 added, 1 changed, 0 unchanged.\n")
    assert run(*lines) == (0, "0 added, 0 changed, 2 unchanged.\n")
    assert labels() == {"mia": "Mia Meyer", "tom": ""}
    # Without the column, a label stays for as long as it names the same userid.
    assert run("user,userid", "mia,user_42") == (0, "0 added, 0 changed, 1 unchanged.\n")
    assert labels()["mia"] == "Mia Meyer"
    assert run("user,userid", "mia,user_43") == (0, "0 added, 1 changed, 0 unchanged.\n")
    assert labels()["mia"] == ""


def test_many_rows_are_checked_before_any_is_saved(run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    names = [f"user-{number}" for number in range(5)]
    User.objects.bulk_create(User(username=name) for name in names)
    rows = [f"{name},{name.upper()}" for name in names]
    status, said = run("user,userid", *rows, "user-0,again", "nobody,user_1")
    assert (status, said.splitlines()) == (
        1,
        [
            "Line 7: line 2 is already about this user.",
            "Line 8: there is no user 'nobody'.",
            "2 of 7 rows are wrong. Nothing was imported.",
        ],
    )
    assert identities() == BEFORE
    assert run("user,userid", *rows, "mia,user_7") == (0, "5 added, 1 changed, 0 unchanged.\n")
    assert identities() == {("mia", "default", "user_7"), *((name, "default", name.upper()) for name in names)}


@pytest.mark.once
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    names = [f"user-{number}" for number in range(8000)]
    User.objects.bulk_create((User(username=name) for name in names), 500)
    peaks: list[int] = []
    # The first run also loads what any run needs.
    for number in (1000, 1000, 8000):
        file = tmp_path / "people.csv"
        file.write_text("user,userid\n" + "".join(f"{name},{name}-{len(peaks)}\n" for name in names[:number]))
        tracemalloc.start()
        call_command("import_airisk_identities", file, stdout=io.StringIO())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]


@pytest.mark.parametrize("label", ["Mia\u202eMeyer", "x" * 151])
def test_impossible_label_is_reported(run: Import, label: str) -> None:
    status, said = run("user,userid,label", f"mia,user_42,{label}")
    assert (status, said.splitlines()[0]) == (1, f"Line 2: {label!r} is not a valid label.")


def test_number_of_queries_is_constant(run: Import) -> None:
    names = [f"user-{number}" for number in range(50)]
    User.objects.bulk_create(User(username=name) for name in names)
    costs = []
    for userid, several in (("a", names[:1]), ("b", names)):
        with CaptureQueriesContext(connection) as queries:
            # One identity is changed, the others are added.
            assert run("user,userid", f"mia,{userid}", *(f"{name},{name}" for name in several))[0] == 0
        costs.append(len(queries))
    assert costs[0] == costs[1]
    assert len(identities()) == 51


def test_import_writes_before_it_reads_on_sqlite(run: Import) -> None:
    """With Django's default options, a transaction on SQLite that starts by reading may not be able to write later."""
    with CaptureQueriesContext(connection) as queries:
        assert run("user,userid", "mia,user_7")[0] == 0
    about_identities = [query["sql"].split()[0] for query in queries if "airisk_oauth_airiskidentity" in query["sql"]]
    assert about_identities == ["UPDATE" if connection.vendor == "sqlite" else "SELECT", "SELECT", "INSERT"]


@pytest.mark.django_db(transaction=True)
@not_on_sqlite
def test_imports_wait_for_each_other(run: Import) -> None:
    """Even if they are about other users: databases sort keys differently, so no order of locks is safe everywhere."""
    User.objects.create_user("eva")
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        assert run("user,userid", "eva,user_1")[0] == 0
        done = pool.submit(attempt, lambda: run("user,userid", "mia,user_2"))
        wait_until(lambda: int(ask_server("count waits")) > 0)
        assert not done.done()
    assert done.result() == (0, "0 added, 1 changed, 0 unchanged.\n")
    assert {("eva", "default", "user_1"), ("mia", "default", "user_2")} <= identities()


@pytest.mark.django_db(transaction=True)
@not_on_sqlite
def test_import_locks_in_the_order_of_users(run: Import, mia: User) -> None:
    """Whatever the order in the file and on the disk, so that two imports cannot deadlock."""
    eva, ben = (User.objects.create_user(name) for name in ("eva", "ben"))
    for user in (ben, eva):
        AIRiskIdentity.objects.create(user=user, userid=user.username)
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        AIRiskIdentity.objects.filter(user=eva).update(userid="held")
        done = pool.submit(attempt, lambda: run("user,userid", "ben,user_1", "eva,user_2"))
        wait_until(lambda: int(ask_server("count waits")) > 0)
        ask_server("wait for 5 s")
        AIRiskIdentity.objects.filter(user=ben).update(userid="held, too")
    assert done.result() == (0, "0 added, 2 changed, 0 unchanged.\n")
    assert identities() == {*BEFORE, ("ben", "default", "user_1"), ("eva", "default", "user_2")}


def test_import_reports_database_errors(run: Import) -> None:
    def add(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("INSERT"):
            raise IntegrityError("tom was added meanwhile")
        return execute(sql, *args)

    with connection.execute_wrapper(add):
        said = run("user,userid", "mia,user_7", "tom,user_8")
    assert said == (1, "Nothing was imported: tom was added meanwhile")
    assert identities() == BEFORE


def test_users_are_found_by_own_natural_keys(run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UserManager, "get_by_natural_key", lambda self, name: self.get(username__istartswith=name))
    User.objects.create_user("tommy")
    status, said = run("user,userid", "MIA,user_1", "tom,user_2", "mia,user_3")
    assert (status, said.splitlines()[:2]) == (
        1,
        ["Line 3: there is no user 'tom'.", "Line 4: line 2 is already about this user."],
    )
    assert run("user,userid", "MIA,user_1") == (0, "0 added, 1 changed, 0 unchanged.\n")


def test_dry_run_reports_but_saves_nothing(run: Import) -> None:
    said = run("user,userid", "mia,user_1", "tom,user_2", dry_run=True)
    assert said == (0, "1 added, 1 changed, 0 unchanged; nothing was saved.\n")
    assert identities() == BEFORE


def test_wrong_rows_are_listed_and_none_imported(run: Import) -> None:
    status, said = run(
        "user,userid,deployment",
        "tom,user_7,default",
        "nobody,user_8,default",
        "mia,,default",
        "mia,user_9,third",
        "tom,user_7,default",
        "tom",
        "tom,user_7,default,more",
        "",
        "t\0m,user_7,default",
    )
    assert (status, said.splitlines()) == (
        1,
        [
            "Line 3: there is no user 'nobody'.",
            "Line 4: '' is not a valid userid.",
            "Line 5: there is no deployment 'third'.",
            "Line 6: line 2 is already about this user.",
            "Line 7: it has more or fewer fields than the first line.",
            "Line 8: it has more or fewer fields than the first line.",
            "Line 10: there is no user 't\\x00m'.",
            "7 of 8 rows are wrong. Nothing was imported.",
        ],
    )
    assert identities() == BEFORE


@pytest.mark.parametrize(
    ("lines", "encoding", "why"),
    [
        ([], "utf-8", "its first line must name"),
        (["name,userid", "tom,user_7"], "utf-8", "its first line must name"),
        (["user,userid,password", "tom,user_7,x"], "utf-8", "its first line must name"),
        (["user,userid,user", "tom,user_7,mia"], "utf-8", "its first line must name"),
        (["user,userid", "tom,Zoë"], "latin-1", "it is not in UTF-8."),
        (["user,userid", "tom,user_7"], "utf-16", "it is not in UTF-8."),
        (["user,userid", "mia,user_1", 'tom,"user_7', "eva,user_8"], "utf-8", "in the row after line 2, "),
        (["user,userid", f"tom,{'x' * 200_000}"], "utf-8", "in the row after line 1, "),
    ],
)
def test_invalid_file_is_reported(run: Import, lines: list[str], encoding: str, why: str) -> None:
    status, said = run(*lines, encoding=encoding)
    assert (status, f"people.csv cannot be read: {why}" in said) == (1, True)
    assert identities() == BEFORE


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_missing_file_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_airisk_identities", tmp_path / name)
