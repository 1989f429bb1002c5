from hypothesis import given
from hypothesis import strategies as st

from bff.auth.anonymous import Anonymous
from bff.auth.identity import COOKIE
from bff.auth.orgs import Orgs

orgs = Orgs("org")
anonymous = Anonymous("s" * 32, orgs)


def test_each_browser_is_a_user_of_its_own():
    one, other = anonymous.authenticate({}, {}), anonymous.authenticate({}, {})

    assert one.user_id != other.user_id
    assert one.org == "org"


def test_a_cookie_identifies_its_user():
    first = anonymous.authenticate({}, {})

    second = anonymous.authenticate({}, {COOKIE: first.new_cookie})

    assert (second.user_id, second.new_cookie) == (first.user_id, "")


@given(st.text(max_size=40))
def test_a_forged_cookie_makes_a_new_user(forged):
    first = anonymous.authenticate({}, {})

    payload, _, signature = first.new_cookie.rpartition(".")
    for cookie in (forged, first.user_id, payload, f"{payload}x.{signature}"):
        identity = anonymous.authenticate({}, {COOKIE: cookie})
        assert identity.user_id != first.user_id
        assert identity.new_cookie


def test_a_cookie_signed_with_another_key_makes_a_new_user():
    foreign = Anonymous("t" * 32, orgs).authenticate({}, {})

    assert anonymous.authenticate({}, {COOKIE: foreign.new_cookie}).user_id != foreign.user_id


def test_a_cookie_of_the_first_release_identifies_its_user():
    cookie = "ImFub255bW91cy1jZjc5MTljYzkxMGFjMzkyMDAxNjIwMGY4MDg1NTAwMSI.W9ZevsZpHIiWGrCrfvgleIwpwWg"

    identity = Anonymous("k" * 40, orgs).authenticate({}, {COOKIE: cookie})

    assert (identity.user_id, identity.new_cookie) == ("anonymous-cf7919cc910ac3920016200f80855001", "")
