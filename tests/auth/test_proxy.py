import unicodedata

import pytest

from bff.auth.orgs import Orgs
from bff.auth.proxy import Proxy
from bff.errors import Forbidden, Unauthorized
from tests.odd_users import ODD

SECRET = "s" * 32
proxy = Proxy("X-Forwarded-User", SECRET, Orgs("org"))


def test_a_proxy_with_the_secret_names_the_user():
    for user in ODD:
        # WSGI decodes headers as Latin-1.
        identity = proxy.authenticate({"X-Proxy-Secret": SECRET, "X-Forwarded-User": user.encode().decode("latin-1")}, {})

        assert identity.user_id == unicodedata.normalize("NFC", user)


@pytest.mark.parametrize("secret", ["", "s", SECRET + "s", SECRET.upper(), "\udcff", "é" * 32])
def test_a_proxy_without_the_secret_is_refused(secret):
    with pytest.raises(Forbidden):
        proxy.authenticate({"X-Proxy-Secret": secret, "X-Forwarded-User": "u"}, {})


@pytest.mark.parametrize("header", ["\xe9", "zo\xeb", "\xff", "日本"])
def test_a_user_header_that_is_not_utf_8_is_refused(header):
    with pytest.raises(Unauthorized, match="UTF-8"):
        proxy.authenticate({"X-Proxy-Secret": SECRET, "X-Forwarded-User": header}, {})
