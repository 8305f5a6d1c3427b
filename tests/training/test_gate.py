"""The gate, with threads: shared by many, or one alone; first come, first served."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from helpers.console import wait_for

from charcmp.training.gate import Gate

Start = Callable[[Callable[[], None]], threading.Thread]
WAIT = 10.0


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a thread; all of them end, in time, before the test does."""
    threads: list[threading.Thread] = []

    def begin(work: Callable[[], None]) -> threading.Thread:
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return threads[-1]

    yield begin
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


class Waiting(threading.Event):
    """An event that a test waits for, with a limit."""

    def wait(self, timeout: float | None = WAIT) -> bool:
        assert super().wait(timeout)
        return True


def waiting_at(gate: Gate, number: int) -> None:
    """Until so many threads wait."""
    wait_for(lambda: len(gate._queue) == number, WAIT)


def test_many_share_it(start: Start) -> None:
    gate, together = Gate(), threading.Barrier(3)

    def share() -> None:
        with gate.shared():
            together.wait(WAIT)  # passes if three share it at once

    for thread in [start(share) for _ in range(3)]:
        thread.join(WAIT)
    assert not together.broken


def test_one_alone_excludes_all_others(start: Start) -> None:
    """Eight threads share the gate, let others go first, and are alone at times."""
    gate, lock = Gate(), threading.Lock()
    sharing = alone = 0
    seen: list[tuple[int, int]] = []

    def count(shares: int, takes: int) -> None:
        nonlocal sharing, alone
        with lock:
            sharing, alone = sharing + shares, alone + takes
            seen.append((sharing, alone))

    def run() -> None:
        with gate.shared():
            for turn in range(60):
                count(1, 0)
                if turn % 5 == 0:
                    time.sleep(0.0002)
                count(-1, 0)
                gate.let_others()
                if turn % 20 == 10:
                    with gate.alone():
                        count(0, 1)
                        time.sleep(0.0005)
                        count(0, -1)

    threads = [start(run) for _ in range(8)]
    for thread in threads:
        thread.join(WAIT)
    assert len(seen) == 8 * (2 * 60 + 2 * 3)
    assert all(takes <= 1 and not (takes and shares) for shares, takes in seen)
    assert max(shares for shares, _ in seen) > 1


def test_first_come_first_served(start: Start) -> None:
    gate, release, order = Gate(), Waiting(), []

    def hold() -> None:
        with gate.shared():
            release.wait()

    def capture(name: str) -> Callable[[], None]:
        def work() -> None:
            with gate.alone():
                order.append(name)

        return work

    def share() -> None:
        with gate.shared():
            order.append("shared")

    start(hold)
    wait_for(lambda: gate._num_sharing == 1)
    for number, work in enumerate((capture("first"), share, capture("second"), share), start=1):
        start(work)
        waiting_at(gate, number)  # also those that could share at once wait behind a capture
    release.set()
    wait_for(lambda: len(order) == 4)
    assert order == ["first", "shared", "second", "shared"]


def test_a_share_lets_a_capture_pass_and_no_more(start: Start) -> None:
    """Between two steps: a capture that waits goes first; another that comes later does not."""
    gate, order, in_first = Gate(), [], Waiting()

    def first() -> None:
        with gate.alone():
            in_first.set()
            waiting_at(gate, 2)  # the step that waits, and the second capture behind it
            order.append("first")

    def second() -> None:
        in_first.wait()
        waiting_at(gate, 1)
        with gate.alone():
            order.append("second")

    with gate.shared():
        gate.let_others()  # nobody waits
        start(first)
        waiting_at(gate, 1)
        start(second)
        gate.let_others()
        order.append("step")
        assert gate.is_shared_by_me()
    wait_for(lambda: len(order) == 3)
    assert order == ["first", "step", "second"]


def test_two_that_share_and_both_want_it_alone(start: Start) -> None:
    """Neither keeps its share while it waits: each would wait for the other for ever."""
    gate, both, captured = Gate(), threading.Barrier(2), []

    def run() -> None:
        with gate.shared():
            both.wait(WAIT)
            with gate.alone():
                assert not captured or captured[-1] != threading.get_ident()
                captured.append(threading.get_ident())
            assert gate.is_shared_by_me()

    for thread in [start(run), start(run)]:
        thread.join(WAIT)
    assert len(set(captured)) == 2


@pytest.mark.parametrize("how", ["shared", "alone", "alone within shared"])
def test_a_thread_that_dies_holds_it_no_longer(start: Start, how: str) -> None:
    gate, errors = Gate(), []

    def dies() -> None:
        try:
            if how == "alone within shared":
                with gate.shared(), gate.alone():
                    raise ValueError("no memory")
            with getattr(gate, how)():
                raise ValueError("no memory")
        except ValueError as error:
            errors.append(error)

    start(dies).join(WAIT)
    assert len(errors) == 1
    with gate.alone():  # would wait for ever
        pass
    with gate.shared():
        pass
    assert (gate._num_sharing, gate._is_taken, len(gate._queue)) == (0, False, 0)


def test_who_is_interrupted_while_waiting_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt  # a signal, in the main thread

    with monkeypatch.context() as patch:
        patch.setattr(gate._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), gate.alone():
            pass
    with gate.alone():
        pass
    assert not gate._queue


def test_it_is_for_those_who_share_it() -> None:
    gate = Gate()
    with pytest.raises(AssertionError):
        gate.let_others()
    with gate.shared(), pytest.raises(AssertionError), gate.shared():
        pass
