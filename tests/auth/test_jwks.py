import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bff.auth.jwks import FRESH_SECONDS, PAUSE_SECONDS, STALE_SECONDS, FixedKey, JWKSCache
from bff.errors import UpstreamTimeout, UpstreamUnavailable
from tests.live import DEADLINE, eventually


class Elsewhere:
    """Where keys come from: what is there now, how often it was asked, and what time it is."""

    def __init__(self, **keys: str) -> None:
        self.keys = keys
        self.asked = 0
        self.now = 1000.0
        self.problem: Exception | None = None

    def __call__(self) -> dict[str, str]:
        self.asked += 1
        if self.problem:
            raise self.problem
        return dict(self.keys)

    def kept(self) -> JWKSCache[str]:
        return JWKSCache(self, lambda: self.now)


def test_nothing_is_fetched_until_a_key_is_wanted():
    there = Elsewhere(a="key a")

    there.kept()

    assert there.asked == 0


def test_a_key_is_fetched_once_and_kept():
    there = Elsewhere(a="key a", b="key b")
    keys = there.kept()

    found = [keys.find(name) for name in "abab"]

    assert found == ["key a", "key b"] * 2
    assert there.asked == 1


def test_a_key_that_is_new_is_fetched_when_it_is_named():
    there = Elsewhere(a="key a")
    keys = there.kept()
    keys.find("a")
    there.keys["b"] = "key b"
    there.now += PAUSE_SECONDS

    assert keys.find("b") == "key b"
    assert there.asked == 2


def test_names_somebody_made_up_are_asked_for_once_in_a_while():
    there = Elsewhere(a="key a")
    keys = there.kept()

    assert [keys.find(f"made up {number}") for number in range(100)] == [None] * 100
    assert there.asked == 1

    there.now += PAUSE_SECONDS
    assert [keys.find(f"made up {number}") for number in range(100)] == [None] * 100
    assert there.asked == 2


def test_a_key_that_was_withdrawn_is_believed_for_a_while_only():
    there = Elsewhere(a="key a", b="key b")
    keys = there.kept()
    keys.find("a")
    del there.keys["a"]

    there.now += FRESH_SECONDS - 1
    assert keys.find("a") == "key a"

    there.now += 1
    assert keys.find("a") is None


def test_keys_are_kept_while_nobody_can_be_asked():
    there = Elsewhere(a="key a")
    keys = there.kept()
    keys.find("a")
    there.problem = UpstreamTimeout()

    for _ in range(3):
        there.now += FRESH_SECONDS
        assert keys.find("a") == "key a"
    assert there.asked == 4


def test_keys_are_not_kept_for_ever():
    there = Elsewhere(a="key a")
    keys = there.kept()
    keys.find("a")
    there.problem = UpstreamTimeout()

    there.now += STALE_SECONDS
    with pytest.raises(UpstreamUnavailable):
        keys.find("a")


def test_without_any_keys_nobody_is_told_to_sign_in_again():
    there = Elsewhere(a="key a")
    there.problem = UpstreamTimeout(detail="no answer")
    keys = there.kept()

    for _ in range(5):
        with pytest.raises(UpstreamUnavailable) as refused:
            keys.find("a")
        assert refused.value.detail == "no answer"
    assert there.asked == 1

    there.problem = None
    there.now += PAUSE_SECONDS
    assert keys.find("a") == "key a"


def test_a_token_that_names_no_key_has_the_only_one_there_is():
    assert Elsewhere(a="key a").kept().find("") == "key a"
    assert Elsewhere(a="key a", b="key b").kept().find("") is None


def test_whoever_comes_together_waits_for_one_fetch():
    there, come, answered = Elsewhere(a="key a"), set(), threading.Event()

    def slowly() -> dict[str, str]:
        assert answered.wait(DEADLINE)
        return there()

    def clock() -> float:
        come.add(threading.get_ident())
        return there.now

    keys = JWKSCache(slowly, clock)
    with ThreadPoolExecutor(10) as threads:
        asking = [threads.submit(keys.find, "a") for _ in range(10)]
        assert eventually(lambda: len(come) == 10, DEADLINE)
        answered.set()
        assert [one.result(DEADLINE) for one in asking] == ["key a"] * 10
    assert there.asked == 1


def test_whoever_has_a_key_does_not_wait_for_a_fetch():
    there, begun, answered = Elsewhere(a="key a"), threading.Event(), threading.Event()

    def slowly_again() -> dict[str, str]:
        if there.asked:
            begun.set()
            assert answered.wait(DEADLINE)
        return there()

    keys = JWKSCache(slowly_again, lambda: there.now)
    keys.find("a")
    there.now += FRESH_SECONDS
    with ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(keys.find, "a")
        assert begun.wait(DEADLINE)

        assert keys.find("a") == "key a"

        answered.set()
        assert fetching.result(DEADLINE) == "key a"


def test_a_fixed_key_has_any_name():
    assert [FixedKey("key").find(name) for name in ("", "a")] == ["key", "key"]
