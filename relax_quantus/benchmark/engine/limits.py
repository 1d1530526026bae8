"""The time limit of a cell, and the status and reason of one that does not end well.

A piece of work enters; its value, or an exception, leaves; an exception becomes the ``status`` and
``reason`` of a tidy row.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from relax_quantus.benchmark.methods.questions import NotApplicable
from relax_quantus.benchmark.metrics.metric import Undefined

REASON_LENGTH = 300
NO_MEMORY = ("alloc_cpu", "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")


class TimeLimitExceeded(BaseException):
    """Raised where a piece of work is past its time limit.

    Not an `Exception`, so that the work cannot swallow it.
    """


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt what runs inside after `seconds`; None never does.

    In a process' main thread a timer signal interrupts even what waits; elsewhere, as in a Dask
    worker, the exception arrives when the interpreter next runs, which is after the current call
    into compiled code.

    Raises
    ------
    TimeLimitExceeded
        In what runs inside.
    """
    if seconds is None:
        yield
    elif threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        with _by_signal(seconds):
            yield
    else:
        with _by_thread(seconds):
            yield


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise TimeLimitExceeded(f"past its time limit of {seconds:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    mine, raising = ctypes.c_ulong(threading.get_ident()), threading.Lock()
    state = {"over": False, "fired": False}

    def interrupt() -> None:
        with raising:
            if not state["over"]:
                state["fired"] = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(mine, ctypes.py_object(TimeLimitExceeded))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except TimeLimitExceeded:
        raise TimeLimitExceeded(f"past its time limit of {seconds:g} s") from None
    finally:
        with raising:
            state["over"] = True
            if state["fired"]:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(mine, None)
        timer.cancel()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error` says that there was not enough memory.

    Python, torch and operating systems say so in different words.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)


def outcome(error: BaseException) -> tuple[str, str]:
    """Return the status and the reason of a cell in which `error` was raised."""
    text = " ".join(str(error).split())
    if isinstance(error, NotApplicable):
        return "not_applicable", text
    if isinstance(error, Undefined):
        return "undefined", text
    if isinstance(error, TimeLimitExceeded):
        return "timeout", text or "past its time limit"
    status = "out_of_memory" if is_out_of_memory(error) else "failed"
    return status, f"{type(error).__name__}: {text}"[:REASON_LENGTH]
