"""The row of one owner's token, as a caller may use it. Nothing here calls AIRisk."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import Error as DatabaseError
from django.utils import timezone

from .. import conf, sealing
from ..database.expiry import is_recent
from ..database.transactions import in_transaction, reconnecting, retrying
from ..events import log_unreadable
from ..exceptions import AIRiskError, AIRiskRefused, ConnectionRequired
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..oauth.messages import Secret
from ..sealing import Unreadable
from ..userids import userid_of
from . import losses, unwritten
from .turns import Key

#: How long a token is used before its row is read again: a disconnect is noticed within this time.
RECHECK_AFTER: Final = timedelta(seconds=60)
#: The same while a renewal is due, because another process may be renewing the token.
RECHECK_AFTER_WHILE_DUE: Final = timedelta(seconds=5)
#: For how long a failed renewal is repeated to callers who need a new token, without another call.
REPEAT_ERROR_FOR: Final = timedelta(seconds=5)
#: After AIRisk has rejected a token that was just renewed, no 401 renews the token again for this long.
REJECTED_NEW_TOKEN_PAUSE: Final = timedelta(seconds=60)
#: How often the time of a token's last use is written.
USE_IS_NOTED_EVERY: Final = timedelta(hours=1)
#: A traceback shows it below the error, to a developer who has forgotten our URLs.
_NO_PAGE: Final = (
    'The site has no page to connect on. Add path("airisk/", include("airisk_oauth.urls")) to urlpatterns.'
)


class _Application:
    """The owner of tokens that belong to no user. Not ``None``: a missing user must never become the application."""

    def __repr__(self) -> str:
        return "the application"


APPLICATION: Final = _Application()


class Found(NamedTuple):
    """A token as it is stored.

    :ivar is_usable: whether the caller can use it as it is.
    :ivar in_transaction: whether the caller is inside a transaction, where nothing may be written.
    """

    token: AIRiskToken
    is_usable: bool
    in_transaction: bool


class StoredToken:
    """One owner's token on one deployment.

    :param owner: a user, who may be lazy, or :data:`APPLICATION`.
    """

    def __init__(self, deployment: Deployment, owner: Any) -> None:
        self.deployment = deployment
        self.owner = owner

    @property
    def using(self) -> str:
        """The database that holds the token; a router may choose another one for each caller."""
        using: str = AIRiskToken.objects.primary().db
        return using

    def check(self, *, before_call: bool = False) -> AIRiskToken:
        """Return the stored token if a call could use or renew it, as far as the row tells; AIRisk is not asked.

        :param before_call: whether a call follows. It asks AIRisk again once the last refusal is some seconds old, so
            such a refusal is no obstacle: its cause may be gone.
        :raises ConnectionRequired: a person has to connect first.
        """
        token = self.read()
        self.open(token)
        by_hand = not self.deployment.silent_renewal
        is_asked_again = not by_hand and before_call and not self._has_just_failed(token)
        if token.needs_person and (by_hand or token.is_expired) and not is_asked_again:
            raise self.for_caller(token.last_error())
        if token.is_expired:
            self.require_silent_renewal()
        return token

    def read(self) -> AIRiskToken:
        """Return the owner's row; for the application, before its first token, an empty one.

        :raises ConnectionRequired: there is no row of the user's, or it is not for who the user is on AIRisk now.
        """
        token = self._read_application() if self.owner is APPLICATION else self._read_user()
        return unwritten.applied(token, self.deployment, self.using)

    def _read_user(self) -> AIRiskToken:
        userid, token = self._userid(), self.find_row()
        if token is None:
            raise self.connection_required("This user has not connected to AIRisk.")
        if token.userid != userid:
            raise self.connection_required("This user's AIRisk identity has changed since they connected.")
        if not token.is_from(self.deployment):
            raise self.connection_required("This user connected to AIRisk at another address than BASE_URL.")
        return token

    def _read_application(self) -> AIRiskToken:
        alias, rows = self.deployment.alias, AIRiskToken.objects.primary()
        token: AIRiskToken | None = rows.of_application(alias).first()
        if token is None and not in_transaction(rows.db):
            # There to be leased, so that many callers cause one request.
            token, _created = retrying(rows.db, lambda: rows.get_or_create(user=None, deployment=alias))
        return token or AIRiskToken(deployment=alias)

    def _userid(self) -> str:
        # A framework may leave no user at all on a request, and one that was not saved has no key.
        is_saved = getattr(self.owner, "is_authenticated", False) and self.owner.pk is not None
        userid = self.find_userid() if is_saved else None
        if userid is None:
            raise self.connection_required("This user has no identity on AIRisk.")
        return userid

    def find_userid(self) -> str | None:
        return userid_of(self.deployment, self.owner)

    def find_row(self) -> AIRiskToken | None:
        """Return the user's row as it is in the database."""
        rows = AIRiskToken.objects.using(self.using)
        token: AIRiskToken | None = rows.owned_by(self.owner.pk, self.deployment.alias).first()
        return token

    def look(self, rejected: str | None) -> Found:
        """Return the stored token, read on a new connection where the database has closed the old one.

        :param rejected: a token that AIRisk has just answered with 401, and so is not usable.
        """
        token = reconnecting(self.using, self.read)
        return Found(token, self._is_usable(token, rejected), in_transaction(self.using))

    def _is_usable(self, token: AIRiskToken, rejected: str | None) -> bool:
        now = timezone.now()
        if not token.sealed or token.is_expired_at(now) or not token.is_from(self.deployment):
            return False
        if rejected is None or is_recent(token.refused_anew_at, now, REJECTED_NEW_TOKEN_PAUSE):
            return True
        return self.open(token) != rejected

    def is_due(self, token: AIRiskToken) -> bool:
        """Tell whether a valid token should be renewed early."""
        now, renew_at = timezone.now(), token.renew_at(self.deployment.renew_before)
        return self.deployment.silent_renewal and renew_at is not None and renew_at <= now and not token.is_paused(now)

    def trusted_until(self, token: AIRiskToken) -> datetime:
        """Return until when a token is used without reading its row again."""
        now, renew_at = timezone.now(), token.renew_at(self.deployment.renew_before)
        if renew_at is None or token.expires_at is None:
            return now + RECHECK_AFTER
        if renew_at > now:
            return min(now + RECHECK_AFTER, renew_at)
        return min(now + RECHECK_AFTER_WHILE_DUE, token.expires_at - token.skew)

    def open(self, token: AIRiskToken) -> Secret:
        """Decrypt a token.

        :raises ConnectionRequired: no key of this site decrypts it.
        """
        try:
            return token.access_token
        except Unreadable as error:
            log_unreadable(token, error)
            raise self.connection_required("The stored token cannot be decrypted.") from None

    def require_key(self, token: AIRiskToken) -> None:
        """Raise as :meth:`open` does if a new token must not replace this one, or could not be encrypted."""
        if token.sealed:
            # A host with a wrong key must not replace what the others can still decrypt.
            self.open(token)
        else:
            sealing.key_ids()

    def take(self, token: AIRiskToken) -> Secret:
        """Decrypt a token that is about to be used, and note that use from time to time."""
        if not is_recent(token.last_used_at, timezone.now(), USE_IS_NOTED_EVERY):
            self.write(token, {"last_used_at": timezone.now()})
        return self.open(token)

    def note_rejected_new_token(self) -> None:
        """Note that AIRisk rejected a call with a token that had just been renewed for it."""
        # The caller waits for AIRisk's answer, whatever has happened to the row.
        with suppress(DatabaseError, ConnectionRequired):
            self.write(self.read(), {"refused_anew_at": timezone.now()})

    def write(self, token: AIRiskToken, values: dict[str, Any], announce: unwritten.Announce | None = None) -> None:
        """Write these columns now, or later where they cannot be written now; never fails because of the database.

        :param announce: called with the row once they are written.
        """
        unwritten.keep(self.key_of(token), token, values, self.using, announce)
        unwritten.write()

    def key_of(self, token: AIRiskToken) -> Key:
        return unwritten.key_of(token, self.deployment, self.using)

    def require_silent_renewal(self, useless: AIRiskToken | None = None) -> None:
        """Raise ``ConnectionRequired`` where the deployment's tokens are not renewed silently.

        :param useless: a token that has expired or was rejected; that is noted on its row, because a rejected token may
            look valid.
        """
        if self.deployment.silent_renewal:
            return
        required = self.connection_required(
            "The stored token has expired or was rejected, and is not renewed silently."
        )
        if useless is not None and not useless.needs_person:
            values = useless.record_failure(required, timezone.now())
            self.write(useless, values, lambda row: losses.note_failure(row, required))
        raise required

    def raise_known_error(self, token: AIRiskToken) -> None:
        """Raise without asking AIRisk where renewing is switched off, or has failed a moment ago."""
        self.require_silent_renewal(token)
        if self._has_just_failed(token):
            raise self.for_caller(token.last_error())

    def _has_just_failed(self, token: AIRiskToken) -> bool:
        return is_recent(token.failed_at, timezone.now(), REPEAT_ERROR_FOR)

    def connection_required(self, message: str) -> ConnectionRequired:
        alias = self.deployment.alias
        url = None if self.owner is APPLICATION else conf.page_url("connect", alias)
        error = ConnectionRequired(message, deployment=alias, connect_url=url)
        if url is None and self.owner is not APPLICATION:
            error.add_note(_NO_PAGE)
        return error

    def for_caller(self, error: AIRiskError) -> AIRiskError:
        """Return a failed renewal as its caller gets it: a refused user can connect again, the application cannot."""
        refused = isinstance(error, AIRiskRefused) and self.owner is not APPLICATION
        if isinstance(error, ConnectionRequired) or refused:
            required = self.connection_required(f"The stored token could not be renewed. {error}")
            required.__cause__ = error
            return required
        return error
