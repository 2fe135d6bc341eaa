"""A custom user model with a UUID as its key, and without anything that only ``auth.User`` has.

Members sign up with an id from another system, written as 32 hexadecimal digits.
"""

import io
import tempfile
import uuid
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from tests.sites import running
from tests.support import airisk

AIRISK = airisk.start()
FOLDER = tempfile.TemporaryDirectory()
running.configure(
    AIRISK.url,
    AUTH_USER_MODEL="uuid_users.Member",
    INSTALLED_APPS=[*(app for app in running.APPS if app != "django.contrib.admin"), "tests.sites.uuid_users"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(FOLDER.name, "site.sqlite3")}},
)

from django.contrib.auth import login  # noqa: E402 - after the set-up

from airisk_oauth.models import AIRiskIdentity  # noqa: E402
from tests.sites import mission as people  # noqa: E402
from tests.sites.uuid_users.models import Member  # noqa: E402


def sign_up(request: HttpRequest) -> HttpResponse:
    member: Any = Member.objects.create(id=request.GET["id"], email=request.GET["email"])
    AIRiskIdentity.objects.create(user=member, userid="user_42")
    login(request, member)
    return HttpResponse("Welcome")


urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("conversations/", running.conversations),
    path("sign-up/", sign_up),
]


def new_member() -> people.Person:
    browser, member_id, email = people.new_browser(), uuid.uuid4(), f"{uuid.uuid4()}@example.com"
    browser.get("/sign-up/", {"id": member_id.hex, "email": email}, secure=True)
    return people.Person(Member.objects.get(id=member_id), "user_42", browser, caller=browser)


def mission() -> None:
    people.mission(AIRISK, new_member())


def deleted_member_leaves_no_token() -> None:
    member = new_member()
    people.go_on(member, people.connect(member))
    assert member.token.count() == 1
    member.user.delete()
    assert member.token.count() == 0


def file_says_who_members_are() -> None:
    known, new = new_member().user, Member.objects.create(id=uuid.uuid4(), email=f"{uuid.uuid4()}@example.com")
    file = Path(FOLDER.name, "members.csv")
    file.write_text(f"user,userid\n{new.email},user_7\n{known.email},user_8\n", encoding="utf-8")
    call_command("import_airisk_identities", file, stdout=io.StringIO())
    userids = AIRiskIdentity.objects.filter(user__in=[known, new]).values_list("user", "userid")
    assert dict(userids) == {new.pk: "user_7", known.pk: "user_8"}


call_command("migrate", run_syncdb=True, verbosity=0)
running.keep(mission, deleted_member_leaves_no_token, file_says_who_members_are)
