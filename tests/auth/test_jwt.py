import base64
import hmac
import json
import time
from functools import cache
from hashlib import sha256

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.auth.jwks import FixedKey, JWKSCache
from bff.auth.jwt import JWT, Claims, Key, keys_of
from bff.auth.orgs import Orgs
from bff.errors import Unauthorized
from tests.live import new_app
from tests.wire_server import HANG, WireServer, reply

SECRET = "s" * 32
CLAIMS = Claims("chat", "https://id.example")
by_secret = JWT(FixedKey(Key("HS256", SECRET)), CLAIMS, cookie="session", orgs=Orgs("default"))


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def jwk(key, kid: str = "", **more: str) -> dict:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return json.loads(algorithm.to_jwk(key.public_key())) | ({"kid": kid} if kid else {}) | more


def by_keys(*listed: dict) -> JWT:
    return JWT(JWKSCache(lambda: keys_of({"keys": list(listed)})), CLAIMS, cookie="", orgs=Orgs("default"))


def claims(**changes) -> dict:
    now = time.time()
    said = {"sub": "ada", "aud": "chat", "iss": "https://id.example", "exp": now + 300, "org": "Some Org"} | changes
    return {name: value for name, value in said.items() if value is not None}


def token(key=SECRET, algorithm: str = "HS256", headers: dict | None = None, **changes) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers)


def segment(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def refused(mode: JWT, text: str) -> bool:
    with pytest.raises(Unauthorized) as error:
        mode.authenticate(bearer(text), {})
    assert text not in str(error.value) + error.value.detail or not text
    return True


# Who is believed


def test_a_token_says_who_its_user_is():
    assert by_secret.authenticate(bearer(token()), {}) == Identity("ada", "Some Org")


def test_a_token_may_come_in_a_cookie():
    assert by_secret.authenticate({}, {"session": token()}).user_id == "ada"


def test_a_header_wins_over_a_cookie_even_if_it_is_worth_nothing():
    with pytest.raises(Unauthorized):
        by_secret.authenticate(bearer("nothing"), {"session": token()})


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer", "Token x"])
def test_whoever_brings_no_token_is_refused(header):
    with pytest.raises(Unauthorized):
        by_secret.authenticate({"Authorization": header} if header else {}, {})


def test_no_cookie_is_looked_at_that_was_not_named():
    mode = JWT(FixedKey(Key("HS256", SECRET)), CLAIMS, cookie="", orgs=Orgs("default"))

    with pytest.raises(Unauthorized):
        mode.authenticate({}, {"session": token(), "": token()})


def test_clocks_may_differ_a_little():
    now = time.time()

    for changes in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        assert by_secret.authenticate(bearer(token(**changes)), {}).user_id == "ada"


@pytest.mark.parametrize(
    ("org", "taken"),
    [("A-b_c 9", "A-b_c 9"), ("a/b", "default"), (" a", "default"), ("", "default"), (7, "default"), (None, "default")],
)
def test_an_org_is_taken_if_it_is_one(org, taken):
    assert by_secret.authenticate(bearer(token(org=org)), {}).org == taken


def test_user_and_org_may_have_other_claims():
    mode = JWT(FixedKey(Key("HS256", SECRET)), Claims("chat", "", "email", "tenant"), cookie="", orgs=Orgs("default"))

    identity = mode.authenticate(bearer(token(email="ada@x.org", tenant="t1")), {})

    assert identity == Identity("ada@x.org", "t1")


# Who is not


NOW = time.time()
REFUSED = {
    "expired": {"exp": NOW - 60},
    "never expiring": {"exp": None},
    "expiring at some word": {"exp": "soon"},
    "not yet valid": {"nbf": NOW + 3600},
    "issued in the future": {"iat": NOW + 3600},
    "for somebody else": {"aud": "billing"},
    "for nobody": {"aud": None},
    "of another issuer": {"iss": "https://evil.example"},
    "of an issuer that begins alike": {"iss": "https://id.example.evil"},
    "of no issuer": {"iss": None},
    "of no user": {"sub": None},
    "of an empty user": {"sub": " "},
    "of a user that is a path": {"sub": ".."},
    "of a user with a line feed": {"sub": "a\nb"},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_a_token_that_is_not_meant_for_us_now_is_refused(changes):
    assert refused(by_secret, token(**changes))


def test_a_user_that_is_a_number_is_refused():
    body = f"{segment({'alg': 'HS256'})}.{segment(claims(sub=7))}"
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), body.encode(), sha256)).rstrip(b"=").decode()

    assert refused(by_secret, f"{body}.{signature}")


