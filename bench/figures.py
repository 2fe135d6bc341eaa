"""The figures: which contenders are set against each other, and what of their measurements is shown."""

import statistics
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from . import startup as fresh
from .contenders import POSTGRESQL, SQLITE, Contender, Site
from .rounds import Rounds, interleave, medians, pick, ratios

OURS, REQUESTS, ESI, SOCIAL = "ours", "requests", "django-esi", "social-auth-app-django"
BY_HAND = "by hand"
FEW = 1_000


@dataclass
class Row:
    what: str
    ours: str
    others: str = ""


@dataclass
class Figure:
    """:ivar bars: what of it is drawn, by contender; ``scale`` says what a bar means."""

    title: str
    how: str
    scale: str = ""
    rows: list[Row] = field(default_factory=list)
    bars: dict[str, float] = field(default_factory=dict)

    def add(self, what: str, values: Mapping[str, float], form: str = "{:.2f}") -> None:
        """Add a row of one value for each contender."""
        texts = {name: form.format(value) for name, value in values.items()}
        others = " · ".join(f"{name} {text}" for name, text in texts.items() if name != OURS)
        self.rows.append(Row(what, texts[OURS], others))


def calls(site: Site) -> Figure:
    number, stub, http = 25, 300, 100
    figure = Figure(
        "One authorised call",
        f"GET by a session that is already in use; requests with a fixed header = 1, lower is better. {number} rounds "
        f"of {stub} calls without a network, and of {http} calls over open connections to a server in another process.",
    )
    figure.scale = "time without a network, requests = 1"
    for transport, batch, what in (("stub", stub, "Time, no network"), ("http", http, "Time, local HTTP")):
        with site.contender("calls", transport, str(batch)) as contender:
            contender.wait_until_ready()
            rounds = [contender.measure() for _ in range(number)]
        queries = max(each.pop("queries") for each in rounds)
        figure.add(what, ratios(rounds, REQUESTS))
        figure.bars = figure.bars or ratios(rounds, REQUESTS)
    figure.rows.append(Row("Database statements", str(queries)))
    return figure


def async_calls(site: Site) -> Figure:
    number, calls = 25, 100
    figure = Figure(
        "One authorised call on an event loop",
        f"GET by a client that is already in use, over an open connection to a server in another process; httpx2 with "
        f"a fixed header = 1, lower is better. {number} rounds of {calls} calls.",
    )
    with site.contender("async_calls", str(calls)) as contender:
        contender.wait_until_ready()
        rounds = [contender.measure() for _ in range(number)]
    figure.add("Time, local HTTP", ratios(rounds, "httpx2"))
    return figure


def connecting(site: Site) -> Figure:
    figure = Figure(
        "Connecting for the first time",
        "From the click on Connect to the page after the callback, for a signed-in user: statements, transaction "
        "control included. Four of them are Django's own, for the session and the user. social-auth-app-django keeps "
        "the state in the session, so it does not need a row for it, but writes the session.",
    )
    for kind in (POSTGRESQL, SQLITE):
        measured = {}
        for name, apps in ((OURS, "airisk_oauth"), (SOCIAL, "airisk_oauth,social_django")):
            with site.contender("connecting", name, kind=kind, apps=apps) as contender:
                contender.wait_until_ready()
                contender.measure()
                measured[name] = contender.measure()["statements"]
        figure.add(f"Database statements, {kind}", measured, "{:.0f}")
    return figure


def sweeps(site: Site) -> Figure:
    number, rounds = 6000, 3
    figure = Figure(
        f"Several sweeps of {number:,} tokens at once, PostgreSQL",
        f"Each is a process with 32 workers, AIRisk answers after 20 ms; one sweep = 1; the median of {rounds} rounds. "
        "The statements are of all sweeps together. Shares are what the least and the most busy sweep renewed; 1 would "
        "be an equal share.",
    )
    site.airisk.delay(0.02)
    url = site.databases.new(POSTGRESQL)
    with site.contender("sweeps", "fill", str(number), url=url) as filler:
        filler.wait_until_ready()
        alone = 0.0
        for several in (1, 2, 4):
            taken = [_sweeps_at_once(site, url, filler, several) for _ in range(rounds)]
            rate = statistics.median(number / each["seconds"] for each in taken)
            alone = alone or rate
            statements = statistics.median(each["queries"] for each in taken) / number
            shares = [share * several / number for each in taken for share in each["shares"]]
            memory = max(each["memory"] for each in taken)
            seen = {(each["least"], each["most"]) for each in taken}
            figure.rows.append(Row(f"Rate, {several} at once", f"{rate / alone:.2f} ({rate:.0f} tokens per second)"))
            figure.rows.append(Row(f"Statements per token, {several} at once", f"{statements:.3f}"))
            figure.rows.append(Row(f"Memory of each in MiB, {several} at once", f"{memory:.0f}"))
            if several > 1:
                figure.rows.append(Row(f"Shares, {several} at once", f"{min(shares):.2f} to {max(shares):.2f}"))
            least, most = min(seen)[0], max(most for _least, most in seen)
            figure.rows.append(Row(f"Renewals per token, {several} at once", f"{least} to {most}"))
    return figure


