"""Staff import identities from a CSV file in the admin: checked, shown, and then saved, all of them or none."""

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, connection
from django.test import Client
from django.urls import reverse

from airisk_oauth.admin import import_page
from airisk_oauth.models import AIRiskIdentity
from tests.support.admin import allow, identity_page, person, text_of

if TYPE_CHECKING:
    from pytest_django import Settings

PAGE = "/admin/airisk_oauth/airiskidentity/import/"


@pytest.fixture(autouse=True)
def people(db: None) -> None:
    """Mia is user_42 on AIRisk, and Tom nobody."""
    person("mia")
    User.objects.create_user("tom")


def upload(browser: Client, *lines: str, deployment: str = "default", encoding: str = "utf-8") -> Any:
    """Choose a file with these lines, and return the page that follows."""
    file = SimpleUploadedFile("people.csv", "\r\n".join(lines).encode(encoding), "text/csv")
    return browser.post(PAGE, {"file": file, "deployment": deployment})


def import_checked(browser: Client, page: Any) -> Any:
    """Submit the form of the page that shows what would change, with the ends of lines that browsers send."""
    form = page.context["form"].initial
    return browser.post(PAGE, {**form, "text": form["text"].replace("\n", "\r\n")}, follow=True)


def identities() -> set[tuple[str, str, str]]:
    return set(AIRiskIdentity.objects.values_list("user__username", "deployment", "userid"))


BEFORE = {("mia", "default", "user_42")}


def test_file_is_checked_and_then_imported(admin_client: Client) -> None:
    page = upload(
        admin_client, "user,userid,deployment", "mia,user_7,", "mia,user_8,second", "tom,Zoë,", encoding="utf-8-sig"
    )
    text = text_of(page)
    assert "2 added, 1 changed, 0 unchanged." in text
    assert "mia default user_42 user_7" in text
    assert identities() == BEFORE
    done = import_checked(admin_client, page)
    assert "2 added, 1 changed, 0 unchanged." in text_of(done)
    assert identities() == {("mia", "default", "user_7"), ("mia", "second", "user_8"), ("tom", "default", "Zoë")}
    history = LogEntry.objects.values_list("action_flag", "object_repr", "change_message")
    words = "Imported from a file."
    assert set(history) == {
        (CHANGE, "user_7 (default)", words),
        (ADDITION, "user_8 (second)", words),
        (ADDITION, "Zoë (default)", words),
    }
    stored = {str(pk) for pk in AIRiskIdentity.objects.values_list("pk", flat=True)}
    assert {entry.object_id for entry in LogEntry.objects.all()} == stored


def test_rows_without_deployment_get_the_chosen(admin_client: Client) -> None:
    import_checked(admin_client, upload(admin_client, "user;userid", "tom;user_7", deployment="second"))
    assert identities() == {*BEFORE, ("tom", "second", "user_7")}


def test_unchanged_file_changes_nothing(admin_client: Client) -> None:
    page = upload(admin_client, "user,userid", "mia,user_42")
    assert "0 added, 0 changed, 1 unchanged." in text_of(page)
    import_checked(admin_client, page)
    assert (identities(), LogEntry.objects.count()) == (BEFORE, 0)


def test_changed_label_is_shown_and_imported(admin_client: Client) -> None:
    page = upload(admin_client, "user,userid,label", "mia,user_42,Mia Meyer")
    assert "mia default user_42 user_42, Mia Meyer" in text_of(page)
    import_checked(admin_client, page)
    assert AIRiskIdentity.objects.get().label == "Mia Meyer"


def test_wrong_rows_are_named_and_none_imported(admin_client: Client) -> None:
    lines = ["user,userid", "tom,user_7", "nobody,user_8", "mia", "tom,user_9", "mia,"]
    text = text_of(upload(admin_client, *lines))
    assert "4 of 5 rows are wrong. Nothing was imported." in text
    for words in (
        "Line 3: there is no user 'nobody'.",
        "Line 4: it has more or fewer fields than the first line.",
        "Line 5: line 2 is already about this user.",
        "Line 6: '' is not a valid userid.",
    ):
        assert words in text
    assert identities() == BEFORE


