"""A setting that names a function: its value is what the function returned last.

The function is called by one thread at a time, and no more often than the setting allows. While it fails, what it
returned before stays in use, for as long as the process runs. Neither the log nor an error repeats what it returned or
what it raised, because both may contain secrets.
"""

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Generic, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import Error as DatabaseError
from django.db import connections, transaction
from django.utils.module_loading import import_string

Value = TypeVar("Value")

#: With a dot, which no key has: a key that was set without a list around it must not be taken for a path and shown.
_DOTTED_PATH: Final = r"[^\W\d]\w*(\.[^\W\d]\w*)+"
#: How many unknown items are remembered. They are few, unless somebody makes them up.
_MAX_MISSED: Final = 1000


class SettingUnavailable(ImproperlyConfigured):
    """The function that a setting names fails, and what it returned before, if anything, is not enough."""


class Source(Generic[Value]):
    """The function that a setting may name.

    :param setting: the name of the setting.
    :param every: for how many seconds what the function returned, or that it failed, is good.
    :param again: for how many seconds it is good that an item was not in it, although the function was called for it.
    :param fault_in: takes what the function returned, and says why it cannot be used, in words that do not repeat it;
        ``None`` if it can.
    :param made_of: makes the value of what the function returned.
    :param report: called with the names of the setting and the function, and the name of an exception class when the
        function begins to fail; with ``None`` when it works again.
    """

    def __init__(
        self,
        setting: str,
        every: float,
        again: float,
        fault_in: Callable[[Any], str | None],
        made_of: Callable[[Any], Value],
        report: Callable[[str, str, str | None], object],
    ) -> None:
        self.setting, self.every, self.again = setting, every, again
        self._fault_in, self._made_of, self._report = fault_in, made_of, report
        self._answers = _Answers[Value]("")
        _SOURCES.append(self)

    @property
    def path(self) -> str | None:
        """The dotted path in the setting, or ``None`` if something else is there."""
        configured = getattr(settings, self.setting, None)
        is_path = isinstance(configured, str) and re.fullmatch(_DOTTED_PATH, configured) is not None
        return configured if is_path else None

    def path_problem(self) -> str | None:
        """Return what is wrong with a dotted path in the setting, or ``None``. The function is not called."""
        path = self.path
        try:
            is_callable = path is None or callable(import_string(path))
        except Exception as error:  # noqa: BLE001 - the site's own module
            return f"{self.setting}: {path} cannot be imported ({type(error).__name__})."
        return None if is_callable else f"{self.setting}: {path} is not a function."

    def value(self) -> Value:
        """Return what the function returned last; call it if that is too long ago.

        :raises SettingUnavailable: it has returned nothing that can be used yet.
        """
        return self._fresh().value()

    def value_with(self, item: str, has: Callable[[Value], bool]) -> Value:
        """Return the same value, but call the function again at once if an item is not in it.

        :param has: tells whether the item is in a value.
        :raises SettingUnavailable: there is no value, or the item is not in it and the function fails.
        """
        answers = self._fresh()
        if has(answers.value()):
            return answers.value()
        if not answers.failure and time.monotonic() - answers.missed.get(item, -math.inf) >= self.again:
            if len(answers.missed) >= _MAX_MISSED:
                answers.missed.clear()
            answers.missed[item] = time.monotonic()
            self._ask(answers, wait=True)
        # No variable holds the value, because crash reports show those of every function an error passes through.
        if answers.failure and not has(answers.value()):
            raise SettingUnavailable(answers.failure)
        return answers.value()

    def failure(self) -> str:
        """Return why the function fails, in words without secrets; empty if it works or the setting names none."""
        return "" if self.path is None else self._fresh().failure

    def forget(self) -> None:
        """Forget what the function returned, so that the next use calls it."""
        self._answers = _Answers("")

    def _fresh(self) -> "_Answers[Value]":
        answers, path = self._answers, self.path or ""
        if answers.path != path:
            answers = self._answers = _Answers(path)
        if answers.asked_at is None or time.monotonic() - answers.asked_at >= self.every:
            self._ask(answers, wait=not answers.is_known)
        return answers

    def _ask(self, answers: "_Answers[Value]", *, wait: bool) -> None:
        """Call the function. If another thread is doing so, wait for it, or go on with the old value.

        An event loop forbids queries, so there a thread calls the function.
        """
        if answers.asked_by == threading.get_ident():
            if answers.is_known:
                return
            raise SettingUnavailable(f"{self.setting}: {answers.path} needs what it is to return.")
        if not _is_in_event_loop():
            self._ask_once(answers, answers.asked_at, wait=wait)
        elif wait or not answers.lock.locked():
            thread = threading.Thread(target=self._ask_in_thread, args=(answers, answers.asked_at), daemon=True)
            thread.start()
            if wait:
                thread.join()

    def _ask_in_thread(self, answers: "_Answers[Value]", seen: float | None) -> None:
        try:
            self._ask_once(answers, seen, wait=True)
        finally:
            connections.close_all()

    def _ask_once(self, answers: "_Answers[Value]", seen: float | None, *, wait: bool) -> None:
        """Call the function, unless another thread has called it since the caller looked."""
        if not answers.lock.acquire(blocking=wait):
            return
        try:
            if answers.asked_at == seen:
                answers.asked_by = threading.get_ident()
                self._call(answers)
                answers.asked_at = time.monotonic()
        finally:
            answers.asked_by = None
            answers.lock.release()

    def _call(self, answers: "_Answers[Value]") -> None:
        before, name = answers.failure, "ImportError"
        failure = self.path_problem() or ""
        if not failure:
            failure, name = self._returned(answers)
        answers.failure = failure
        if failure and failure != before:
            self._report(self.setting, answers.path, name)
        if before and not failure:
            self._report(self.setting, answers.path, None)

    def _returned(self, answers: "_Answers[Value]") -> tuple[str, str]:
        """Take over what the function returns; return why that failed, and the name of the exception class."""
        where = f"{self.setting}: {answers.path}"
        try:
            with _in_savepoints():
                returned = import_string(answers.path)()
                fault = self._fault_in(returned)
                known = () if fault else (self._made_of(returned),)
        except Exception as error:  # noqa: BLE001 - the site's own code
            _close_unusable_connections()
            return f"{where} raised {type(error).__name__}.", type(error).__name__
        if fault:
            return f"{where} returned something that cannot be used. {fault}", ImproperlyConfigured.__name__
        answers.known = known
        return "", ""


