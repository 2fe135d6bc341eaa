"""The stream of an answer: whatever its shape and however it is cut, the same text; and an end to everything else."""

import json
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airisk_oauth.client import chat_stream
from airisk_oauth.client.chat_stream import AnswerReader
from airisk_oauth.exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskUnavailable
from tests.support.chats import new_stream, old_stream

PIECES = ["Grüße ", "from 東京 ", "🗼: see ", "【4:0†policy.pdf】", "\n\n", "data: x", "[DONE]"]
#: Everything that a line may end with, comments, an event of several lines, and what nobody knows.
MANNERS = (
    b"\xef\xbb\xbf: waiting\r\n\r\nevent: thread.created\r\ndata: {}\r\nid: 1\rretry: 5\n\r\n"
    b'event:thread.message.delta\ndata: {"delta":\ndata:  {"content": [{"image_file": {}}, {"text": {"value": '
    b'"Gr\xc3\xbc\\u00dfe"}}]}}\r\revent\ndata: [DONE]\n\n'
)
STREAMS = {
    "2025": (old_stream(*PIECES), "".join(PIECES)),
    "2026": (new_stream(*PIECES), "".join(PIECES)),
    "2026, Windows": (new_stream(*PIECES).replace(b"\n", b"\r\n"), "".join(PIECES)),
    "2026 as events": (
        b"".join(b"data: " + line + b"\n\n" for line in new_stream(*PIECES).splitlines()),
        "".join(PIECES),
    ),
    "manners": (MANNERS, "Grüße"),
}


def read(parts: Iterable[bytes], hang_up: bool = False) -> tuple[list[str], AnswerReader]:
    """Feed a reader as its callers do: not after its end."""
    reader = AnswerReader()
    pieces: list[str] = []
    for part in [*parts, b""] if hang_up else parts:
        if not reader.is_over:
            pieces += reader.feed(part)
    return pieces, reader


def failure_of(*parts: bytes) -> AIRiskError | None:
    return read(parts, hang_up=True)[1].failure


# Cut anywhere


@pytest.mark.parametrize("name", STREAMS)
def test_every_split_gives_the_same_text(name: str) -> None:
    stream, text = STREAMS[name]
    whole, _reader = read([stream])
    for border in range(len(stream) + 1):
        pieces, reader = read(part for part in (stream[:border], stream[border:]) if part)
        assert ("".join(pieces), reader.status, reader.failure) == (text, "completed", None), border
        assert pieces == whole


@pytest.mark.parametrize("name", STREAMS)
def test_stream_is_read_byte_by_byte(name: str) -> None:
    stream, text = STREAMS[name]
    pieces, reader = read(stream[place : place + 1] for place in range(len(stream)))
    assert ("".join(pieces), reader.status, reader.is_over) == (text, "completed", True)


@given(st.lists(st.text(min_size=1)), st.sampled_from([old_stream, new_stream]), st.data())
def test_any_text_survives_any_borders(pieces: list[str], shape: object, data: st.DataObject) -> None:
    stream = shape(*pieces)  # type: ignore[operator]
    borders = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=9)))
    places = [0, *borders, len(stream)]
    found, reader = read(stream[begin:end] for begin, end in pairwise(places))
    assert (found, reader.status) == (pieces, "completed")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=9))
def test_any_bytes_are_text_or_an_error(parts: list[bytes]) -> None:
    pieces, reader = read(parts, hang_up=True)
    assert "".join(pieces).encode() is not None
    assert (reader.failure is None) == (reader.status is not None)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["UpdateKind", "Text"]), st.none() | st.integers(5, 25) | st.text() | st.lists(st.text())
        )
    )
)
def test_any_updates_are_text_or_an_error(updates: list[dict[str, object]]) -> None:
    pieces, reader = read(
        ["".join(f"{json.dumps(each)}\n" for each in updates).encode()] if updates else [], hang_up=True
    )
    assert all(isinstance(piece, str) for piece in pieces)
    assert reader.is_over


@pytest.mark.parametrize(
    ("texts", "pieces"),
    [
        (["a\ud83d", "\uddfcb"], ["a", "🗼b"]),
        (["\ud83d", "", "\uddfc"], ["🗼"]),
        (["\ud83d", "b"], ["\ufffdb"]),
        (["\uddfc", "b"], ["\ufffd", "b"]),
        (["a\ud83d"], ["a", "\ufffd"]),
    ],
)
def test_half_a_character_waits_for_the_other(texts: list[str], pieces: list[str]) -> None:
    """.NET counts in halves, and JSON can name each."""
    lines = [json.dumps({"UpdateKind": 21, "Text": text}) for text in texts]
    assert read("\n".join([*lines, "[DONE]\n"]).encode().splitlines(keepends=True))[0] == pieces


def test_nothing_is_read_after_the_end() -> None:
    pieces, reader = read([new_stream("a") + new_stream("b")])
    assert (pieces, reader.status) == (["a"], "completed")


