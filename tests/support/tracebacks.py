"""The variables that crash reports show."""

from pathlib import Path

from django.views.debug import ExceptionReporter

_TESTS = Path(__file__).resolve().parent.parent


def shown_variables(error: BaseException) -> str:
    """Return the variables in Django's debug page and crash mails, without those of the tests' own frames."""
    frames = ExceptionReporter(None, type(error), error, error.__traceback__).get_traceback_data()["frames"]
    return "\n".join(str(frame["vars"]) for frame in frames if Path(frame["filename"]).parent != _TESTS)
