"""``docs/scheduling.md``, followed to the letter: each scheduler renews tokens, and shuts down when it is asked to."""

import configparser
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.utils.module_loading import autodiscover_modules

from airisk_oauth import django_tasks, tasks
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.refresh import WrongOption, refresh_tokens
from airisk_oauth.sandbox.world import World
from tests.support import pages
from tests.support.clock import wait_until
from tests.support.commands import COUNTED, refresh_json
from tests.support.database import committing
from tests.support.options import set_option
from tests.support.pages import ROOT
from tests.support.people import connected_users, give_token, renewed_of, token_requests

pytestmark = [pytest.mark.django_db, pytest.mark.once]
PAGE = "docs/scheduling.md"
snippet = partial(pages.snippet, PAGE)
ON_TIME = "*/5 * * * *"
REDIS = shutil.which("redis-server")

SETTINGS = """
from tests.settings import *

CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": "broker", "data_folder_out": "broker", "control_folder": "control", "polling_interval": 0.1,
}
CELERY_WORKER_CONCURRENCY = 1
"""
CELERY = """
import os
from celery import Celery

app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""


class Site:
    """The site under test as it is deployed: in a folder of its own, and changed as the page says."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {
            **variables,
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{folder}:{ROOT}",
        }
        self.processes = ExitStack()
        for package in ("mysite", ".venv/bin", "broker"):
            (folder / package).mkdir(parents=True)
        names = ("DATABASE_URL", "AIRISK_BASE_URL")
        self.file_of_variables = "".join(f"{name}='{variables[name]}'\n" for name in names)
        self.write("manage.py", (ROOT / "manage.py").read_text().replace("demo_project", "mysite"))
        self.write("mysite/settings.py", SETTINGS)
        self.write("mysite/__init__.py", "")
        path = f"PYTHONPATH={folder}:{ROOT}"
        for name, arguments in {"python": "", "celery": "-m celery"}.items():
            self.write(f".venv/bin/{name}", f'#!/bin/sh\n{path} exec {sys.executable} {arguments} "$@"\n')
            (folder / ".venv/bin" / name).chmod(0o755)

    def write(self, name: str, *texts: str) -> Path:
        path = self.folder / name
        path.write_text("".join(texts).replace("/srv/site", str(self.folder)), encoding="utf-8")
        return path

    def start(self, line: str) -> "subprocess.Popen[str]":
        """Start a line of the page as a shell does, in a process group of its own."""
        process = self.processes.enter_context(
            subprocess.Popen(
                ["sh", "-c", f"exec {line}" if line.split()[0] != "cd" else line],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        self.processes.callback(kill, process)
        return process

    def run(self, line: str) -> str:
        return ended(self.start(line.replace("/srv/site", str(self.folder))))

    def run_bare(self, line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a line with the few variables that cron gives it, and these; systemd gives no more."""
        environment = {"HOME": "/", "LOGNAME": "site", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", **variables}
        line = line.replace("/srv/site", str(self.folder))
        return subprocess.run(
            ["/bin/sh", "-c", line], cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False
        )


def kill(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def ended(process: "subprocess.Popen[str]") -> str:
    out, _nothing = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out


@pytest.fixture
def site(tmp_path: Path, environment: dict[str, str]) -> Iterator[Site]:
    site = Site(tmp_path, environment)
    with site.processes:
        yield site


# By the command


READ_ENV = """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
import environ

env = environ.Env()
env.read_env(BASE_DIR / ".env")
"""
#: A value that a shell, systemd and django-environ would all change without its quotation marks.
SECRET = 'one two$three#four"five'
NEED_VARIABLES = f"import os\nassert os.environ['AIRISK_CLIENT_SECRET'] == {SECRET!r}\nos.environ['DATABASE_URL']\n"


def cron_line() -> str:
    line = snippet("cd /srv/site")
    assert line == pages.snippet("README.md", "cd /srv/site")
    assert line.startswith(ON_TIME)
    return line.removeprefix(ON_TIME).strip()


def service_of(site: Site) -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(site.write("refresh-airisk-tokens.service", snippet("ExecStart")))
    assert unit["Service"]["WorkingDirectory"] == str(site.folder)
    return unit["Service"]


@pytest.fixture
def site_with_file(site: Site) -> Site:
    """A site that has its variables in a file, and reads the environment only."""
    site.write(".env", site.file_of_variables, f"AIRISK_CLIENT_SECRET='{SECRET}'\n")
    site.write("mysite/settings.py", NEED_VARIABLES, SETTINGS)
    return site


@committing
def test_cron_line_renews_tokens(site_with_file: Site) -> None:
    tokens = connected_users(2)
    assert set(pages.snippet("README.md", "read_env(").splitlines()[:5]) <= {*READ_ENV.splitlines()}
    site_with_file.write("mysite/settings.py", READ_ENV, NEED_VARIABLES, SETTINGS)
    done = site_with_file.run_bare(cron_line())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert renewed_of(tokens) == [True, True]


@committing
def test_cron_line_can_read_the_file_itself(site_with_file: Site) -> None:
    tokens = connected_users(2)
    assert "KeyError" in site_with_file.run_bare(cron_line()).stderr
    [reads_file] = pages.spans("set -a;.*", pages.text_of(PAGE))
    done = site_with_file.run_bare(f"{reads_file} {cron_line()}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert renewed_of(tokens) == [True, True]


@committing
def test_keys_are_read_from_the_file(site: Site) -> None:
    [token] = connected_users(1)
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    site.write(".env", site.file_of_variables, f"AIRISK_OAUTH_ENCRYPTION_KEYS={','.join(keys)}\n")
    site.write("mysite/settings.py", READ_ENV, SETTINGS, READ_ENV, snippet("env.list"))
    assert site.run_bare(cron_line()).returncode == 0
    token.refresh_from_db()
    assert Fernet(keys[0]).decrypt(token.sealed.encode())
    site.write(".env", site.file_of_variables)
    assert site.run_bare("cd /srv/site && .venv/bin/python manage.py check --tag airisk_oauth").returncode == 0


@committing
def test_systemd_service_has_no_variables(site_with_file: Site) -> None:
    tokens = connected_users(2)
    command = service_of(site_with_file)["ExecStart"]
    assert site_with_file.run_bare(command).returncode == 1
    # EnvironmentFile removes quotation marks as a shell does.
    lines = (site_with_file.folder / ".env").read_text(encoding="utf-8").splitlines()
    variables = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    assert "default: 2 renewed" in site_with_file.run_bare(command, **variables).stdout
    assert renewed_of(tokens) == [True, True]


def test_variables_for_ci_have_the_right_form(site: Site) -> None:
    text = pages.text_of(PAGE)
    variables = dict(span.split("=") for span in pages.spans(r"AIRISK_\w+=.+", text))
    assert set(variables) == set(re.findall(r"AIRISK_\w+", pages.snippet("README.md", "AIRISK_BASE_URL=")))
    setting = pages.snippet("README.md", "read_env(")
    site.write("mysite/settings.py", READ_ENV, SETTINGS, setting)
    line = "cd /srv/site && .venv/bin/python manage.py check --tag airisk_oauth"
    done = site.run_bare(line, **variables)
    assert (done.returncode, "E0" in done.stderr) == (0, False), done.stderr


@committing
def test_systemd_units_renew_tokens(site: Site) -> None:
    tokens = connected_users(2)
    site.write(".env", site.file_of_variables)
    site.write("mysite/settings.py", READ_ENV, SETTINGS)
    assert "default: 2 renewed" in site.run_bare(service_of(site)["ExecStart"]).stdout
    assert renewed_of(tokens) == [True, True]
    service = site.folder / "refresh-airisk-tokens.service"
    timer = site.write("refresh-airisk-tokens.timer", snippet("OnCalendar"))
    if shutil.which("systemd-analyze"):
        assert site.run(f"systemd-analyze verify {service} {timer}") == ""
        assert "Next elapse" in site.run("systemd-analyze calendar '*:0/5'")


@committing
def test_kubernetes_job_renews_tokens(site: Site) -> None:
    tokens = connected_users(2)
    job = yaml.safe_load(snippet("CronJob"))
    assert (job["apiVersion"], job["kind"], job["spec"]["schedule"]) == ("batch/v1", "CronJob", ON_TIME)
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    told = json.loads(site.run(" ".join(container["command"])))
    assert told["renewed"] == 2
    assert renewed_of(tokens) == [True, True]
    assert told.keys() == json.loads(snippet('"renewed"')).keys()


# By Celery


@pytest.fixture
def celery_site(site: Site) -> Site:
    each_second = '\nCELERY_BEAT_SCHEDULE["refresh-airisk-tokens"]["schedule"] = 1.0\n'
    site.write("mysite/settings.py", SETTINGS, snippet("CELERY_BEAT_SCHEDULE"), each_second)
    site.write("mysite/celery.py", CELERY)
    site.write("mysite/__init__.py", "from .celery import app")
    return site


WORKER, BEAT = snippet("celery -A").splitlines()


@committing
def test_celery_beat_renews_on_time(celery_site: Site) -> None:
    tokens = connected_users(2)
    celery_site.start(BEAT)
    celery_site.start(WORKER)
    wait_until(lambda: renewed_of(tokens) == [True, True])


@committing
def test_celery_worker_shut_down_loses_nothing(airisk: World, celery_site: Site) -> None:
    tokens = connected_users(200)
    airisk.switches.latency = 0.1
    worker = celery_site.start(f"{WORKER} --pool=solo --loglevel=INFO")
    celery_site.run("celery -A mysite call airisk_oauth.tasks.refresh_airisk_tokens")
    wait_until(lambda: sum(renewed_of(tokens)) > 0)
    worker.send_signal(signal.SIGTERM)
    assert "succeeded in" in ended(worker)
    assert 0 < sum(renewed_of(tokens)) == len(token_requests(airisk)) < 200
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@committing
@pytest.mark.skipif(REDIS is None and "CI" not in os.environ, reason="there is no redis-server")
def test_celery_workers_share_the_tokens(airisk: World, celery_site: Site) -> None:
    """Three workers, with a broker as most sites have it, that all sweep at the same time."""
    tokens = connected_users(240)
    airisk.switches.latency = 0.1
    socket = celery_site.folder / "redis"
    celery_site.start(f"{REDIS} --port 0 --unixsocket {socket} --save '' --dir {celery_site.folder}")
    broker = f"\nCELERY_BROKER_URL = 'redis+socket://{socket}'\nCELERY_BROKER_TRANSPORT_OPTIONS = {{}}\n"
    settings = celery_site.folder / "mysite/settings.py"
    settings.write_text(settings.read_text() + broker)
    workers = [celery_site.start(f"{WORKER} --pool=solo --loglevel=INFO --hostname={name}") for name in "abc"]
    with redis.Redis(unix_socket_path=str(socket)) as queue:
        wait_until(lambda: socket.exists() and queue.scard("_kombu.binding.celery.pidbox") == len(workers))
    send = "from airisk_oauth.tasks import refresh_airisk_tokens as task; [task.delay() for _worker in range(3)]"
    celery_site.run(f'python manage.py shell --verbosity=0 -c "{send}"')
    wait_until(lambda: all(renewed_of(tokens)))
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    shares = [int(re.findall(r"succeeded in .*?'renewed': (\d+)", ended(worker))[0]) for worker in workers]
    assert min(shares) > 0
    assert sum(shares) == len(token_requests(airisk)) == 240


def test_tasks_module_is_empty_without_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "tasks", without=["celery"])
    autodiscover_modules("tasks")
    assert not hasattr(sys.modules["airisk_oauth.tasks"], "refresh_airisk_tokens")


@committing
def test_site_imports_no_scheduler_by_itself(site: Site) -> None:
    look = (
        "import sys; print([name for name in ('celery', 'airisk_oauth.tasks', 'django_tasks') if name in sys.modules])"
    )
    assert site.run(f'python manage.py shell --verbosity=0 -c "{look}"') == "[]\n"


# By Django's tasks


@committing
def test_django_worker_shut_down_loses_nothing(airisk: World, site: Site) -> None:
    tokens = connected_users(200)
    airisk.switches.latency = 0.1
    site.write("mysite/settings.py", SETTINGS, snippet("TASKS"))
    site.run("python manage.py migrate --verbosity=0 django_tasks_database")
    site.write("enqueue.py", snippet("enqueue"))
    site.run("python manage.py shell --verbosity=0 < enqueue.py")
    worker = site.start(f"{snippet('db_worker').strip()} --no-startup-delay")
    wait_until(lambda: sum(renewed_of(tokens)) > 0)
    worker.send_signal(signal.SIGTERM)
    ended(worker)
    assert 0 < sum(renewed_of(tokens)) == len(token_requests(airisk)) < 200
    assert not AIRiskToken.objects.exclude(lease=None).exists()


def test_immediate_backend_renews_at_once(airisk: World) -> None:
    tokens = connected_users(2)
    result = django_tasks.refresh_airisk_tokens.enqueue(deployment="default")
    assert result.return_value["renewed"] == 2
    assert renewed_of(tokens) == [True, True]


def test_import_error_names_the_missing_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "django_tasks", without=["django.tasks", "django_tasks"])
    with pytest.raises(ImportError, match="or django-tasks beside Django 5"):
        importlib.import_module("airisk_oauth.django_tasks")


def forget(monkeypatch: pytest.MonkeyPatch, module: str, *, without: list[str]) -> None:
    """Let this module be imported anew, where others are not installed."""
    monkeypatch.delattr(f"airisk_oauth.{module}")
    monkeypatch.delitem(sys.modules, f"airisk_oauth.{module}")
    for name in without:
        monkeypatch.setitem(sys.modules, name, None)


# By anything else, and what all of them have in common


@committing
def test_function_renews_in_a_script(site: Site) -> None:
    tokens = connected_users(2)
    site.write("run.py", snippet("print(refresh_tokens("))
    assert "'renewed': 2" in site.run("python manage.py shell --verbosity=0 < run.py")
    assert renewed_of(tokens) == [True, True]


@committing
def test_module_for_other_schedulers_renews(site: Site) -> None:
    tokens = connected_users(2)
    in_a_thread = "\n\nimport threading\nthread = threading.Thread(target=renew)\nthread.start()\nthread.join()\n"
    site.write("run_by_itself.py", snippet("def renew"), in_a_thread)
    site.write(".env", site.file_of_variables)
    site.write("mysite/settings.py", READ_ENV, SETTINGS)
    done = site.run_bare("cd /srv/site && .venv/bin/python run_by_itself.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert renewed_of(tokens) == [True, True]


def by_celery(**options: Any) -> Any:
    return tasks.refresh_airisk_tokens.apply(kwargs=options).get()


by_any = pytest.mark.parametrize(
    "refresh", [refresh_tokens, tasks.refresh_airisk_tokens, by_celery, django_tasks.refresh_airisk_tokens.call]
)
Refresh = Callable[..., dict[str, Any]]


@by_any
def test_run_returns_what_the_command_prints(airisk: World, refresh: Refresh) -> None:
    connected_users(3)
    connected_users(3, "second", ends_in=1200)
    options = {"within": "30m", "deployment": "second", "limit": 1, "workers": 2}
    by_command = [refresh_json(**options)[1], refresh_json(limit=1)[1]]
    by_task = [refresh(**options), refresh(limit=1)]
    for told in (*by_command, *by_task):
        assert told.pop("seconds") >= 0
    assert by_task == by_command
    assert [told["renewed"] for told in by_task] == [1, 1]


@by_any
def test_failed_renewal_is_a_result_and_no_error(airisk: World, mia: User, refresh: Refresh) -> None:
    give_token(mia, ends_in=60)
    AIRiskIdentity.objects.all().delete()
    connected_users(1)
    airisk.switches.refuse = True
    told = refresh(deployment="default")
    assert [told[word] for word in COUNTED] == [0, 1, 0, 1, 0]


@by_any
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"within": "soon"}, WrongOption),
        ({"limit": 0}, WrongOption),
        ({"workers": -1}, WrongOption),
        ({"deployment": "third"}, ImproperlyConfigured),
    ],
)
def test_wrong_option_raises_before_any_renewal(
    airisk: World, refresh: Refresh, options: dict[str, Any], error: type[Exception]
) -> None:
    connected_users(1)
    with pytest.raises(error):
        refresh(**options)
    assert not airisk.journal


@by_any
def test_wrong_setting_raises_before_any_renewal(airisk: World, settings: Any, refresh: Refresh) -> None:
    connected_users(1)
    set_option(settings, "second", TIMEOUT="soon")
    with pytest.raises(ImproperlyConfigured):
        refresh()
    assert not airisk.journal


@by_any
def test_missing_database_raises_an_error(airisk: World, refresh: Refresh) -> None:
    def gone(*args: Any) -> Any:
        raise OperationalError("the database is gone")

    with connection.execute_wrapper(gone), pytest.raises(OperationalError):
        refresh()


@contextmanager
def signalled(airisk: World, number: signal.Signals, handle: Callable[..., None]) -> Iterator[None]:
    """Send this process a signal once AIRisk has granted a token; the worker whose process it is has this handler."""

    def send() -> None:
        wait_until(lambda: token_requests(airisk))
        os.kill(os.getpid(), number)

    airisk.switches.latency = 0.05
    before = signal.signal(number, handle)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert signal.signal(number, before) is handle


of_each_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@of_each_signal
def test_signal_ends_the_run_before_the_worker(airisk: World, number: signal.Signals) -> None:
    tokens = connected_users(60)
    left: list[int] = []

    def handle(*_args: object) -> None:
        left.append(60 - sum(renewed_of(tokens)))

    with signalled(airisk, number, handle):
        result = refresh_tokens(deployment="default", workers=2)
    assert left == [60 - len(token_requests(airisk))] == [result["skipped"]]
    assert 30 < left[0] < 60
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@of_each_signal
def test_worker_exiting_on_a_signal_loses_nothing(airisk: World, number: signal.Signals) -> None:
    tokens = connected_users(60)

    def handle(*_args: object) -> None:
        raise SystemExit

    with signalled(airisk, number, handle), pytest.raises(SystemExit):
        refresh_tokens(deployment="default", workers=2)
    assert 1 <= sum(renewed_of(tokens)) == len(token_requests(airisk)) < 30
    assert not AIRiskToken.objects.exclude(lease=None).exists()


def test_foreign_signal_handler_is_left_in_place(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = connected_users(1)
    replaced: list[object] = []
    monkeypatch.setattr(signal, "getsignal", lambda _number: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: replaced.append(arguments))
    refresh_tokens()
    assert renewed_of(tokens) == [True]
    assert not replaced


def test_every_snippet_of_the_page_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    used = {snippet(words) for words in re.findall(r"(?<!pages\.)snippet\(['\"](.*?)['\"]\)", source)}
    assert used == {text for _language, text in pages.snippets_of(PAGE)}
