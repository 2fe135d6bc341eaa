"""Conversations as a person might have them on AIRisk: always the same for one userid, and never old."""

import hashlib
import uuid
from typing import TypedDict

from .answers import moment

MODELS = {
    "gpt-4.1": "GPT-4.1",
    "claude-sonnet-4": "Claude Sonnet 4",
    "mistral-large": "Mistral Large",
    "llama-3.3-70b": "Llama 3.3 70B",
}

_STATUSES = ("Approved", "Supervised", "Approved", "Awaiting review")
_SUBJECTS = (
    (
        "Liability clause in the supplier contract",
        "The cap in section 9.2 excludes gross negligence, as you asked.",
    ),
    (
        "Summary of the works council meeting",
        "Three decisions, two open points, and names replaced by roles.",
    ),
    ("Reply to the complaint of 3 March", "I kept the tone factual and left out the medical detail."),
    ("Risk classes under the EU AI Act", "The screening tool falls under Annex III, point 4: high risk."),
    (
        "Python script for the quarterly report",
        "It now reads the column by name, so a moved column does no harm.",
    ),
    (
        "Translation of the safety data sheet",
        "Section 8 is translated; the limit values are left as they were.",
    ),
    ("Interview questions for the data team", "I removed the two questions that touch on family plans."),
    ("Draft of the privacy notice", "Retention is now given for each purpose, not once for all."),
    ("Why did the forecast miss in May?", "Mostly the holiday week, which the model had not seen before."),
)


class Conversation(TypedDict):
    """One entry of the answer to `GetConversations`."""

    id: str
    title: str
    model: str
    updated: str
    lastMessage: str
    status: str


def conversations_of(userid: str, now: float) -> list[Conversation]:
    """Three to six conversations, the latest first."""
    dice = hashlib.sha256(userid.encode()).digest()
    # Counted from the full hour, so that nothing moves when a page is loaded twice.
    updated = now - now % 3600
    found = []
    for index in range(3 + dice[0] % 4):
        throw = dice[index + 1]
        title, last_message = _SUBJECTS[(dice[0] + 2 * index) % len(_SUBJECTS)]
        updated -= 600 + throw * 300
        found.append(
            Conversation(
                id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{userid}/{index}")),
                title=title,
                model=list(MODELS)[throw % len(MODELS)],
                updated=moment(updated),
                lastMessage=last_message,
                status=_STATUSES[throw // 64],
            )
        )
    return found
