import pytest

from bff.auth.identity import validate_user_id
from bff.errors import Unauthorized
from tests.odd_users import REFUSED, short_id


@pytest.mark.parametrize("user", REFUSED, ids=short_id)
def test_an_unsupported_user_id_is_refused(user):
    with pytest.raises(Unauthorized):
        validate_user_id(user)