def _sweeps_at_once(site: Site, url: str, filler: Contender, several: int) -> dict[str, Any]:
    filler.measure()
    site.airisk.renewed()
    with ExitStack() as stack, ThreadPoolExecutor(several) as pool:
        contenders = [stack.enter_context(site.contender("sweeps", "sweep", "0", url=url)) for _ in range(several)]
        for contender in contenders:
            contender.wait_until_ready()
        measured = list(pool.map(Contender.measure, contenders))
    return {
        "seconds": max(each["ended"] for each in measured) - min(each["began"] for each in measured),
        "queries": sum(each["queries"] for each in measured),
        "memory": max(each["memory"] for each in measured),
        "shares": [each["renewed"] for each in measured],
        **site.airisk.renewed(),
    }


def renewal(site: Site) -> Figure:
    number, few = "3000", "100"
    figure = Figure(
        "Renewing 3,000 tokens, AIRisk 20 ms away",
        "Tokens per second; django-esi = 1, higher is better; 3 rounds. Ours and the threads use 32 workers and two "
        "requests per token. django-esi does its bulk refresh of 100 tokens, one after the other, with one request per "
        "token and without its check of signatures. The threads save nothing: with http.client they are the upper "
        "bound, and with requests they show what its own cost leaves of that.",
    )
    figure.scale = "tokens per second, django-esi = 1"
    site.airisk.delay(0.02)
    with_esi = "airisk_oauth,esi"
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for kind in (POSTGRESQL, SQLITE):
            contenders[f"{OURS} {kind}"] = site.contender("renewal", OURS, number, kind=kind)
            contenders[f"{ESI} {kind}"] = site.contender("renewal", ESI, few, kind=kind, apps=with_esi)
        contenders["bare threads"] = site.contender("renewal", "bare", number)
        contenders["threads with requests"] = site.contender("renewal", "requests", number)
        for contender in contenders.values():
            stack.enter_context(contender)
        rounds = interleave(contenders, 3)
    for kind in (POSTGRESQL, SQLITE):
        _on_one_database(figure, rounds, kind)
    seen = {f"{measured['least']} to {measured['most']}" for each in rounds for measured in each.values()}
    figure.rows.append(Row("Renewals per token that AIRisk saw in a round", ", ".join(sorted(seen))))
    return figure


def _on_one_database(figure: Figure, rounds: Rounds, kind: str) -> None:
    other = SQLITE if kind == POSTGRESQL else POSTGRESQL
    here = [
        {name.removesuffix(f" {kind}"): measured for name, measured in each.items() if not name.endswith(other)}
        for each in rounds
    ]
    rates, queries = pick(here, "rate"), medians(pick(here, "queries"))
    figure.add(f"Rate, {kind}", ratios(rates, ESI), "{:.1f}")
    figure.bars = figure.bars or ratios(rates, ESI)
    figure.add(f"Tokens per second, {kind}", medians(rates), "{:.0f}")
    figure.add(f"Statements per token, {kind}", {name: queries[name] for name in (OURS, ESI)}, "{:.3f}")


def size(site: Site, many: int = 15_000) -> Figure:
    figure = Figure(
        f"Renewing {many:,} tokens compared with {FEW:,}",
        f"Ours only; {FEW:,} tokens = 1. AIRisk answers at once, so the cost is our own. Each sweep is the first in a "
        f"fresh process, on a database that another process has filled. {FEW:,} tokens are swept before and after, and "
        "the mean is taken. Memory is how much the process's peak has grown.",
    )
    site.airisk.delay(0)
    for kind in (POSTGRESQL, SQLITE):
        few, lot = site.databases.new(kind), site.databases.new(kind)
        for url, number in ((few, FEW), (lot, many)):
            with site.contender("renewal", OURS, str(number), url=url) as contender:
                contender.wait_until_ready()
        before, large, after = (
            _first_sweep(site, url, number) for url, number in ((few, FEW), (lot, many), (few, FEW))
        )
        seconds = (1 / large["rate"]) / statistics.mean([1 / before["rate"], 1 / after["rate"]])
        memory = large["memory"] / statistics.mean([before["memory"], after["memory"]])
        figure.rows.append(Row(f"Time per token, {kind}", f"{seconds:.2f}"))
        figure.rows.append(Row(f"Memory, {kind}", f"{memory:.2f} ({large['memory']:.0f} MiB)"))
    return figure


def _first_sweep(site: Site, url: str, number: int) -> Mapping[str, Any]:
    with site.contender("renewal", "prepared", str(number), url=url) as contender:
        contender.wait_until_ready()
        return contender.measure()


