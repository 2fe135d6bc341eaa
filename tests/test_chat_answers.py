"""Answers of agents on both sides: every piece, whatever the shape and the borders, and a time for each."""

import gzip
import threading
import time

import pytest

from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from airisk_oauth.sandbox.world import World
from tests.support.chat import QUESTION
from tests.support.chats import (
    CHUNKED,
    HEAD,
    SOON,
    ChatAt,
    Side,
    Watched,
    chunk,
    in_turn,
    new_stream,
    old_stream,
    pausing,
)
from tests.support.tracebacks import shown_variables
from tests.support.wire import Script, dripping, reset, saying, silent

pytestmark = pytest.mark.django_db

TEXTS = ["Grüße ", "from 東京 🗼 ", "【4:0†policy.pdf】"]


@pytest.mark.parametrize("is_old", [False, True])
def test_answer_comes_in_both_shapes(chat: Side, airisk: World, is_old: bool) -> None:
    airisk.switches.old_stream = is_old
    answer = chat.take(to=QUESTION["conversationID"])
    assert answer.pieces[0] == "You asked: Why? "
    assert len(answer.pieces) == 4
    assert "【4:0†policy.pdf】" in answer.text
    assert answer == (answer.pieces, "".join(answer.pieces), "completed", None)


@pytest.mark.parametrize("stream", [old_stream(*TEXTS), new_stream(*TEXTS)], ids=["old", "new"])
@pytest.mark.parametrize("framing", ["chunks", "one chunk", "length", "hang-up", "packed"])
def test_pieces_come_across_any_border(chat_at: ChatAt, stream: bytes, framing: str) -> None:
    """Also in the middle of a letter, byte by byte."""
    parts = [stream[place : place + 1] for place in range(len(stream))]
    scripts = {
        "chunks": saying(CHUNKED, *map(chunk, [*parts, b""])),
        "one chunk": saying(CHUNKED, chunk(stream), chunk(b"")),
        "length": saying(HEAD + f"Content-Length: {len(stream)}\r\n\r\n".encode(), *parts),
        "hang-up": saying(HEAD + b"\r\n", *parts),
        "packed": saying(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(stream)),
    }
    assert chat_at(scripts[framing]).side.take() == (TEXTS, "".join(TEXTS), "completed", None)


def test_piece_comes_before_the_next_is_written(chat_at: ChatAt) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", end="")), chunk(new_stream("Two.")) + chunk(b""))
    scripted = chat_at(script)
    assert scripted.side.take(most=1).pieces == ["One. "]
    assert not script.go_on.is_set()
    script.go_on.set()


@pytest.mark.parametrize(
    "script",
    [
        saying(CHUNKED, chunk(new_stream("One. ", end=""))),
        saying(CHUNKED, chunk(new_stream("One. ", end="")), chunk(b"")),
        saying(CHUNKED, chunk(new_stream("One. ", end='{"Upd')), b"ff\r\nhalf"),
        saying(HEAD + b"Content-Length: 999\r\n\r\n" + new_stream("One. ", end="")),
        saying(HEAD + b"\r\n" + new_stream("One. ", end="")),
        saying(CHUNKED, chunk(new_stream("One. ", end="")), b"no chunk\r\n"),
        in_turn(saying(CHUNKED, chunk(new_stream("One. ", end=""))), pausing, reset),
    ],
)
def test_stream_that_breaks_off_is_unavailable(chat_at: ChatAt, script: Script) -> None:
    answer = chat_at(script).side.take()
    assert (answer.pieces, answer.text, answer.status) == (["One. "], "One. ", None)
    assert isinstance(answer.error, AIRiskUnavailable)
    assert "canary" not in shown_variables(answer.error)


def test_pieces_before_what_is_unknown_are_kept(chat_at: ChatAt) -> None:
    answer = chat_at(saying(CHUNKED, chunk(new_stream("One. ", end="<h1>\n")))).side.take()
    assert (answer.pieces, answer.status) == (["One. "], None)
    assert isinstance(answer.error, AIRiskInvalidResponse)
    script = Watched(
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(new_stream("One. ", end=""))[:-4], b"junk"
    )
    answer = chat_at(script).side.take(begun=script.go_on)
    assert answer.pieces == ["One. "]
    assert isinstance(answer.error, AIRiskInvalidResponse)


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_status_says_how_the_answer_ended(chat_at: ChatAt, status: str) -> None:
    kind = {"completed": 6, "incomplete": 7, "failed": 8}[status]
    stream = new_stream("One.", end=f'{{"UpdateKind": {kind}}}\n[DONE]\n')
    assert chat_at(saying(HEAD + b"\r\n" + stream)).side.take() == (["One."], "One.", status, None)


# Waiting


def test_first_text_may_take_its_time(chat_at: ChatAt) -> None:
    text = chunk(new_stream("One.")) + chunk(b"")
    for head, rest in ((b"", CHUNKED + text), (CHUNKED, text)):
        script = Watched(head, rest)
        timer = threading.Timer(0.6, script.go_on.set)
        timer.start()
        assert chat_at(script, API_TIMEOUT=(1, 0.2)).side.take().text == "One."


@pytest.mark.parametrize(
    "script",
    [
        silent,
        in_turn(saying(CHUNKED), silent),
        in_turn(saying(CHUNKED + b"ff"), silent),
        in_turn(pausing, dripping(CHUNKED, chunk(b': waiting\n\n{"UpdateKind": 1}\n'))),
        dripping(CHUNKED + b"1;", b"x"),
        dripping(b"", b"H"),
    ],
    ids=["silent", "headers", "half a chunk", "noises", "chunk size", "status line"],
)
def test_first_text_that_never_comes_is_an_error(chat_at: ChatAt, script: Script) -> None:
    scripted, began = chat_at(script), time.monotonic()
    answer = scripted.side.take(first_text_timeout=0.4)
    assert isinstance(answer.error, AIRiskUnavailable)
    assert 0.3 < time.monotonic() - began < SOON


def test_later_text_that_never_comes_is_an_error(chat_at: ChatAt) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", end="")))
    answer = chat_at(script).side.take(first_text_timeout=1)
    assert (answer.pieces, answer.status) == (["One. "], None)
    assert isinstance(answer.error, AIRiskUnavailable)
    assert script.left.wait(SOON)


def test_missing_mark_after_the_end_is_no_error(chat_at: ChatAt) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", end='{"UpdateKind": 6}\n')))
    answer = chat_at(script).side.take(first_text_timeout=1)
    assert answer == (["One. "], "One. ", "completed", None)


def test_complete_answer_waits_a_second_for_airisk(chat_at: ChatAt) -> None:
    """AIRisk may be saving it; a stream that goes on is left."""
    whole = chunk(new_stream("One. "))
    for script in (Watched(CHUNKED + whole), dripping(CHUNKED + whole, chunk(b"\n")), saying(CHUNKED + whole, b"junk")):
        began = time.monotonic()
        assert chat_at(script).side.take().status == "completed"
        assert time.monotonic() - began < SOON
    script = Watched(CHUNKED + whole, chunk(b""))
    began = time.monotonic()
    threading.Timer(0.2, script.go_on.set).start()
    assert chat_at(script).side.take().status == "completed"
    assert script.left.wait(SOON)
    assert script.left_at - began >= 0.2
