"""What can be wrong with the functions that settings name, as system checks.

Most of Django's commands begin with checks, ``migrate`` among them, when the tables that a function reads may not be
there yet. So only ``check --deploy`` calls the functions.
"""

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own name

from .. import conf, sealing
from .source import SettingUnavailable

_MOMENT = "Find out why with check_airisk. Ignore this where the checks run without the server that the function asks."


def check_paths() -> Iterator[CheckMessage]:
    for source in (conf.DEPLOYMENTS, sealing.KEYS):
        if wrong := source.path_problem():
            yield Error(
                wrong,
                hint="Set it to the dotted path of a function without arguments, or to the value itself.",
                id="airisk_oauth.E010",
            )


def check_values() -> Iterator[CheckMessage]:
    """Call the functions, and yield what is wrong with what they return."""
    for source in (conf.DEPLOYMENTS, sealing.KEYS):
        if source.path_problem() is None and (failure := source.failure()):
            yield Warning(failure, hint=_MOMENT, id="airisk_oauth.W015")
    if conf.DEPLOYMENTS.path is not None:
        yield from check_deployments()


def check_deployments() -> Iterator[CheckMessage]:
    try:
        for problem in conf.problems():
            yield Error(problem.message, hint=problem.hint, id=f"airisk_oauth.E{problem.number:03}")
    except SettingUnavailable:
        return