def test_page_names_the_first_of_many(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_page, "NAMED", 1)
    AIRiskIdentity.objects.create(user=User.objects.get(username="tom"), userid="user_43")
    wrong = text_of(upload(admin_client, "user,userid", "nobody,user_1", "noone,user_2"))
    assert "nobody" in wrong
    assert "noone" not in wrong
    changed = text_of(upload(admin_client, "user,userid", "mia,user_1", "tom,user_2"))
    assert "user_1" in changed
    assert "user_2" not in changed


@pytest.mark.parametrize(
    ("lines", "encoding", "why"),
    [
        (["name,userid", "tom,user_7"], "utf-8", "its first line must name the columns user, userid and"),
        (["user,userid", "tom,Zoë"], "latin-1", "it is not in UTF-8."),
        (["user,userid", 'tom,"user_7'], "utf-8", "in the row after line 1, "),
        ([""], "utf-8", "The submitted file is empty."),
        (["user,userid", "x" * 500_000], "utf-8", "larger than 500 kB: use the command import_airisk_identities."),
    ],
)
def test_unreadable_file_is_explained(lines: list[str], encoding: str, why: str, admin_client: Client) -> None:
    assert why in text_of(upload(admin_client, *lines, encoding=encoding))
    assert identities() == BEFORE


def test_what_was_checked_can_be_imported(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser sends a text with longer ends of lines than the file had."""
    content = b"user,userid\ntom,user_7\nmia,user_8\n"
    monkeypatch.setattr(import_page, "MAX_FILE", len(content))
    file = SimpleUploadedFile("people.csv", content, "text/csv")
    import_checked(admin_client, admin_client.post(PAGE, {"file": file, "deployment": "default"}))
    assert identities() == {("tom", "default", "user_7"), ("mia", "default", "user_8")}


def test_form_without_a_file_asks_for_one(admin_client: Client) -> None:
    assert "Choose a file." in text_of(admin_client.post(PAGE, {"deployment": "default"}))


def test_failed_import_saves_nothing(admin_client: Client) -> None:
    page = upload(admin_client, "user,userid", "mia,user_7", "tom,user_8")

    def add(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("INSERT"):
            raise IntegrityError("tom was added meanwhile")
        return execute(sql, *args)

    with connection.execute_wrapper(add):
        text = text_of(import_checked(admin_client, page))
    assert "Nothing was imported: [tom was added meanwhile]" in text
    assert identities() == BEFORE


def test_deployment_is_asked_for_where_needed(admin_client: Client, settings: "Settings") -> None:
    assert '<select name="deployment"' in admin_client.get(PAGE).text
    settings.AIRISK_OAUTH = {"second": settings.AIRISK_OAUTH["second"]}
    page = admin_client.get(PAGE).text
    assert re.search(r'<input type="hidden" name="deployment" value="second"', page)


@pytest.mark.parametrize("codename", ["view", "add", "change"])
def test_import_needs_to_add_and_to_change(codename: str, desk: Client, staff: User) -> None:
    allow(staff, "view_airiskidentity", *{f"{codename}_airiskidentity"} - {"view_airiskidentity"})
    assert PAGE not in desk.get(identity_page("changelist")).text
    assert desk.get(PAGE).status_code == 403
    assert upload(desk, "user,userid", "tom,user_7").status_code == 403
    allow(staff, "add_airiskidentity", "change_airiskidentity")
    assert PAGE in desk.get(identity_page("changelist")).text
    assert desk.get(PAGE).status_code == 200
    assert identities() == BEFORE


def test_import_page_has_a_name() -> None:
    assert reverse("admin:airisk_oauth_airiskidentity_import") == PAGE
