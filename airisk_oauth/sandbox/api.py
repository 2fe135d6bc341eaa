"""A few calls of AIRisk's API: enough to see a connection work, and to see it fail.

Source: https://docs.aicrisk.com/api-overview/airisk-api-oauth2-authentication, usage of the access token.
"""

import hashlib
from collections.abc import Iterator

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase

from .answers import answer_json, problem
from .conversations import MODELS, conversations_of
from .endpoint import Call, endpoint
from .registry import display_name
from .world import Caller, world

_ANSWER = (
    "The draft was read against your acceptable-use policy.",
    "Two passages name a natural person and were masked before the model saw them.",
    "No other finding. A supervisor has approved this answer.",
)


@endpoint("/api/GetConversations", "GET")
def get_conversations(call: Call) -> HttpResponseBase:
    """The person's recent conversations; needs a user-specific token."""
    caller = _caller(call)
    if caller.userid is None:
        # The documentation keeps 401 for a token that is expired or invalid, and a generic one is neither. A
        # client that renewed it would get just such another, so this is a 403: RFC 9110, section 15.5.4.
        raise problem(403)
    return answer_json(conversations_of(caller.userid, world.clock()))


@endpoint("/api/GetModels", "GET")
def get_models(call: Call) -> HttpResponseBase:
    """The models that AIRisk guards; a generic token will do."""
    _caller(call)
    return answer_json([{"id": model, "name": name} for model, name in MODELS.items()])


@endpoint("/api/StreamAnswer", "GET")
def stream_answer(call: Call) -> HttpResponseBase:
    """An answer that comes line by line."""
    return StreamingHttpResponse(_lines(_caller(call)), content_type="text/plain; charset=utf-8")


@endpoint("/api/SendMessage", "POST")
def send_message(call: Call) -> HttpResponseBase:
    """Says what arrived, to the byte: whoever sends a body twice can see that it was the same both times."""
    _caller(call)
    body = call.request.body
    text = call.given.get("text", body.decode(errors="replace"))
    return answer_json({"text": text, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()})


def _caller(call: Call) -> Caller:
    if call.caller is None:
        raise problem(401)
    return call.caller


def _lines(caller: Caller) -> Iterator[str]:
    name = display_name(caller.userid) if caller.userid is not None else caller.client_id
    yield f"Answer for {name}:\n"
    for line in _ANSWER:
        yield f"{line}\n"