def herd(site: Site) -> Figure:
    callers, latency = 20, 1
    figure = Figure(
        f"{callers} callers sharing one token, PostgreSQL",
        f"{callers} threads call at the same moment, each with a session of its own, all with the same stored token; 3 "
        f"rounds. AIRisk's OAuth endpoints answer after {latency} s, and waits are multiples of that. Our renewal "
        "takes two such requests; with a refresh token, it takes one. A token that expires soon does so in 50 s, which "
        "requests-oauthlib does not check.",
    )
    figure.scale = "renewals of an expired token"
    for window, words in ((-60, "expired"), (50, "expires soon")):
        with site.contender("herd", str(callers), str(latency), str(window), kind=POSTGRESQL) as contender:
            contender.wait_until_ready()
            rounds = [contender.measure() for _ in range(3)]
        renewals, median, slowest = (medians(pick(rounds, key)) for key in ("renewals", "median", "slowest"))
        figure.add(f"Renewals caused, {words}", renewals, "{:.0f}")
        figure.add(f"Median wait, {words}", median)
        figure.add(f"Slowest wait, {words}", slowest)
        figure.bars = figure.bars or renewals
    return figure


def startup(_site: Site) -> Figure:
    number = 25
    rounds = fresh.rounds(number)
    heavy = rounds[0][OURS]["heavy"]
    figure = Figure(
        "django.setup()",
        f"A plain project with the admin, in fresh processes; plain Django = 1, lower is better; {number} rounds. One "
        "row is without the garbage collector, because it is chance whether a full collection falls into so short a "
        "time.",
    )
    figure.scale = "time, plain Django = 1"
    for key, what in ((fresh.WITHOUT_GC, "Time, no garbage collection"), (fresh.WITH_GC, "Time")):
        figure.add(what, ratios(pick(rounds, key), fresh.PLAIN))
        figure.bars = figure.bars or ratios(pick(rounds, key), fresh.PLAIN)
    figure.rows.append(Row("requests or cryptography imported", ", ".join(heavy) or "neither"))
    return figure


def admin(site: Site) -> Figure:
    few, many, times = 1_000, 1_000_000, 5
    figure = Figure(
        f"The admin's list of {many:,} tokens",
        f"GET as a superuser with Django's test client; ours only, {few:,} rows = 1; one token in ten has expired; "
        f"{times} rounds of 3 visits, after a first one. Tokens in a list this long are counted once a minute.",
    )
    with ExitStack() as stack:
        contenders = {
            f"{kind} {rows}": stack.enter_context(site.contender("admin_list", str(rows), kind=kind))
            for kind in (POSTGRESQL, SQLITE)
            for rows in (few, many)
        }
        rounds = interleave(contenders, times)
    for kind in (POSTGRESQL, SQLITE):
        for page in rounds[0][f"{kind} {few}"]:
            visits: Rounds = [{name: measured[page] for name, measured in each.items()} for each in rounds]
            ratio = ratios(pick(visits, "seconds"), f"{kind} {few}")[f"{kind} {many}"]
            seconds, queries = (medians(pick(visits, key))[f"{kind} {many}"] for key in ("seconds", "queries"))
            text = f"{ratio:.2f} ({1000 * seconds:.0f} ms, {queries:.0f} statements)"
            figure.rows.append(Row(f"Time, {page}, {kind}", text))
    return figure


def answers(site: Site) -> Figure:
    number, few, crowd = 3, 20, 200
    figure = Figure(
        "An agent's answer, relayed to browsers",
        "By one worker process: uvicorn in an asynchronous view, gunicorn with 32 threads in a synchronous one; a view "
        f"that copies the bytes by hand = 1, lower is better. {number} rounds. Delay: from the moment AIRisk sends the "
        "first piece until it arrives, one answer at a time. Processor time: per piece, "
        f"{few} answers of 100 pieces at once. {crowd} at once: 100 pieces of 1 kB each within 10 s; the delay of all "
        "pieces, and how much the worker's memory grew from the second third of that time to the last.",
    )
    for server in ("uvicorn", "gunicorn"):
        with site.contender("answers", server, "cost", str(few)) as contender:
            contender.wait_until_ready()
            rounds = [contender.measure() for _ in range(number)]
        figure.add(f"Delay of the first piece in ms, {server}", _in_ms(pick(rounds, "delay")), "{:.1f}")
        figure.add(f"Processor time, {server}", ratios(pick(rounds, "cpu"), BY_HAND))
    with site.contender("answers", "uvicorn", "crowd", str(crowd)) as contender:
        contender.wait_until_ready()
        rounds = [contender.measure() for _ in range(number)]
    figure.add(f"Complete answers of {crowd} at once, uvicorn", medians(pick(rounds, "complete")), "{:.0f}")
    figure.add("Delay in ms", _in_ms(pick(rounds, "delay")), "{:.1f}")
    figure.add("Memory growth in MiB", medians(pick(rounds, "growth")), "{:.1f}")
    return figure


def _in_ms(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: 1000 * seconds for name, seconds in medians(rounds).items()}


def take(site: Site, many: int) -> Iterable[Figure]:
    yield calls(site)
    yield async_calls(site)
    yield startup(site)
    yield connecting(site)
    yield herd(site)
    yield renewal(site)
    yield sweeps(site)
    yield admin(site)
    yield answers(site)
    yield size(site, many)
