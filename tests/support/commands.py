"""The command ``refresh_airisk_tokens``, run as from a shell."""

import io
import json
from typing import Any

from django.core.management import CommandError, call_command

COUNTED = ["renewed", "refused", "unavailable", "skipped", "paused"]


def refresh(*args: str, **options: Any) -> tuple[int, str]:
    """Run the command, and return its exit status and what it wrote to stdout."""
    out = io.StringIO()
    try:
        call_command("refresh_airisk_tokens", *args, stdout=out, **options)
    except CommandError as error:
        return error.returncode, out.getvalue()
    return 0, out.getvalue()


def refresh_json(**options: Any) -> tuple[int, dict[str, Any]]:
    status, out = refresh(json=True, **options)
    return status, json.loads(out)
