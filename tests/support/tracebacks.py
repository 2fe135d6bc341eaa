"""What crash reports show."""

from pathlib import Path

from django.views.debug import ExceptionReporter

_TESTS = Path(__file__).resolve().parent.parent


def shown_variables(error: BaseException) -> str:
    """What Django's debug page and crash mails show of an error's frames, those of the tests left out."""
    frames = ExceptionReporter(None, type(error), error, error.__traceback__).get_traceback_data()["frames"]
    return "\n".join(str(frame["vars"]) for frame in frames if Path(frame["filename"]).parent != _TESTS)
