"""Take the documentation's screenshots of the demo, which is started with its own database.

Usage: python docs/screenshots.py [FOLDER], with Debian's chromium. Stored times are moved back by minutes, so that a
second more or less makes no difference.
"""

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import django
from django.apps import apps
from django.core.management import call_command
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, ViewportSize, sync_playwright

ROOT: Final = Path(__file__).resolve().parent.parent
CHROMIUM: Final = Path("/usr/bin/chromium")
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]

#: The tokens in the admin, newest first: the user, how many minutes ago the token was renewed, its lifetime in minutes,
#: and the last failure with AIRisk's answer.
TOKENS: Final[list[tuple[str, int, int, dict[str, Any]]]] = [
    ("ada", 12, 60, {}),
    ("ben", 57, 60, {}),
    ("carla", 71, 60, {"failure_kind": "unavailable", "failure_count": 3}),
    ("deniz", 190, 60, {}),
    (
        "eva",
        75,
        60,
        {
            "failure_kind": "refused",
            "failure_count": 1,
            "failure_status": 401,
            "failure_reason": "Unauthorized",
            "failure_trace_id": "00-676e1bd0c3f04c0fbf2b8cc9a2c55ef1-35ac77b23e0a4b1d-00",
        },
    ),
]


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, demo(Path(scratch)) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        folder.mkdir(parents=True, exist_ok=True)
        take_user_screenshots(browser, site, folder)
        take_staff_screenshot(browser, site, folder)
        browser.close()


@contextmanager
def demo(scratch: Path) -> Iterator[str]:
    """Run the demo as `make demo` does, and yield its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
    unset = dict.fromkeys(("SECRET_KEY", "ALLOWED_HOSTS", "AIRISK_BASE_URL"), "")
    variables = {"DEBUG": "true", "PORT": str(address[1]), "DATABASE_URL": f"sqlite:///{scratch / 'demo.sqlite3'}"}
    # Playwright runs an event loop in this thread, which Django would take for asynchronous code.
    settings = {"DJANGO_SETTINGS_MODULE": "demo_project.settings", "DJANGO_ALLOW_ASYNC_UNSAFE": "1"}
    os.environ.update({**unset, **variables, **settings})
    sys.path.insert(0, str(ROOT))
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("seed_demo", stdout=io.StringIO())
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{address[1]}"]
    with (
        (scratch / "server.log").open("w") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(address, server)
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            server.terminate()


def wait_for(address: tuple[str, int], server: "subprocess.Popen[bytes]") -> None:
    for _attempt in range(600):
        with socket.socket() as sock:
            if sock.connect_ex(address) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError("The demo does not start.")


@contextmanager
def signed_in(
    browser: Browser, site: str, name: str, width: int, height: int, *, scripts: bool
) -> Iterator[BrowserContext]:
    window: ViewportSize = {"width": width, "height": height}
    with browser.new_context(
        base_url=site, viewport=window, device_scale_factor=2, java_script_enabled=scripts
    ) as context:
        page = context.new_page()
        page.goto("/accounts/login/")
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(name)
        page.locator("main").get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Conversations", exact=True).wait_for()
        page.close()
        yield context


def take_user_screenshots(browser: Browser, site: str, folder: Path) -> None:
    # Without scripts, so that the countdown stands still.
    with signed_in(browser, site, "demo", 960, 660, scripts=False) as context:
        page = context.new_page()
        page.goto("/airisk/")
        page.locator(".airisk-card").screenshot(path=folder / "connection.png")
        page.goto("/")
        page.get_by_role("button", name="Connect to AIRisk").click()
        page.goto("/")
        page.get_by_role("button", name="Expire the token").click()
        page.get_by_text("Fetched from AIRisk just now").wait_for()
        move_the_users_times_back()
        page.goto("/")
        page.screenshot(path=folder / "demo.png")
        page.goto("/chat/")
        page.get_by_label("Contract reader").check()
        page.get_by_label("Your question").fill("Does section 9 limit our liability?")
        page.get_by_role("button", name="Start a conversation").click()
        page.get_by_role("button", name="Ask", exact=True).click()
        page.get_by_text("No other finding.").wait_for()
        page.goto(page.url.partition("#")[0])
        page.screenshot(path=folder / "chat.png")


def move_the_users_times_back() -> None:
    now = timezone.now()
    events: Any = apps.get_app_config("demo_project").get_model("Event")
    for event, minutes in zip(events.objects.order_by("-pk"), (4, 4, 31, 32), strict=True):
        event.happened_at = now - timedelta(minutes=minutes, seconds=20)
        event.save()
    expires_at = now + timedelta(minutes=55, seconds=40)
    apps.get_model("airisk_oauth", "AIRiskToken").objects.update(
        expires_at=expires_at, renewed_at=expires_at - timedelta(hours=1), last_used_at=now - timedelta(minutes=4)
    )


def take_staff_screenshot(browser: Browser, site: str, folder: Path) -> None:
    store_tokens()
    with signed_in(browser, site, "admin", 1240, 750, scripts=True) as context:
        page = context.new_page()
        page.goto("/admin/airisk_oauth/airisktoken/")
        page.evaluate("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
        page.reload()
        page.screenshot(path=folder / "tokens.png", animations="disabled")


def store_tokens() -> None:
    now = timezone.now() - timedelta(seconds=20)
    used_at = now - timedelta(minutes=3)
    tokens, identities = (apps.get_model("airisk_oauth", name) for name in ("AIRiskToken", "AIRiskIdentity"))
    for number, (name, age, lifetime, failure) in enumerate(reversed(TOKENS), 50):
        user = apps.get_model("auth", "User").objects.create_user(name)
        userid = f"user_{number}"
        identities.objects.create(user=user, userid=userid)
        renewed_at = now - timedelta(minutes=age)
        times = {
            "renewed_at": renewed_at,
            "expires_at": renewed_at + timedelta(minutes=lifetime),
            "last_used_at": used_at,
        }
        if failure:
            failure["failed_at"] = now - timedelta(minutes=7)
        tokens.objects.create(user=user, userid=userid, access_token="shown-nowhere", **times, **failure)  # noqa: S106


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
