"""What crash reports show."""

from pathlib import Path

from django.views.debug import ExceptionReporter

_TESTS = Path(__file__).resolve().parent.parent


def shown_variables(error: BaseException) -> str:
    """Return the variables that Django's debug page and crash mails show for an error, except those of the tests."""
    frames = ExceptionReporter(None, type(error), error, error.__traceback__).get_traceback_data()["frames"]
    return "\n".join(str(frame["vars"]) for frame in frames if _TESTS not in Path(frame["filename"]).parents)
