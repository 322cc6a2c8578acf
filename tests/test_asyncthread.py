"""The threads for blocking functions."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Callable

import pytest

from pandalite import asyncthread
from pandalite.asyncthread import AsyncThread, WorkerInterrupted
from pandalite.errors import BlockingCallError
from pandalite.utils import blocking


def until(condition: Callable[[], object], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Fixture:
    def __init__(self) -> None:
        self.started = threading.Event()
        self.started.set()
        self.failures: list[BaseException] = []
        self.athread = AsyncThread(self.started, self.failures.append)
        self.log: list[object] = []

    def job(self, name: object, action: Callable[[], object] | None = None) -> None:
        @blocking
        def function() -> None:
            self.log.append(name)
            if action is not None:
                action()

        self.athread.queue(function)


@pytest.fixture
def fix() -> Iterator[Fixture]:
    before = set(threading.enumerate())
    made = Fixture()
    yield made
    made.athread.stop()
    assert until(lambda: set(threading.enumerate()) <= before), "a thread is left"


def test_order_and_lazy_start(fix: Fixture) -> None:
    names = {t.name for t in threading.enumerate()}
    assert "pandalite-user" not in names
    for index in range(50):
        fix.job(index)
    assert until(lambda: len(fix.log) == 50)
    assert fix.log == list(range(50))
    names = {t.name for t in threading.enumerate()}
    assert "pandalite-user" in names and "pandalite-internal" not in names
    assert fix.athread.last_called == "function (with async thread)"


def test_waits_for_the_machine(fix: Fixture) -> None:
    fix.started.clear()
    fix.job("x")
    time.sleep(0.3)
    assert fix.log == []
    fix.started.set()
    assert until(lambda: fix.log == ["x"])


def test_refuses_what_is_not_blocking(fix: Fixture) -> None:
    with pytest.raises(RuntimeError):
        fix.athread.queue(None)
    with pytest.raises(RuntimeError, match="@blocking"):
        fix.athread.queue(lambda: None)


def test_internal_queue_works_while_user_is_busy(fix: Fixture) -> None:
    release = threading.Event()
    fix.job("user", release.wait)
    assert until(lambda: fix.log == ["user"])
    done = threading.Event()
    fix.athread.queue(blocking(done.set), internal=True)
    assert done.wait(5)
    release.set()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_exceptions_are_reported_and_do_not_end_the_thread(
    fix: Fixture, kind: type[BaseException]
) -> None:
    def fail() -> None:
        raise kind("boom")

    fix.job("a", fail)
    fix.job("b")
    assert until(lambda: fix.log == ["a", "b"])
    assert [type(failure) for failure in fix.failures] == [kind]
    assert fix.failures[0].__traceback__ is not None


def test_a_callback_that_fails_does_not_end_the_thread(
    fix: Fixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def bad(_: BaseException) -> None:
        raise OSError("callback")

    fix.athread._on_exception = bad
    fix.job("a", lambda: 1 / 0)
    fix.job("b")
    assert until(lambda: fix.log == ["a", "b"])
    assert "OSError: callback" in capsys.readouterr().err


def test_stop_before_run_keeps_the_functions(fix: Fixture) -> None:
    fix.started.clear()
    fix.job("x")
    began = time.monotonic()
    assert fix.athread.stop() is True
    assert time.monotonic() - began < 1
    assert until(lambda: "pandalite-user" not in {t.name for t in threading.enumerate()})
    fix.started.set()
    fix.job("y")  # stopped: waits for resume()
    time.sleep(0.2)
    assert fix.log == [] and fix.athread.pending() == 2
    fix.athread.resume()
    assert until(lambda: fix.log == ["x", "y"])
    fix.athread.stop()
    fix.job("z")
    fix.athread.stop(discard=True)
    assert fix.athread.pending() == 0


def test_stop_from_the_function_itself(fix: Fixture) -> None:
    fix.job("a", fix.athread.stop)
    fix.job("b")
    assert until(lambda: not any(t.name == "pandalite-user" for t in threading.enumerate()))
    assert fix.log == ["a"]
    fix.athread.resume()
    assert until(lambda: fix.log == ["a", "b"])


def test_interrupt_ends_a_python_loop(fix: Fixture) -> None:
    def spin() -> None:
        while True:
            time.sleep(0.001)

    fix.job("spin", spin)
    fix.job("next")
    assert until(lambda: fix.log == ["spin"])
    assert fix.athread.interrupt() is True
    assert until(lambda: fix.log == ["spin", "next"])
    assert fix.failures == []
    assert until(lambda: fix.athread.interrupt() is False)
    fix.job("spin", spin)
    assert until(lambda: len(fix.log) == 3)
    fix.athread.interrupt(KeyboardInterrupt)
    assert until(lambda: bool(fix.failures))
    assert isinstance(fix.failures[0], KeyboardInterrupt)


def test_late_interrupts_do_not_hit_the_next_function(fix: Fixture) -> None:
    finished: list[int] = []
    for index in range(300):
        fix.job(index, lambda index=index: finished.append(index))  # type: ignore[misc]
    while len(fix.log) < 300 and fix.athread.pending():
        fix.athread.interrupt()
    assert until(lambda: len(fix.log) == 300)
    assert fix.failures == []


def test_stop_interrupts_a_loop(fix: Fixture) -> None:
    caught: list[BaseException] = []

    def spin() -> None:
        try:
            while True:
                try:
                    time.sleep(0.001)
                except Exception:
                    pytest.fail("an interrupt is no Exception")
        except WorkerInterrupted as exc:
            caught.append(exc)
            raise

    fix.job("spin", spin)
    assert until(lambda: fix.log == ["spin"])
    assert fix.athread.stop(timeout=1) is True
    assert len(caught) == 1 and fix.failures == []


def test_stop_abandons_a_stuck_function(fix: Fixture) -> None:
    release = threading.Event()

    def stuck() -> None:
        release.wait()  # as time.sleep(1000): in C, sees no exception
        raise ValueError("too late to matter")

    fix.job("stuck", stuck)
    fix.job("later")
    assert until(lambda: fix.log == ["stuck"])
    began = time.monotonic()
    assert fix.athread.stop(timeout=0.4) is False
    assert 0.3 < time.monotonic() - began < 1.5
    fix.athread.resume()
    assert until(lambda: fix.log == ["stuck", "later"]), "a new thread takes over"
    release.set()
    assert until(lambda: sum(t.name == "pandalite-user" for t in threading.enumerate()) == 1)
    assert fix.failures == []


def test_reminder_comes_once(
    fix: Fixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(asyncthread, "_IDLE_REMINDER", 0.2)
    time.sleep(0.4)
    assert capsys.readouterr().err == ""  # nothing was queued
    fix.job("a")
    assert until(lambda: fix.athread.warned)
    assert "end_analysis" in capsys.readouterr().err
    fix.job("b")
    time.sleep(0.5)
    assert "end_analysis" not in capsys.readouterr().err
    fix.athread.stop()
    fix.athread.resume()
    fix.athread.ending = True
    fix.job("c")
    time.sleep(0.5)
    assert capsys.readouterr().err == "" and not fix.athread.warned


def test_idle_threads_cost_no_cpu(fix: Fixture) -> None:
    fix.job("a")
    assert until(lambda: fix.log == ["a"])
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.05


def test_blocking_refuses_the_main_thread() -> None:
    @blocking
    def wait(value: int) -> int:
        """Doc."""
        return value + 1

    assert wait.__blocking__ is True  # type: ignore[attr-defined]
    assert wait.__name__ == "wait (with async thread)"
    assert wait.__doc__ == "Doc."
    with pytest.raises(BlockingCallError, match="Blocking function run in main thread"):
        wait(1)
    with pytest.raises(AssertionError):
        wait(1)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(wait(1)))
    thread.start()
    thread.join()
    assert results == [2]


def test_messages_survive_a_missing_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    from pandalite.utils import progress, warn

    monkeypatch.setattr(sys, "stderr", None)
    warn("x")
    progress("x")
