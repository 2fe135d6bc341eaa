"""The demo's chat: pick an agent, ask, watch the answer being written, rate it.

Without JavaScript, the same forms work, and the page is shown again with the whole answer.
"""

import re
from collections.abc import Callable
from functools import wraps
from itertools import islice
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from airisk_oauth.chat import Feedback, answer_response
from airisk_oauth.decorators import airisk_required
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.http import AIRiskRequest

from .views import trouble, unavailable

#: How many conversations are listed, and how many characters of a first question become a conversation's title.
LISTED: Final = 20
TITLE: Final = 80
#: A mark in an answer's text that refers to a source.
_CITATION: Final = re.compile("【[^】]*†([^】]*)】")


def _calls_airisk(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Show a page that says so if AIRisk cannot be called."""

    @wraps(view)
    def guarded(request: HttpRequest, **captured: Any) -> HttpResponseBase:
        try:
            return view(request, **captured)
        except ConnectionRequired:
            raise  # The middleware sends the user to connect.
        except AIRiskUnavailable:
            return unavailable(request, retry="chat")
        except AIRiskError as error:
            return trouble(request, _("AIRisk refused this site's request"), error=error, retry="chat")

    return never_cache(airisk_required(guarded))


@require_http_methods(["GET", "HEAD", "POST"])
@_calls_airisk
def chat(request: AIRiskRequest) -> HttpResponse:
    """List the user's agents and conversations; a POST starts a conversation with an agent."""
    airisk = request.airisk.chat
    if request.method == "POST":
        text = request.POST.get("text", "").strip()
        title = Truncator(text).chars(TITLE) or _("New conversation")
        conversation = airisk.create_conversation(request.POST.get("agent", ""), title)
        # The conversation's page puts the question into its form, where the script sends it at once.
        request.session["question"] = text
        return redirect("conversation", conversation["id"])
    context = {"agents": airisk.agents(), "conversations": list(islice(airisk.conversations(), LISTED))}
    return render(request, "demo/chat.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@_calls_airisk
def conversation(request: AIRiskRequest, conversation_id: str) -> HttpResponseBase:
    """Show a conversation; a POST asks its agent, and adds a file before that."""
    airisk = request.airisk.chat
    if request.method != "POST":
        found = airisk.conversation(conversation_id)
        chat_messages = [{**each, "text": _CITATION.sub(r" [\1]", each["text"] or "")} for each in found["messages"]]
        question = request.session.pop("question", "")
        context = {"conversation": found, "chat_messages": chat_messages, "question": question}
        return render(request, "demo/conversation.html", context)
    if file := request.FILES.get("file"):
        airisk.attach(conversation_id, file)
    text = request.POST.get("text", "").strip()
    if request.accepts("text/event-stream") and not request.accepts("text/html"):
        return answer_response(request, conversation_id, text)
    with airisk.ask(conversation_id, text) as answer:
        for _piece in answer:
            pass
    return redirect(f"{reverse('conversation', args=[conversation_id])}#latest")


@require_POST
@_calls_airisk
def rate(request: AIRiskRequest, conversation_id: str) -> HttpResponse:
    """Tell AIRisk whether an answer was good."""
    feedback: Feedback = "Like" if request.POST.get("feedback") == "Like" else "Dislike"
    request.airisk.chat.rate(conversation_id, request.POST.get("message", ""), feedback)
    return redirect(f"{reverse('conversation', args=[conversation_id])}#latest")
