"""AIRisk's token endpoint: its form, its answer, and when the token expires.

Pure functions: no I/O, no clock. No error repeats anything of what was read.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from ..exceptions import AIRiskInvalidResponse
from .deployment import Deployment
from .messages import OAuthResponse, Secret, TokenGrant, is_access_token
from .refusals import json_fields, refusal

#: The longest believable lifetime of a token.
MAX_LIFE: Final = timedelta(days=3653)

# RFC 3339, with up to .NET's seven fractional digits. The offset may be missing: .NET writes none for a time of unknown
# kind. Python itself reads more of ISO 8601, such as 24:00 from 3.14 on.
_RFC3339: Final = r"(?a)\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{1,7})?(?:[Zz]|[+-]\d\d:\d\d)?"


def token_form(deployment: Deployment, *, code: str, userid: str | None) -> dict[str, str]:
    """Return the form that exchanges a code for a token (RFC 6749, section 4.1.3; AIRisk, "token endpoint").

    :param userid: ``None`` for the application's token.
    """
    form = {
        "code": Secret(code),
        "client_id": deployment.client_id,
        "client_secret": Secret(deployment.client_secret),
        "redirect_uri": deployment.redirect_uri,
    }
    if userid is not None:
        form["userid"] = userid
    return {**deployment.extra_token_params, **form}


def parse_token_response(reply: OAuthResponse, *, now: datetime, secrets: tuple[str, ...] = ()) -> TokenGrant:
    """Return the token from the token endpoint's answer (RFC 6749, section 5; AIRisk, "token endpoint").

    :param now: the time (aware) that ``expires_in`` counts from.
    :param secrets: what was sent, and must not be repeated in an error.
    :raises AIRiskRefused: 4xx other than 429.
    :raises AIRiskUnavailable: 5xx or 429.
    :raises AIRiskInvalidResponse: anything else that is not a token with a believable expiry.
    """
    if reply.status >= 400:
        raise refusal(reply, secrets=secrets)
    if reply.status != 200:
        raise AIRiskInvalidResponse(f"AIRisk's token endpoint answered with status {reply.status}.")
    fields = json_fields(reply, "access_token", "expiration", "expires_in")
    if fields is None:
        raise AIRiskInvalidResponse("AIRisk's answer is not the JSON that its documentation shows.")
    token, expiration, expires_in = fields
    if not isinstance(token, Secret) or not is_access_token(token):
        raise AIRiskInvalidResponse("AIRisk's answer has no usable access_token.")
    return TokenGrant(token, _expiry(expiration, expires_in, now))


def _expiry(expiration: object, expires_in: object, now: datetime) -> datetime | None:
    try:
        if expiration is not None:
            expiry = _parse_time(expiration)
        elif expires_in is not None:
            expiry = now + timedelta(seconds=_seconds(expires_in))
        else:
            return None
    except (ValueError, OverflowError):
        raise AIRiskInvalidResponse("AIRisk's answer has an expiry that cannot be read.") from None
    if not now < expiry <= now + MAX_LIFE:
        raise AIRiskInvalidResponse("AIRisk's answer has an expiry that is past or too far away.")
    return expiry


def _parse_time(value: object) -> datetime:
    if not isinstance(value, str) or not re.fullmatch(_RFC3339, value):
        raise ValueError
    time = datetime.fromisoformat(value.upper())
    # AIRisk documents a "UTC-formatted datetime"; astimezone() alone would assume this server's time zone.
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _seconds(value: object) -> float:
    """Read ``expires_in``: a number by RFC 6749, and often a string of digits."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value, re.ASCII):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError  # noqa: TRY004 - handled as every other wrong value
    return float(value)
