import pytest

from bff.auth.identity import MAX_USER_ID_BYTES, validate_user_id
from bff.errors import Unauthorized
from tests.odd_users import REFUSED, short_id


@pytest.mark.parametrize("user", REFUSED, ids=short_id)
def test_an_unsupported_user_id_is_refused(user):
    with pytest.raises(Unauthorized):
        validate_user_id(user)


def test_composed_and_decomposed_user_ids_are_the_same():
    assert validate_user_id("jose\u0301") == validate_user_id("jos\u00e9") == "jos\u00e9"


def test_the_limit_counts_the_normalized_user_id():
    letter = "\u0958"  # NFC decomposes this one: three bytes become six.
    count = MAX_USER_ID_BYTES // 6

    assert len(validate_user_id(letter * count).encode()) == count * 6
    with pytest.raises(Unauthorized):
        validate_user_id(letter * (count + 1))
