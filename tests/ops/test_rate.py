import threading
from time import monotonic

import pytest

from bff.errors import TooManyRequests
from bff.ops import rate
from bff.ops.rate import Rate


def test_a_user_has_so_many_a_minute():
    users = Rate(3)
    for _ in range(3):
        users.count("ada")

    with pytest.raises(TooManyRequests) as refused:
        users.count("ada")

    assert 55 <= refused.value.retry_after <= 60
    users.count("bob")


def test_who_comes_back_when_told_to_finds_room(monkeypatch):
    monkeypatch.setattr(rate, "MINUTE", 1.4)
    users = Rate(1)
    users.count("ada")

    with pytest.raises(TooManyRequests) as refused:
        users.count("ada")

    assert refused.value.retry_after == 2


def test_there_is_room_again_after_a_minute(monkeypatch):
    monkeypatch.setattr(rate, "MINUTE", 0.3)
    users, began = Rate(2), monotonic()

    counted = 0
    while monotonic() < began + 1:
        try:
            users.count("ada")
            counted += 1
        except TooManyRequests:
            threading.Event().wait(0.01)

    assert counted in {6, 8}


def test_who_is_refused_waits_no_longer_for_asking_again(monkeypatch):
    monkeypatch.setattr(rate, "MINUTE", 0.3)
    users, began = Rate(1), monotonic()
    users.count("ada")

    while True:
        try:
            users.count("ada")
            break
        except TooManyRequests:
            threading.Event().wait(0.01)

    assert 0.29 < monotonic() - began < 1
