import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bff.auth.jwks import FRESH_SECONDS, REFETCH_SECONDS, STALE_SECONDS, FixedKey, JWKSCache
from bff.errors import UpstreamTimeout, UpstreamUnavailable
from tests.live import DEADLINE, eventually


class KeySet:
    """A `fetch` and a `clock` for JWKSCache; counts the fetches."""

    def __init__(self, **keys: str) -> None:
        self.keys = keys
        self.fetches = 0
        self.now = 1000.0
        self.error: Exception | None = None

    def __call__(self) -> dict[str, str]:
        self.fetches += 1
        if self.error:
            raise self.error
        return dict(self.keys)

    def cache(self) -> JWKSCache[str]:
        return JWKSCache(self, lambda: self.now)


def test_nothing_is_fetched_before_the_first_lookup():
    key_set = KeySet(a="key a")

    key_set.cache()

    assert key_set.fetches == 0


def test_keys_are_cached():
    key_set = KeySet(a="key a", b="key b")
    keys = key_set.cache()

    found = [keys.find(key_id) for key_id in "abab"]

    assert found == ["key a", "key b"] * 2
    assert key_set.fetches == 1


def test_an_unknown_key_id_causes_a_fetch():
    key_set = KeySet(a="key a")
    keys = key_set.cache()
    keys.find("a")
    key_set.keys["b"] = "key b"
    key_set.now += REFETCH_SECONDS

    assert keys.find("b") == "key b"
    assert key_set.fetches == 2


def test_unknown_key_ids_do_not_cause_a_fetch_each():
    key_set = KeySet(a="key a")
    keys = key_set.cache()

    assert [keys.find(f"made up {number}") for number in range(100)] == [None] * 100
    assert key_set.fetches == 1

    key_set.now += REFETCH_SECONDS
    assert [keys.find(f"made up {number}") for number in range(100)] == [None] * 100
    assert key_set.fetches == 2


def test_a_revoked_key_is_accepted_until_the_cache_expires():
    key_set = KeySet(a="key a", b="key b")
    keys = key_set.cache()
    keys.find("a")
    del key_set.keys["a"]

    key_set.now += FRESH_SECONDS - 1
    assert keys.find("a") == "key a"

    key_set.now += 1
    assert keys.find("a") is None


def test_stale_keys_are_used_while_fetches_fail():
    key_set = KeySet(a="key a")
    keys = key_set.cache()
    keys.find("a")
    key_set.error = UpstreamTimeout()

    for _ in range(3):
        key_set.now += FRESH_SECONDS
        assert keys.find("a") == "key a"
    assert key_set.fetches == 4


def test_stale_keys_expire():
    key_set = KeySet(a="key a")
    keys = key_set.cache()
    keys.find("a")
    key_set.error = UpstreamTimeout()

    key_set.now += STALE_SECONDS
    with pytest.raises(UpstreamUnavailable):
        keys.find("a")


def test_a_failed_fetch_without_cached_keys_raises_upstream_unavailable():
    key_set = KeySet(a="key a")
    key_set.error = UpstreamTimeout(detail="no answer")
    keys = key_set.cache()

    for _ in range(5):
        with pytest.raises(UpstreamUnavailable) as refused:
            keys.find("a")
        assert refused.value.detail == "no answer"
    assert key_set.fetches == 1

    key_set.error = None
    key_set.now += REFETCH_SECONDS
    assert keys.find("a") == "key a"


def test_an_empty_key_id_finds_the_only_key():
    assert KeySet(a="key a").cache().find("") == "key a"
    assert KeySet(a="key a", b="key b").cache().find("") is None


def test_concurrent_lookups_share_one_fetch():
    key_set, waiting, release = KeySet(a="key a"), set(), threading.Event()

    def slow_fetch() -> dict[str, str]:
        assert release.wait(DEADLINE)
        return key_set()

    def clock() -> float:
        waiting.add(threading.get_ident())
        return key_set.now

    keys = JWKSCache(slow_fetch, clock)
    with ThreadPoolExecutor(10) as threads:
        lookups = [threads.submit(keys.find, "a") for _ in range(10)]
        assert eventually(lambda: len(waiting) == 10, DEADLINE)
        release.set()
        assert [lookup.result(DEADLINE) for lookup in lookups] == ["key a"] * 10
    assert key_set.fetches == 1


def test_a_cached_key_is_returned_during_a_fetch():
    key_set, entered, release = KeySet(a="key a"), threading.Event(), threading.Event()

    def slow_second_fetch() -> dict[str, str]:
        if key_set.fetches:
            entered.set()
            assert release.wait(DEADLINE)
        return key_set()

    keys = JWKSCache(slow_second_fetch, lambda: key_set.now)
    keys.find("a")
    key_set.now += FRESH_SECONDS
    with ThreadPoolExecutor(1) as threads:
        lookup = threads.submit(keys.find, "a")
        assert entered.wait(DEADLINE)

        assert keys.find("a") == "key a"

        release.set()
        assert lookup.result(DEADLINE) == "key a"


def test_a_fixed_key_has_every_key_id():
    assert [FixedKey("key").find(key_id) for key_id in ("", "a")] == ["key", "key"]