# How it ends


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("[DONE]", "completed"),
        ('{"UpdateKind": 6}', "completed"),
        ('{"UpdateKind": 5}\n[DONE]', "incomplete"),
        ('{"UpdateKind": 7}\n[DONE]', "incomplete"),
        ('{"UpdateKind": 8}\n[DONE]', "failed"),
        ('{"UpdateKind": 24}', "failed"),
        ('{"UpdateKind": 5}\n{"UpdateKind": 99}\n{"UpdateKind": 6}', "completed"),
        (
            'event: thread.message.incomplete\ndata: {"incomplete_details": {"reason": "x"}}\n\nevent: done',
            "incomplete",
        ),
        ("event: thread.run.failed\ndata: {}\n\nevent: done\n", "failed"),
        ("event: error\ndata: x", "failed"),
        ("data: [DONE]", "completed"),
    ],
)
def test_end_of_an_answer_names_its_status(end: str, status: str) -> None:
    """With the blank line after it or without."""
    for stream in (end, f"{end}\n", f"{end}\n\n"):
        pieces, reader = read([new_stream("a", end=stream)], hang_up=True)
        assert (pieces, reader.status, reader.failure) == (["a"], status, None)


@pytest.mark.parametrize("name", ["2025", "2026"])
def test_stream_that_breaks_off_is_unavailable(name: str) -> None:
    """Wherever that is, and after the pieces that were whole."""
    stream, text = STREAMS[name]
    end = stream.index(b"event: done") if name == "2025" else stream.index(b'{"UpdateKind": 6}')
    for border in range(end):
        pieces, reader = read([stream[:border]], hang_up=True)
        assert text.startswith("".join(pieces))
        assert isinstance(reader.failure, AIRiskUnavailable), stream[:border]


@pytest.mark.parametrize(
    "mark", ['{"UpdateKind": 6}\n{"Upd', "event: thread.run.completed\n\nda", '{"UpdateKind": 6}\n[DO']
)
def test_end_without_its_last_mark_is_an_end(mark: str) -> None:
    _pieces, reader = read([new_stream("a", end=mark)], hang_up=True)
    assert (reader.status, reader.failure) == ("completed", None)


# What is none


@pytest.mark.parametrize(
    "stream",
    [
        b"<!DOCTYPE html><title>Sign in</title>",
        b"<!DOCTYPE html>\n<title>Sign in</title>\n",
        b'[{"UpdateKind": 21}]\n',
        b'{"title": "Unauthorized", "status": 401}\n',
        b'{"UpdateKind": "21", "Text": "a"}\n',
        b'{"UpdateKind": true, "Text": "a"}\n',
        b'{"UpdateKind": 21, "Text": 5}\n',
        b'{"UpdateKind": 21, "Text": ["a"]}\n',
        b'{"UpdateKind": 21, "Text": "a"\n',
        b'{"UpdateKind": 21, "Text": "a"} and more\n',
        b'{"UpdateKind": 21, "Text": "\xff"}\n',
        b'{"UpdateKind": 21, "Text": ' + b"[" * 200_000 + b"\n",
        b"event: thread.message.delta\ndata: {\n\n",
        b"event: thread.message.delta\ndata: 5\n\n",
        b'event: thread.message.delta\ndata: {"delta": {"content": [5]}}\n\n',
        b'event: thread.message.delta\ndata: {"delta": {"content": [{"text": 5}]}}\n\n',
        b'event: thread.message.delta\ndata: {"delta": {"content": [{"text": {"value": 5}}]}}\n\n',
    ],
)
def test_unknown_shape_is_an_invalid_response(stream: bytes) -> None:
    assert isinstance(failure_of(stream), AIRiskInvalidResponse)
    pieces, reader = read([new_stream("before", end="") + stream], hang_up=True)
    assert pieces == ["before"]
    assert isinstance(reader.failure, AIRiskInvalidResponse)


@pytest.mark.parametrize(
    "update",
    [
        {"UpdateKind": 21},
        {"UpdateKind": 21, "Text": None},
        {"UpdateKind": 21, "Text": ""},
        {"UpdateKind": 99, "Text": "a"},
    ],
)
def test_update_without_text_brings_none(update: dict[str, object]) -> None:
    assert read([new_stream(end=f"{json.dumps(update)}\n[DONE]\n")])[0] == []


@pytest.mark.parametrize("content", [None, [], [{}], [{"text": None}], [{"text": {"value": None}}]])
def test_delta_without_text_brings_none(content: object) -> None:
    event = f"event: thread.message.delta\ndata: {json.dumps({'delta': {'content': content}})}\n\n"
    pieces, reader = read([old_stream(end=f"{event}event: done\n\n")])
    assert (pieces, reader.status) == ([], "completed")


PART = 64 * 1024


@pytest.mark.parametrize(
    ("part", "limit"),
    [
        (b"x" * PART, chat_stream.MAX_LINE),
        (b"data: " + b"x" * 999 + b"\n", chat_stream.MAX_LINE),
        (b": waiting\n\n" * 6000, 2 * chat_stream.MAX_LINE),
        (new_stream("x" * PART, end=""), chat_stream.MAX_TEXT),
    ],
    ids=["line", "event", "stream", "text"],
)
def test_endless_stream_ends_in_an_error(part: bytes, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if b"waiting" in part:
        monkeypatch.setattr(chat_stream, "MAX_STREAM", limit)
    reader, times = AnswerReader(), 0
    while not reader.is_over:
        reader.feed(part)
        times += 1
    assert isinstance(reader.failure, AIRiskInvalidResponse)
    assert limit * 0.5 < times * len(part) < limit + 2 * len(part) + 0.02 * limit