def test_a_token_for_a_named_audience_is_refused_by_who_was_not_told_to_be_it():
    assert refused(JWT(FixedKey(Key("HS256", SECRET)), Claims("", ""), cookie="", orgs=Orgs("o")), token())


def test_a_token_of_another_key_is_refused():
    assert refused(by_secret, token("t" * 32))
    assert refused(by_keys(jwk(rsa_key(), "a")), token(rsa_key(2049), "RS256", {"kid": "a"}))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, "HS512", "RS256", "../HS256"])
def test_the_tokens_own_word_on_its_algorithm_is_worth_nothing(alg):
    unsigned = f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(claims())}"
    genuine = token().rpartition(".")[2]

    for mode in (by_secret, by_keys(jwk(rsa_key(), "a"))):
        for signature in ("", genuine):
            assert refused(mode, f"{unsigned}.{signature}")


@pytest.mark.parametrize("form", ["SubjectPublicKeyInfo", "PKCS1"])
def test_a_public_key_is_no_secret_to_sign_with(form):
    public = rsa_key().public_key().public_bytes(serialization.Encoding.PEM, getattr(serialization.PublicFormat, form))
    body = f"{segment({'alg': 'HS256', 'kid': 'a'})}.{segment(claims())}"
    signature = base64.urlsafe_b64encode(hmac.digest(public, body.encode(), sha256)).rstrip(b"=").decode()

    assert refused(by_keys(jwk(rsa_key(), "a")), f"{body}.{signature}")


def test_a_key_that_a_token_brings_along_is_not_taken():
    headers = {"jwk": jwk(rsa_key(2049)), "jku": "https://evil.example/keys", "x5u": "https://evil.example/x", "kid": "a"}

    assert refused(by_keys(jwk(rsa_key(), "a")), token(rsa_key(2049), "RS256", headers))


def test_what_is_critical_and_unknown_is_refused():
    assert refused(by_secret, token(headers={"crit": ["exp"], "exp": 1}))


@pytest.mark.parametrize("text", ["x" * 8193, "a.b", "....", "a.b.c", "\ud800", "é.é.é", "e30.e30.", segment([1]) + ".e30."])
def test_what_is_no_token_is_refused(text):
    assert refused(by_secret, text)


def test_a_token_that_is_nested_too_deeply_is_refused():
    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()

    assert refused(by_secret, f"{deep}..")
    assert refused(by_secret, f"{segment({'alg': 'HS256'})}.{deep}.")


@given(st.integers(0, 400), st.characters(codec="ascii"))
def test_a_token_that_was_changed_anywhere_is_refused(at, letter):
    genuine = token()
    at %= len(genuine)

    changed = genuine[:at] + letter + genuine[at + 1 :]

    try:
        identity = by_secret.authenticate(bearer(changed), {})
    except Unauthorized:
        return
    # Base64 has bits to spare in a last letter, and white space at the ends is none of the token's.
    assert identity == Identity("ada", "Some Org")
    assert at == len(genuine) - 1 or changed == genuine


# Keys that are published


