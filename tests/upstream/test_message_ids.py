from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.upstream.message_ids import MESSAGE_ID, group_mark, group_mark_of, may_be_of, new_id


@given(st.text(max_size=100), st.text(max_size=100))
def test_an_id_belongs_to_its_org_only(org, other):
    message_id = new_id(org, "ann", "group")

    assert MESSAGE_ID.fullmatch(message_id)
    assert may_be_of(message_id, org)
    assert may_be_of(message_id, other) == (org == other)


def test_ids_are_unique():
    assert len({new_id("org", "ann") for _ in range(1000)}) == 1000


@pytest.mark.parametrize("foreign", ["", "m-1", "3caa0a5e-0000-4000-8000-000000000000", "a.b", "x" * 128])
def test_an_id_of_another_broker_may_belong_to_any_org(foreign):
    assert may_be_of(foreign, "org")


def test_an_id_reveals_neither_org_nor_user_nor_group():
    message_id = new_id("secret", "private", "hidden").casefold()

    for word in (b"secret", b"private", b"hidden"):
        for encoded in (word.decode(), word.hex(), b64encode(word).decode()):
            assert encoded.casefold() not in message_id


groups = st.tuples(st.text(st.characters(exclude_characters="\0"), min_size=1), st.text())


@given(groups, groups)
def test_an_id_ends_in_its_groups_hash(one, other):
    message_id = new_id("org", *one)

    assert message_id.endswith(f".{group_mark(*one)}")
    assert group_mark_of(message_id, "anybody") == group_mark(*one)
    assert (group_mark(*one) == group_mark(*other)) == (one == other)


@pytest.mark.parametrize(
    "foreign", ["m-1", "3caa0a5e-0000-4000-8000-000000000000", f"{'0' * 8}-0000-0000-0000-{'0' * 12}.{'0' * 12}"]
)
def test_an_id_without_a_hash_belongs_to_the_users_own_group(foreign):
    assert group_mark_of(foreign, "ann") == group_mark("ann")