class _Answers(Generic[Value]):
    """What one function has returned.

    :ivar known: the last value that could be used; empty before there is one.
    :ivar asked_at: when the function was last called, on the monotonic clock.
    :ivar asked_by: the thread that is calling it.
    :ivar failure: why the last call failed, or an empty string.
    :ivar missed: when the function was called for the sake of an item, on the same clock.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: tuple[Value, ...] = ()
        self.asked_at: float | None = None
        self.asked_by: int | None = None
        self.failure = ""
        self.missed: dict[str, float] = {}
        self.lock = threading.Lock()

    @property
    def is_known(self) -> bool:
        return bool(self.known)

    def value(self) -> Value:
        if not self.known:
            raise SettingUnavailable(self.failure)
        return self.known[0]


_SOURCES: Final[list[Source[Any]]] = []


def forget_all(setting: str | None = None, **_signal: Any) -> None:
    """Forget what the functions returned, or the one of this setting, as ``override_settings`` needs it."""
    for source in _SOURCES:
        if setting in (None, source.setting):
            source.forget()


setting_changed.connect(forget_all)


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _close_unusable_connections() -> None:
    """Let the next call use a new connection where the database has closed this thread's."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            with suppress(DatabaseError):
                connection.close_if_unusable_or_obsolete()


@contextmanager
def _in_savepoints() -> Iterator[None]:
    """Keep a query that fails from spoiling a transaction that the caller has begun."""
    with ExitStack() as stack:
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block and not connection.needs_rollback:
                stack.enter_context(transaction.atomic(using=connection.alias))
        yield
