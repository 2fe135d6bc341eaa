"""The reasons why a person may not be connected, with what the site tells them."""

from enum import Enum
from http import HTTPStatus
from typing import Final, Self

from django.utils.translation import gettext_noop

_BROKEN_LINK: Final = (
    gettext_noop("This link does not work"),
    gettext_noop(
        "It is incomplete or was changed on the way. Nothing has happened; you can connect again. If this happens "
        "again, tell an administrator of this site."
    ),
)


class Reason(Enum):
    """Why a person could not be connected.

    The value is a code that never changes. The status is that of the problem's page, whose title and text are in
    English here, and translated when they are shown. Scripts get code, status and both texts as JSON.
    """

    SIGNED_OUT = (
        "signed_out",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You are not signed in here"),
        gettext_noop("Sign in with your own account in this browser, then connect again."),
    )
    AT_ANOTHER_HOST = (
        "at_another_host",
        HTTPStatus.CONFLICT,
        gettext_noop("This is not the address that AIRisk sends you back to"),
        gettext_noop("Open this site at the address that is registered with AIRisk, then connect there."),
    )
    NO_IDENTITY = (
        "no_identity",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You have no AIRisk identity yet"),
        gettext_noop("Ask an administrator of this site to enter which AIRisk user you are, then connect again."),
    )
    MALFORMED_CALLBACK = "malformed_callback", HTTPStatus.BAD_REQUEST, *_BROKEN_LINK
    UNKNOWN_DEPLOYMENT = "unknown_deployment", HTTPStatus.NOT_FOUND, *_BROKEN_LINK
    CALLBACK_REJECTED = (
        "callback_rejected",
        HTTPStatus.FORBIDDEN,
        gettext_noop("This connection was not started here"),
        gettext_noop(
            "It was started with another account, or too long ago. Nothing has happened; you can connect again."
        ),
    )
    SIGNED_IN_AGAIN = (
        "signed_in_again",
        HTTPStatus.FORBIDDEN,
        gettext_noop("Please connect once more"),
        gettext_noop(
            "You probably signed out and in again after you had started to connect, or you started in another browser. "
            "Nothing has happened; you can connect again."
        ),
    )
    STATE_EXPIRED = (
        "state_expired",
        HTTPStatus.GONE,
        gettext_noop("That took too long"),
        gettext_noop("A connection has to be finished within ten minutes. Please connect again."),
    )
    STATE_SPENT = (
        "state_spent",
        HTTPStatus.GONE,
        gettext_noop("This connection was already tried"),
        gettext_noop("It did not succeed, and cannot be used a second time. Please connect again."),
    )
    IDENTITY_CHANGED = (
        "identity_changed",
        HTTPStatus.FORBIDDEN,
        gettext_noop("Your AIRisk identity has changed"),
        gettext_noop("It changed while you were connecting, so nothing was saved. Please connect again."),
    )
    NOT_PERMITTED = (
        "not_permitted",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You no longer have permission to do this"),
        gettext_noop(
            "Only staff with permission to change tokens can obtain the application's token. Nothing was saved."
        ),
    )
    ACCESS_DENIED = (
        "access_denied",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You did not allow the connection"),
        gettext_noop("Nothing was saved. If you did allow it on AIRisk, tell an administrator of this site."),
    )
    AIRISK_REFUSED = (
        "airisk_refused",
        HTTPStatus.FORBIDDEN,
        gettext_noop("AIRisk refused the connection"),
        gettext_noop("You can try again. If it happens again, tell an administrator of this site."),
    )
    AIRISK_UNAVAILABLE = (
        "airisk_unavailable",
        HTTPStatus.BAD_GATEWAY,
        gettext_noop("AIRisk could not be reached"),
        gettext_noop("It may be down for a moment. Please try again in a few minutes."),
    )
    AIRISK_INVALID_RESPONSE = (
        "airisk_invalid_response",
        HTTPStatus.BAD_GATEWAY,
        gettext_noop("AIRisk's answer could not be used"),
        gettext_noop("Please try again. If it happens again, tell an administrator of this site."),
    )

    SETTINGS_UNAVAILABLE = (
        "settings_unavailable",
        HTTPStatus.SERVICE_UNAVAILABLE,
        gettext_noop("AIRisk is not available on this site at the moment"),
        gettext_noop("Nothing was saved. Please try again in a few minutes."),
    )

    status: HTTPStatus
    title: str
    text: str

    def __new__(cls, code: str, status: HTTPStatus, title: str, text: str) -> Self:
        reason = object.__new__(cls)
        reason._value_ = code
        reason.status, reason.title, reason.text = status, title, text
        return reason

    @property
    def rejects_callback(self) -> bool:
        """Whether a callback with this problem is turned away: AIRisk is not called, and nothing is stored."""
        return self in _REJECTING_CALLBACKS


_REJECTING_CALLBACKS: Final = frozenset(
    {
        Reason.SIGNED_OUT,
        Reason.MALFORMED_CALLBACK,
        Reason.UNKNOWN_DEPLOYMENT,
        Reason.CALLBACK_REJECTED,
        Reason.SIGNED_IN_AGAIN,
        Reason.STATE_EXPIRED,
        Reason.STATE_SPENT,
        Reason.SETTINGS_UNAVAILABLE,
    }
)
