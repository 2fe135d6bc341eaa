"""Rounds of measurements, in each of which every contender measures once, and their medians."""

import statistics
from collections.abc import Mapping

from .contenders import Contender, Measurement

#: What each contender measured in each round.
Rounds = list[dict[str, Measurement]]


def interleave(contenders: Mapping[str, Contender], rounds: int) -> Rounds:
    """Let every contender measure once in each round, so that a slow moment of the machine affects all of them."""
    for contender in contenders.values():
        contender.wait_until_ready()
    return [{name: contender.measure() for name, contender in contenders.items()} for _ in range(rounds)]


def pick(rounds: Rounds, key: str) -> list[dict[str, float]]:
    return [{name: measured[key] for name, measured in each.items()} for each in rounds]


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def ratios(rounds: list[dict[str, float]], base: str) -> dict[str, float]:
    """Return for each contender the median of its ratios to the base in all rounds."""
    return medians([{name: value / each[base] for name, value in each.items()} for each in rounds])