@pytest.mark.parametrize(("make", "algorithm"), [(rsa_key, "RS256"), (ec_key, "ES256")])
def test_a_token_is_checked_with_the_key_it_names(make, algorithm):
    mode = by_keys(jwk(rsa_key(2049), "other"), jwk(make(), "mine"))

    assert mode.authenticate(bearer(token(make(), algorithm, {"kid": "mine"})), {}).user_id == "ada"
    assert refused(mode, token(make(), algorithm, {"kid": "other"}))
    assert refused(mode, token(make(), algorithm, {"kid": "unknown"}))
    assert refused(mode, token(make(), algorithm))


def test_only_keys_that_sign_safely_are_taken():
    good = [jwk(rsa_key(), "rsa"), jwk(ec_key(), "ec", use="sig", alg="ES256")]
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ec_key()))
    bad = [
        jwk(rsa_key(1024), "weak"),
        jwk(ec_key(ec.SECP384R1), "another curve"),
        jwk(rsa_key(), "encrypts", use="enc"),
        jwk(rsa_key(), "another algorithm", alg="RS512"),
        private | {"kid": "private"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric", "alg": "HS256"},
        {"kty": "RSA", "kid": "incomplete"},
        {"kty": ["RSA"], "kid": "odd"},
        {"kid": "nothing"},
        "no object",
    ]

    assert sorted(keys_of({"keys": [*bad, *good]})) == ["ec", "rsa"]


@pytest.mark.parametrize("content", [{}, {"keys": None}, {"keys": {"a": 1}}, {"keys": []}])
def test_what_is_no_key_set_has_no_keys(content):
    assert keys_of(content) == {}


def test_a_secret_is_in_no_repr():
    assert SECRET not in repr(Key("HS256", SECRET))


# The whole app


def client(url: str = "", **settings: str):
    mode = {"AUTH_MODE": "jwt", "AUTH_JWT_AUDIENCE": "chat", "AUTH_JWT_COOKIE": "session"}
    where = {"AUTH_JWT_JWKS_URL": url} if url else {"AUTH_JWT_SECRET": SECRET}
    return new_app(**mode | where | settings).test_client()


def ask(browser, text: str):
    return browser.get("/api/chat/active", headers=bearer(text))


def test_the_app_knows_its_users_by_their_tokens():
    browser = client()

    assert ask(browser, token()).status_code == 200
    assert ask(browser, token(exp=NOW - 60)).json["code"] == "unauthorized"
    assert browser.get("/api/chat/active").status_code == 401
    browser.set_cookie("session", token())
    assert browser.get("/api/chat/active").status_code == 200


def test_keys_are_fetched_once_and_for_all_users():
    keys = json.dumps({"keys": [jwk(ec_key(), "a")]}).encode()

    with WireServer([reply(keys)]) as issuer:
        browser = client(f"{issuer.url}/keys?tenant=1")
        statuses = [ask(browser, token(ec_key(), "ES256", {"kid": kid})).status_code for kid in ("a", "a", "b", "a", "c")]

    assert statuses == [200, 200, 401, 200, 401]
    assert [request.path for request in issuer.requests] == ["/keys?tenant=1"]
    assert issuer.requests[0].headers["accept-encoding"] == "identity"


BAD_ISSUERS = {
    "an error": [reply(b"{}", "500 Internal Server Error")],
    "a redirect": [reply(b"", "302 Found", Location="https://evil.example/keys")],
    "no JSON": [reply(b"<html>")],
    "too much": [reply(b'{"keys": "' + b"x" * 2 * 1024 * 1024 + b'"}')],
    "compressed": [reply(b"{}", Content_Encoding="gzip")],
    "no answer": [HANG],
}


@pytest.mark.parametrize("steps", BAD_ISSUERS.values(), ids=BAD_ISSUERS)
def test_an_issuer_that_gives_no_keys_is_our_trouble_and_not_the_users(steps):
    with WireServer(steps) as issuer:
        browser = client(issuer.url, UPSTREAM_CONNECT_SECONDS="0.3")
        answers = [ask(browser, token(ec_key(), "ES256", {"kid": "a"})) for _ in range(3)]

    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [(503, "upstream_unavailable")] * 3
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    assert len(issuer.requests) == 1
