import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth import tickets
from bff.auth.identity import Identity
from bff.auth.tickets import OPEN_SECONDS, Tickets
from bff.errors import Unauthorized

ADA = Identity("ada", "Some Org")
SECONDS = 600.0
PATH = "/api/chat/stream/m-1"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def issuer(clock):
    return Tickets("k" * 32, SECONDS, clock)


def opens(issuer: Tickets, ticket: str, path: str = PATH, *, comes_back: bool = False) -> bool:
    try:
        return issuer.redeem(ticket, path, comes_back=comes_back).identity == ADA
    except Unauthorized:
        return False


def test_a_ticket_says_who_it_was_issued_to(issuer):
    assert opens(issuer, issuer.issue(ADA))


def test_a_ticket_opens_one_stream_once(issuer):
    ticket = issuer.issue(ADA)

    assert opens(issuer, ticket)
    assert not opens(issuer, ticket)
    assert not opens(issuer, ticket, "/api/chat/stream/m-2")
    assert not opens(issuer, ticket, "/api/chat/stream/m-2", comes_back=True)


def test_the_stream_it_opened_may_be_opened_again_by_who_comes_back(issuer, clock):
    ticket = issuer.issue(ADA)
    opens(issuer, ticket)

    for _ in range(5):
        clock.now += SECONDS / 5 - 1
        assert opens(issuer, ticket, comes_back=True)

    clock.now += 10
    assert not opens(issuer, ticket, comes_back=True)


def test_a_ticket_that_was_not_used_is_soon_worth_nothing(issuer, clock):
    ticket = issuer.issue(ADA)

    clock.now += OPEN_SECONDS + 1

    assert not opens(issuer, ticket)


def test_a_ticket_that_opened_nothing_can_be_used_again(issuer):
    ticket = issuer.issue(ADA)
    opens(issuer, ticket)

    issuer.release(ticket)

    assert opens(issuer, ticket, "/api/chat/stream/m-2")
    assert not opens(issuer, ticket)


def test_another_process_takes_a_ticket_for_who_comes_back(issuer, clock):
    ticket = issuer.issue(ADA)
    opens(issuer, ticket)
    elsewhere = Tickets("k" * 32, SECONDS, clock)

    clock.now += OPEN_SECONDS + 1

    assert not opens(elsewhere, ticket)
    assert opens(elsewhere, ticket, comes_back=True)
    assert not opens(elsewhere, ticket, "/api/chat/stream/m-2", comes_back=True)


def test_tickets_are_issued_in_any_number_and_differ(issuer):
    issued = [issuer.issue(ADA) for _ in range(100)]

    assert len(set(issued)) == 100
    assert all(opens(issuer, ticket) for ticket in issued)


@given(st.text(max_size=80), st.integers(0, 200))
def test_a_ticket_that_was_changed_anywhere_opens_nothing_more(made_up, at):
    issuer = Tickets("k" * 32, SECONDS)
    genuine = issuer.issue(ADA)
    at %= genuine.rindex(".")
    assert opens(issuer, genuine)

    # Base64 can be written in several ways: what is decoded must not count as another ticket.
    for forged in (made_up, f"{genuine}{made_up}x", f"{genuine[:at]}{made_up}_{genuine[at:]}"):
        assert not opens(issuer, forged)


def test_a_ticket_signed_with_another_key_opens_nothing(issuer, clock):
    assert not opens(issuer, Tickets("l" * 32, SECONDS, clock).issue(ADA))


def test_what_is_remembered_is_bounded(issuer, clock, monkeypatch):
    monkeypatch.setattr(tickets, "REMEMBER_MOST", 10)
    issued = [issuer.issue(ADA) for _ in range(20)]
    for ticket in issued:
        opens(issuer, ticket)

    assert len(issuer._opened) == 10
    assert not any(opens(issuer, ticket) for ticket in issued[10:])

    clock.now += SECONDS + 1
    opens(issuer, issuer.issue(ADA))
    assert len(issuer._opened) == 1


def test_the_longest_user_id_fits_into_a_url(issuer):
    identity = Identity("語" * 256, "o" * 100)

    ticket = issuer.issue(identity)

    assert len(ticket) < 3000
    assert issuer.redeem(ticket, PATH, comes_back=False).identity == identity
