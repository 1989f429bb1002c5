from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.upstream.message_ids import MESSAGE_ID, group_mark, group_mark_of, may_be_of, new_id


@given(st.text(max_size=100), st.text(max_size=100))
def test_an_id_is_of_the_org_it_was_made_for(org, other):
    made = new_id(org, "ann", "group")

    assert MESSAGE_ID.fullmatch(made)
    assert may_be_of(made, org)
    assert may_be_of(made, other) == (org == other)


def test_no_two_are_alike():
    assert len({new_id("org", "ann") for _ in range(1000)}) == 1000


@pytest.mark.parametrize("foreign", ["", "m-1", "3caa0a5e-0000-4000-8000-000000000000", "a.b", "x" * 128])
def test_an_id_of_another_broker_may_be_anybodys(foreign):
    assert may_be_of(foreign, "org")


def test_an_id_tells_neither_org_nor_user_nor_group():
    made = new_id("secret", "private", "hidden").casefold()

    for word in (b"secret", b"private", b"hidden"):
        for told in (word.decode(), word.hex(), b64encode(word).decode()):
            assert told.casefold() not in made


groups = st.tuples(st.text(st.characters(exclude_characters="\0"), min_size=1), st.text())


@given(groups, groups)
def test_an_id_ends_in_the_mark_of_its_group(one, other):
    made = new_id("org", *one)

    assert made.endswith(f".{group_mark(*one)}")
    assert group_mark_of(made, "anybody") == group_mark(*one)
    assert (group_mark(*one) == group_mark(*other)) == (one == other)


@pytest.mark.parametrize(
    "foreign", ["m-1", "3caa0a5e-0000-4000-8000-000000000000", f"{'0' * 8}-0000-0000-0000-{'0' * 12}.{'0' * 12}"]
)
def test_an_id_without_a_mark_is_of_the_users_own_group(foreign):
    assert group_mark_of(foreign, "ann") == group_mark("ann")
