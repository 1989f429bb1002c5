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


def opens(issuer: Tickets, ticket: str, path: str = PATH, *, resumable: bool = False) -> bool:
    try:
        return issuer.redeem(ticket, path, resumable=resumable).identity == ADA
    except Unauthorized:
        return False


def test_a_ticket_identifies_its_user(issuer):
    assert opens(issuer, issuer.issue(ADA))


def test_a_ticket_opens_one_stream(issuer):
    ticket = issuer.issue(ADA)

    assert opens(issuer, ticket)
    assert not opens(issuer, ticket)
    assert not opens(issuer, ticket, "/api/chat/stream/m-2")
    assert not opens(issuer, ticket, "/api/chat/stream/m-2", resumable=True)


def test_a_ticket_resumes_its_stream_until_it_expires(issuer, clock):
    ticket = issuer.issue(ADA)
    opens(issuer, ticket)

    for _ in range(5):
        clock.now += SECONDS / 5 - 1
        assert opens(issuer, ticket, resumable=True)

    clock.now += 10
    assert not opens(issuer, ticket, resumable=True)


def test_an_unused_ticket_expires(issuer, clock):
    ticket = issuer.issue(ADA)

    clock.now += OPEN_SECONDS + 1

    assert not opens(issuer, ticket)


def test_a_released_ticket_can_be_used_again(issuer):
    ticket = issuer.issue(ADA)
    opens(issuer, ticket)

    issuer.release(ticket)

    assert opens(issuer, ticket, "/api/chat/stream/m-2")
    assert not opens(issuer, ticket)


def test_another_process_accepts_a_ticket_for_a_resume(issuer, clock):
    ticket = issuer.issue(ADA)
    opens(issuer, ticket)
    other_process = Tickets("k" * 32, SECONDS, clock)

    clock.now += OPEN_SECONDS + 1

    assert not opens(other_process, ticket)
    assert opens(other_process, ticket, resumable=True)
    assert not opens(other_process, ticket, "/api/chat/stream/m-2", resumable=True)


def test_every_ticket_is_unique(issuer):
    issued = [issuer.issue(ADA) for _ in range(100)]

    assert len(set(issued)) == 100
    assert all(opens(issuer, ticket) for ticket in issued)


@given(st.text(max_size=80), st.integers(0, 200))
def test_a_modified_ticket_is_refused(inserted, position):
    issuer = Tickets("k" * 32, SECONDS)
    genuine = issuer.issue(ADA)
    position %= genuine.rindex(".")
    assert opens(issuer, genuine)

    # Base64 can be written in several ways: what is decoded must not count as another ticket.
    for forged in (inserted, f"{genuine}{inserted}x", f"{genuine[:position]}{inserted}_{genuine[position:]}"):
        assert not opens(issuer, forged)


def test_a_ticket_signed_with_another_key_is_refused(issuer, clock):
    assert not opens(issuer, Tickets("l" * 32, SECONDS, clock).issue(ADA))


def test_the_number_of_remembered_tickets_is_limited(issuer, clock, monkeypatch):
    monkeypatch.setattr(tickets, "MAX_REMEMBERED", 10)
    issued = [issuer.issue(ADA) for _ in range(20)]
    for ticket in issued:
        opens(issuer, ticket)

    assert len(issuer._redeemed) == 10
    assert not any(opens(issuer, ticket) for ticket in issued[10:])

    clock.now += SECONDS + 1
    opens(issuer, issuer.issue(ADA))
    assert len(issuer._redeemed) == 1


def test_the_longest_user_id_fits_into_a_url(issuer):
    identity = Identity("語" * 256, "o" * 100)

    ticket = issuer.issue(identity)

    assert len(ticket) < 3000
    assert issuer.redeem(ticket, PATH, resumable=False).identity == identity
