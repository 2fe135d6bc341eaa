"""The dashboard and the alert rules in docs/monitoring, loaded by the tools that read them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import User
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from airisk_oauth import AIRiskSession
from airisk_oauth.exceptions import AIRiskError
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.report import COUNTED, REFUSED, RENEWED, UNAVAILABLE
from airisk_oauth.tokens.status import Status
from tests.support import pages
from tests.support.commands import refresh_json
from tests.support.metrics import Scrapes, instrumented
from tests.support.people import give_token, live_token
from tests.support.prometheus import needs_prometheus, promtool, scraping

FOLDER = pages.ROOT / "docs" / "monitoring"
RULES = FOLDER / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
EXPRESSIONS: list[str] = [
    target["expr"].replace("$deployment", ".*").replace("$__rate_interval", "1m")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
]
ALERTS = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def sweep_of(tmp_path: Path) -> str:
    """Return what the documented script writes about a sweep."""
    _status, report = refresh_json()
    kept = tmp_path / "airisk.prom"
    script = pages.snippet("docs/monitoring.md", "write_to_textfile")
    subprocess.run([sys.executable, "-c", script, kept], input=json.dumps(report), text=True, timeout=60, check=True)
    return kept.read_text(encoding="utf-8")


@pytest.fixture
def site(airisk: World, mia: User) -> Iterator[Scrapes]:
    """A site to which all has happened that is measured."""
    with instrumented(tokens=True, tokens_every=3600) as scrapes:
        live_token(airisk, mia)
        airisk.end_all_tokens()
        with AIRiskSession.for_user(mia) as session:
            session.get("/api/Chat/ListAgents")
            airisk.switches.refuse = True
            airisk.end_all_tokens()
            with suppress(AIRiskError):
                session.get("/api/Chat/ListAgents")
        airisk.reset()
        yield scrapes


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bairisk_\w+", text))


@pytest.mark.django_db
def test_dashboard_and_alerts_name_real_metrics(site: Scrapes, mia: User, tmp_path: Path) -> None:
    scraped = site.text() + sweep_of(tmp_path)
    used = names_in(" ".join([*EXPRESSIONS, *(alert["expr"] for alert in ALERTS)]))
    assert used <= names_in(scraped)
    metrics = {name for name in names_in(scraped) if re.search(rf"^{name}[{{ ]", scraped, re.MULTILINE)}
    measured = {name for name in metrics if not re.search(r"_(created|sum|count)$", name)}
    assert measured <= used, "Nothing is measured that neither the dashboard nor an alert shows."


def test_dashboard_and_alerts_name_real_values() -> None:
    text = " ".join([*EXPRESSIONS, *(alert["expr"] for alert in ALERTS)])
    assert set(re.findall(r'airisk_outcome!?="(\w+)"', text)) <= {RENEWED, REFUSED, UNAVAILABLE}
    assert set(re.findall(r'airisk_status="(\w+)"', text)) <= {status.name.lower() for status in Status}
    outcomes = {word for words in re.findall(r'\boutcome=~?"([\w|]+)"', text) for word in words.split("|")}
    assert outcomes <= {*COUNTED, "paused"}


def test_grafana_knows_all_of_the_dashboard() -> None:
    """Its own types drop what they do not know, and fail for what has the wrong shape."""
    register_default_plugins()
    kept = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert lost(DASHBOARD, kept) == []
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} == {"row", "timeseries", "stat"}
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def lost(given: Any, kept: Any, path: str = "") -> list[str]:
    """Return the paths of the values that are not kept as they were given."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [each for key in given for each in lost(given[key], kept.get(key), f"{path}/{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [each for number, value in enumerate(given) for each in lost(value, kept[number], f"{path}/{number}")]
    return [] if given == kept else [path]


@needs_prometheus
def test_alerts_fire_when_they_should() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)
    promtool("test", "rules", pages.ROOT / "tests" / "alerts.yml")
    tested = (pages.ROOT / "tests" / "alerts.yml").read_text(encoding="utf-8")
    for alert in ALERTS:
        assert re.search(rf"alertname: {alert['alert']}\n +exp_alerts", tested), alert["alert"]


@needs_prometheus
@pytest.mark.once
@pytest.mark.django_db
def test_prometheus_answers_the_whole_dashboard(site: Scrapes, mia: User, tmp_path: Path) -> None:
    give_token(None, ends_in=-60)
    sweep = sweep_of(tmp_path)
    # Counted here: Prometheus reads in another thread, which does not see the test's transaction.
    site.text()
    with scraping(lambda: site.text() + sweep, RULES, tmp_path) as prometheus:
        prometheus.wait_for(lambda: bool(prometheus.query("rate(airisk_renewals_total[1m])")))
        assert [each for each in EXPRESSIONS if not prometheus.query(each)] == []
        [variable] = [each["query"] for each in DASHBOARD["templating"]["list"] if each["name"] == "deployment"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable).groups()  # type: ignore[union-attr]
        assert [each["metric"][label] for each in prometheus.query(f"group by ({label}) ({metric})")] == ["default"]
        prometheus.wait_for(lambda: all(rule["health"] == "ok" for rule in rules_of(prometheus.get("rules"))))


def rules_of(answer: Any) -> list[Any]:
    return [rule for group in answer["groups"] for rule in group["rules"]]
