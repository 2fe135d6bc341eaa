"""Leaving an answer closes the call to AIRisk, on both sides; and an answer is asked for once."""

import asyncio
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth import chat as chat_module
from airisk_oauth.client import chat_rules
from airisk_oauth.sandbox.world import World
from tests.support.chat import QUESTION
from tests.support.chats import (
    CHUNKED,
    CONVERSATION,
    HEAD,
    SOON,
    ChatAt,
    Side,
    Watched,
    chunk,
    give_canary,
    new_stream,
)
from tests.support.clock import wait_until
from tests.support.options import set_option
from tests.support.people import live_token
from tests.support.tracebacks import shown_variables
from tests.support.wire import Serve, saying

pytestmark = pytest.mark.django_db


def test_leaving_early_closes_the_call(chat_at: ChatAt) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", "Two. ", end="")))
    answer = chat_at(script).side.take(most=1)
    left = time.monotonic()
    assert answer == (["One. "], "One. ", None, None)
    assert script.left.wait(SOON)
    assert script.left_at - left < SOON / 2


@pytest.mark.parametrize("pieces", [0, 1])
def test_cancelled_task_closes_the_call(settings: Any, serve: Serve, mia: User, pieces: int) -> None:
    give_canary(mia)
    script = Watched(CHUNKED + chunk(new_stream(*["One. "] * pieces, end="x"))[:-3])
    set_option(settings, BASE_URL=serve(script).url)
    errors: list[BaseException] = []

    async def take(client: AsyncAIRiskClient) -> None:
        try:
            async with client.chat.ask(CONVERSATION, "Why?") as answer:
                async for _piece in answer:
                    pass
        except asyncio.CancelledError as error:
            errors.append(error)
            raise

    @async_to_sync
    async def main() -> None:
        async with AsyncAIRiskClient.for_user(mia) as client:
            task = asyncio.ensure_future(take(client))
            assert await asyncio.to_thread(script.asked.wait, SOON)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(script.left.wait, 1)

    main()
    assert "canary" not in shown_variables(errors[0])


def test_answer_is_an_iterator_and_asks_once(settings: Any, serve: Serve, mia: User) -> None:
    give_canary(mia)
    server = serve(saying(HEAD + b"\r\n" + new_stream("One. ", "Two. ")))
    set_option(settings, BASE_URL=server.url)
    with AIRiskSession.for_user(mia) as session:
        answer = session.chat.ask(CONVERSATION, "Why?")
        assert (answer.text, answer.status, server.seen) == ("", None, [])
        assert next(answer) == "One. "
        assert (answer.text, answer.status) == ("One. ", None)
        assert list(answer) == ["Two. "]
        assert (answer.text, answer.status, list(answer)) == ("One. Two. ", "completed", [])
        with answer:
            assert list(answer) == []
        with session.chat.ask(CONVERSATION, "Why?") as left:
            pass
        with pytest.raises(RuntimeError, match="closed"):
            next(left)
        session.chat.ask(CONVERSATION, "Why?").close()
        assert len(server.seen) == 2


def test_connection_is_used_again_after_an_answer(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    with AIRiskSession.for_user(mia) as session:
        for _answer in range(2):
            with session.chat.ask(QUESTION["conversationID"], "Why?") as answer:
                assert len(list(answer)) == 4
            session.chat.agents()
        assert session.chat is not session.chat


# Names


def test_types_can_be_imported_by_name() -> None:
    for name in chat_module.__all__:
        assert getattr(chat_module, name).__name__ if name not in ("AnswerStatus", "Feedback") else True
    assert not hasattr(chat_module, "Nothing")
    assert "token-canary" not in repr(chat_rules.question("c", "token-canary", 1))


def test_sandbox_keeps_what_was_taken(chat: Side) -> None:
    """Closing the connection is the only way to stop an answer."""
    conversation = chat.create_conversation(chat.agents()[0]["id"], "A plan")["id"]
    chat.take(most=1, to=conversation)
    wait_until(lambda: len(chat.conversation(conversation)["messages"]) == 2)
