"""Running ``check_airisk``, and who it says can fix a fault."""

import io
from typing import Any

from django.core.management import CommandError, call_command

from airisk_oauth.models import AIRiskToken

SITE, SERVER, STAFF, ADMINISTRATOR, NETWORK, SUPPORT = (
    "Site settings:",
    "Server administrator:",
    "Site staff:",
    "AIRisk administrator:",
    "Network administrator:",
    "AIRisk support:",
)


def set_default(settings: Any, **options: Any) -> None:
    """Change options of the default deployment."""
    default = {**settings.AIRISK_OAUTH["default"], **options}
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, "default": default}


def check(**options: Any) -> tuple[int, str]:
    """Run the command for one deployment, and check that it stores nothing and shows no secret."""
    before = list(AIRiskToken.objects.values())
    out = io.StringIO()
    status = 0
    try:
        call_command("check_airisk", **{"deployment": "default", **options}, stdout=out)
    except CommandError as error:
        status = error.returncode
        out.write(str(error))
    said = out.getvalue()
    assert all(line.isprintable() for line in said.split("\n"))
    assert list(AIRiskToken.objects.values()) == before
    assert not [secret for secret in ("secret-1", "code-canary", "token-canary", "eyJ") if secret in said]
    return status, said


def fault(**options: Any) -> tuple[str, str]:
    """Return the only fault and its remedy, after checking that the steps before it succeeded."""
    status, said = check(**options)
    assert status == 1
    lines = said.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("  FAULT")]
    assert all(line.startswith(("default:", "  ok")) for line in lines[:at])
    return lines[at].removeprefix("  FAULT "), lines[at + 1].strip()
