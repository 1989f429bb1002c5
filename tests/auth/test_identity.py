import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import COOKIE, Anonymous, Proxy, validate_user_id
from bff.auth.orgs import Orgs
from bff.errors import Forbidden, Unauthorized
from tests.odd_users import ODD, REFUSED, short_id

SECRET = "s" * 32
orgs = Orgs("org")
anonymous = Anonymous(SECRET, orgs)
proxy = Proxy("X-Forwarded-User", SECRET, orgs)


def test_each_browser_is_a_user_of_its_own():
    one, other = anonymous.authenticate({}, {}), anonymous.authenticate({}, {})

    assert one.user_id != other.user_id
    assert one.org == "org"


def test_a_browser_that_comes_back_is_the_same_user():
    first = anonymous.authenticate({}, {})

    again = anonymous.authenticate({}, {COOKIE: first.new_cookie})

    assert (again.user_id, again.new_cookie) == (first.user_id, "")


@given(st.text(max_size=40))
def test_a_cookie_we_did_not_sign_makes_a_new_user(forged):
    first = anonymous.authenticate({}, {})

    payload, _, signature = first.new_cookie.rpartition(".")
    for cookie in (forged, first.user_id, payload, f"{payload}x.{signature}"):
        identity = anonymous.authenticate({}, {COOKIE: cookie})
        assert identity.user_id != first.user_id
        assert identity.new_cookie


def test_a_cookie_signed_with_another_key_makes_a_new_user():
    elsewhere = Anonymous("t" * 32, orgs).authenticate({}, {})

    assert anonymous.authenticate({}, {COOKIE: elsewhere.new_cookie}).user_id != elsewhere.user_id


def test_a_proxy_that_proves_itself_is_believed():
    for user in ODD:
        # In a WSGI header, bytes are Latin-1.
        identity = proxy.authenticate({"X-Proxy-Secret": SECRET, "X-Forwarded-User": user.encode().decode("latin-1")}, {})

        assert identity.user_id == user


@pytest.mark.parametrize("proof", ["", "s", SECRET + "s", SECRET.upper(), "\udcff", "é" * 32])
def test_a_proxy_that_does_not_is_refused(proof):
    with pytest.raises(Forbidden):
        proxy.authenticate({"X-Proxy-Secret": proof, "X-Forwarded-User": "u"}, {})


@pytest.mark.parametrize("user", REFUSED, ids=short_id)
def test_a_user_that_no_service_could_take_is_refused(user):
    with pytest.raises(Unauthorized):
        validate_user_id(user)


@pytest.mark.parametrize("header", ["\xe9", "zo\xeb", "\xff", "日本"])
def test_a_proxy_names_its_users_in_utf_8(header):
    with pytest.raises(Unauthorized, match="UTF-8"):
        proxy.authenticate({"X-Proxy-Secret": SECRET, "X-Forwarded-User": header}, {})
