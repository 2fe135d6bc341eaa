"""AIRisk's API: the chat calls of its public client, and the one call that AIRisk documents.

Sources: https://docs.aicrisk.com/api-overview/airisk-api-oauth2-authentication, usage of the access token, for
`/api/GetConversations`, without its answer; and the code of AIRisk's public client for `/api/Chat/…`.
"""

from collections.abc import Mapping
from typing import Any, Final

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from .answers import answer_json, invalid, problem
from .chat import Chats, agents
from .endpoint import SandboxRequest, endpoint
from .streams import stream
from .world import world

_PAGE: Final = 50


@endpoint("/api/GetConversations", "GET")
def get_conversations(call: SandboxRequest) -> HttpResponseBase:
    """The documented call. Its answer is not documented, so it answers like the chat call of the same name."""
    return answer_json(_chats(call).conversations(world.format_time))


@endpoint("/api/Chat/ListAgents", "GET")
def list_agents(call: SandboxRequest) -> HttpResponseBase:
    """List the agents that this user can ask."""
    _chats(call)
    return answer_json([] if world.switches.no_agents else agents())


@endpoint("/api/Chat/GetConversations", "GET")
def list_conversations(call: SandboxRequest) -> HttpResponseBase:
    """List one page of the user's conversations, latest first; the page after the last one is empty."""
    skip, results = _count(call, "skip", 0), _count(call, "results", _PAGE)
    return answer_json(_chats(call).conversations(world.format_time)[skip : skip + results])


@endpoint("/api/Chat/GetConversation/{id}", "GET")
def get_conversation(call: SandboxRequest) -> HttpResponseBase:
    """Show one of the user's conversations with its messages."""
    return answer_json(_conversation(call, call.rest))


@endpoint("/api/Chat/CreateConversation", "POST")
def create_conversation(call: SandboxRequest) -> HttpResponseBase:
    """Start a conversation with an agent."""
    chats, agent_id = _chats(call), _required(call.given, "agentId")
    if world.switches.no_agents or agent_id not in {agent["id"] for agent in agents()}:
        raise invalid("agentId")
    created = chats.create(call.given.get("title", ""), agent_id, world.clock())
    return answer_json(_conversation(call, created))


@endpoint("/api/Chat/AskAgent", "POST")
def ask_agent(call: SandboxRequest) -> HttpResponseBase:
    """Stream an agent's answer, piece by piece."""
    chats, text = _chats(call), _required(call.given, "text")
    conversation_id: str = _conversation(call, _required(call.given, "conversationID"))["id"]
    switches = world.switches
    pieces = stream(
        chats.ask(conversation_id, text, world.clock()),
        is_old=switches.old_stream,
        first_after=switches.first_text_after or 0,
        breaks_off=switches.stream_breaks_off,
    )
    # AIRisk's own content type is not known. Its client accepts this one, and only looks at the lines.
    return StreamingHttpResponse(pieces, content_type="text/event-stream")


@endpoint("/api/Chat/AddFileToConversation/{id}", "POST")
def add_file(call: SandboxRequest) -> HttpResponseBase:
    """Add a file to a conversation: the first file in a multipart body."""
    conversation_id: str = _conversation(call, call.rest)["id"]
    files = [file for file in call.request.FILES.values() if not isinstance(file, list)]
    if not files:
        raise invalid("file")
    _chats(call).attach(conversation_id, str(files[0].name), world.clock())
    return HttpResponse()


@endpoint("/api/Chat/SubmitFeedback", "POST")
def submit_feedback(call: SandboxRequest) -> HttpResponseBase:
    """Rate a message; the parameters are in the query string."""
    chats, given = _chats(call), call.request.GET.dict()
    conversation_id: str = _conversation(call, _required(given, "conversationId"))["id"]
    message_id, feedback = _required(given, "messageId"), _required(given, "feedback")
    if feedback not in ("Like", "Dislike"):
        raise invalid("feedback")
    if not chats.rate(conversation_id, message_id, feedback):
        raise problem(404)
    return HttpResponse()


def _chats(call: SandboxRequest) -> Chats:
    """Return the conversations of the user that the token belongs to."""
    if call.caller is None:
        raise problem(401)
    if call.caller.userid is None:
        # The documentation uses 401 for an expired or invalid token, and a generic token is neither. Renewing it would
        # not help the client, so this is a 403: RFC 9110, section 15.5.4.
        raise problem(403)
    return world.chats_of(call.caller.userid)


def _conversation(call: SandboxRequest, conversation_id: str) -> Any:
    found = _chats(call).find(conversation_id, world.format_time)
    if found is None:
        raise problem(404)
    return found


def _required(given: Mapping[str, str], name: str) -> str:
    value = given.get(name)
    if not value:
        raise invalid(name)
    return value


def _count(call: SandboxRequest, name: str, default: int) -> int:
    value = call.given.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise invalid(name)
    return int(value)
