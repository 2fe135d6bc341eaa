"""What the e-mails about lost connections say, and to whom. Nothing is sent here."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils.translation import gettext, override

from .. import conf
from ..connecting import hosts
from ..exceptions import AIRiskRefused
from ..models import AIRiskToken
from ..tokens.report import BY_HAND, FOR_A_PERSON, PERSON_ASKED_FOR, USER_REFUSED
from .loss import Loss

#: How many users of a deployment an e-mail to the managers names.
NAMED: Final = 50
#: So that no absence message answers (RFC 3834).
_HEADERS: Final = {"Auto-Submitted": "auto-generated"}


def letter_to_user(loss: Loss, user: Any, language: str) -> EmailMessage | None:
    """Return the e-mail to a user, or ``None`` where there is nothing to write, or no address to write to."""
    deployment = conf.deployment(loss.deployment)
    connect_url = hosts.connect_url(deployment) if loss.connect_url else None
    address = _address_of(user)
    if connect_url is None or not address or not getattr(user, "is_active", True):
        return None
    context = {"user": user, "deployment": loss.deployment, "site": _site(loss.deployment), "connect_url": connect_url}
    with override(language):
        return _letter("connection_lost", {**context, "airisk": _name(loss.deployment)}, to=[address])


def letter_to_managers(losses: "list[Loss]", users: Mapping[Any, Any]) -> EmailMessage:
    """Return one e-mail to ``MANAGERS`` about all of these.

    :param users: by primary key.
    """
    by_alias: dict[str, list[Loss]] = defaultdict(list)
    for loss in losses:
        by_alias[loss.deployment].append(loss)
    with override(settings.LANGUAGE_CODE):
        context = {
            "site": _site(losses[0].deployment),
            "deployments": [_account(alias, found, users) for alias, found in by_alias.items()],
            "users": sum(loss.user_id is not None for loss in losses),
            "application": any(loss.user_id is None for loss in losses),
        }
        # Before Django 6.0 they are pairs of name and address.
        to = [each if isinstance(each, str) else each[1] for each in settings.MANAGERS]
        letter = _letter("connections_lost", context, to=to, from_email=settings.SERVER_EMAIL)
    letter.subject = f"{settings.EMAIL_SUBJECT_PREFIX}{letter.subject}"
    return letter


def _letter(name: str, context: dict[str, Any], **fields: Any) -> EmailMessage:
    subject, text, page = (
        render_to_string(f"airisk_oauth/email/{name}{ending}", context) for ending in ("_subject.txt", ".txt", ".html")
    )
    letter = EmailMultiAlternatives(" ".join(subject.split()), f"{text.strip()}\n", headers=_HEADERS, **fields)
    letter.attach_alternative(page, "text/html")
    return letter


def _address_of(user: Any) -> str:
    field = getattr(user, "get_email_field_name", lambda: "email")()
    return getattr(user, field, None) or ""


def _site(alias: str) -> str:
    """Return the address by which people know this site."""
    return urlsplit(conf.deployment(alias).redirect_uri).netloc


def _name(alias: str) -> str:
    return "AIRisk" if alias == conf.DEFAULT_ALIAS else gettext("AIRisk “%(alias)s”") % {"alias": alias}


def _account(alias: str, losses: "list[Loss]", users: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what the managers are told about one deployment."""
    of_users = sorted(
        (loss for loss in losses if loss.user_id is not None), key=lambda loss: str(users.get(loss.user_id, ""))
    )
    of_application = [loss for loss in losses if loss.user_id is None]
    lost = AIRiskToken.objects.primary().filter(deployment=alias, user__isnull=False, lost_at__isnull=False)
    return {
        "airisk": _name(alias),
        "command": f"python manage.py check_airisk --deployment {alias}",
        "application": _why(of_application[0]) if of_application else "",
        "users": [(str(users.get(loss.user_id, "")), str(loss.user_id), _why(loss)) for loss in of_users[:NAMED]],
        "number": len(of_users),
        "more": max(len(of_users) - NAMED, 0),
        "total": lost.count(),
    }


def _why(loss: Loss) -> str:
    if isinstance(loss.error, AIRiskRefused):
        # Each user's trace id is in the admin.
        trace_id = loss.error.trace_id if loss.user_id is None else ""
        words = (gettext(USER_REFUSED), loss.error.status, loss.error.reason, trace_id)
        return " · ".join(str(word) for word in words if word)
    if str(loss.error) in FOR_A_PERSON:
        return gettext(str(loss.error))
    return gettext(PERSON_ASKED_FOR if conf.deployment(loss.deployment).silent_renewal else BY_HAND)
