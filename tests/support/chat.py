"""A question that the sandbox streams an answer to."""

from typing import Final

from airisk_oauth.sandbox.chat import Chats

#: The body of a question by user_42, in one of their conversations, whose ids are always the same.
QUESTION: Final = {"conversationID": Chats("user_42", 0).conversations(str)[0]["id"], "text": "Why?"}
FIRST_LINE: Final = '{"UpdateKind": 21, "Text": "You asked: Why? "}'
