from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.message_ids import MESSAGE_ID, may_be_of, new_id


@given(st.text(max_size=100), st.text(max_size=100))
def test_an_id_is_of_the_org_it_was_made_for(org, other):
    made = new_id(org)

    assert MESSAGE_ID.fullmatch(made)
    assert may_be_of(made, org)
    assert may_be_of(made, other) == (org == other)


def test_no_two_are_alike():
    assert len({new_id("org") for _ in range(1000)}) == 1000


@pytest.mark.parametrize("foreign", ["", "m-1", "3caa0a5e-0000-4000-8000-000000000000", "a.b", "x" * 128])
def test_an_id_of_another_broker_may_be_anybodys(foreign):
    assert may_be_of(foreign, "org")


def test_an_id_does_not_tell_the_org():
    made = new_id("secret").casefold()

    for told in ("secret", b"secret".hex(), b64encode(b"secret").decode()):
        assert told.casefold() not in made
