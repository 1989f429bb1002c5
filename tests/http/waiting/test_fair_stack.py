import threading
from queue import Empty, Full

import pytest

from bff.http.waiting.fair_stack import FairStack
from tests.live import DEADLINE, eventually


class Caller:
    """Waits for an item in a thread."""

    def __init__(self, stack: FairStack) -> None:
        self.item = ""
        self._stack = stack
        self._thread = threading.Thread(target=self._get, daemon=True)
        waiting = len(stack._waiting)
        self._thread.start()
        assert eventually(lambda: len(stack._waiting) > waiting)

    def _get(self) -> None:
        self.item = self._stack.get(timeout=DEADLINE)

    def join(self) -> str:
        self._thread.join(DEADLINE)
        return self.item


@pytest.fixture
def stack() -> FairStack:
    return FairStack(2)


def test_the_last_item_is_the_first_out_and_the_size_is_limited(stack):
    stack.put_nowait("first")
    stack.put_nowait("second")

    with pytest.raises(Full):
        stack.put_nowait("third")
    assert [stack.get(), stack.get_nowait()] == ["second", "first"]
    with pytest.raises(Empty):
        stack.get_nowait()


def test_those_who_wait_are_served_in_their_order_and_not_overtaken(stack):
    callers = [Caller(stack) for _ in range(2)]

    stack.put_nowait("first")
    with pytest.raises(Empty):
        stack.get_nowait()
    stack.put_nowait("second")

    assert [caller.join() for caller in callers] == ["first", "second"]


def test_who_has_stopped_waiting_is_not_served(stack):
    with pytest.raises(Empty):
        stack.get(timeout=0.01)

    stack.put_nowait("first")

    assert stack.get_nowait() == "first"
