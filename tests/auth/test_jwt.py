import base64
import hmac
import json
import time
from functools import cache
from hashlib import sha256

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.auth.jwks import FixedKey, JWKSCache
from bff.auth.jwt import JWT, Claims, JWKSParser, Key, parse_jwks
from bff.auth.orgs import Orgs
from bff.errors import Unauthorized
from tests.live import new_app
from tests.wire_server import HANG, WireServer, reply

SECRET = "s" * 32
CLAIMS = Claims("chat", "https://id.example")
secret_auth = JWT(FixedKey(Key(("HS256",), SECRET)), CLAIMS, cookie="session", orgs=Orgs("default"))


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@cache
def ed448_key() -> ed448.Ed448PrivateKey:
    return ed448.Ed448PrivateKey.generate()


def jwk(key, kid: str = "", **fields: str) -> dict:
    algorithms = jwt.algorithms
    types = {rsa.RSAPrivateKey: algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: algorithms.ECAlgorithm}
    algorithm = next((types[kind] for kind in types if isinstance(key, kind)), algorithms.OKPAlgorithm)
    return json.loads(algorithm.to_jwk(key.public_key())) | ({"kid": kid} if kid else {}) | fields


def jwks_auth(*jwks: dict) -> JWT:
    return JWT(JWKSCache(lambda: parse_jwks({"keys": list(jwks)}).keys), CLAIMS, cookie="", orgs=Orgs("default"))


def claims(**changes) -> dict:
    now = time.time()
    content = {"sub": "ada", "aud": "chat", "iss": "https://id.example", "exp": now + 300, "org": "Some Org"} | changes
    return {name: value for name, value in content.items() if value is not None}


def token(key=SECRET, algorithm: str = "HS256", headers: dict | None = None, **changes) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers)


def segment(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def is_refused(authenticator: JWT, text: str) -> bool:
    with pytest.raises(Unauthorized) as error:
        authenticator.authenticate(bearer(text), {})
    assert text not in str(error.value) + error.value.detail or not text
    return True


# Valid tokens


def test_a_valid_token_identifies_its_user():
    assert secret_auth.authenticate(bearer(token()), {}) == Identity("ada", "Some Org")


def test_a_token_is_accepted_in_the_cookie():
    assert secret_auth.authenticate({}, {"session": token()}).user_id == "ada"


def test_an_invalid_header_is_not_replaced_by_a_valid_cookie():
    with pytest.raises(Unauthorized):
        secret_auth.authenticate(bearer("nothing"), {"session": token()})


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer", "Token x"])
def test_a_request_without_a_token_is_refused(header):
    with pytest.raises(Unauthorized):
        secret_auth.authenticate({"Authorization": header} if header else {}, {})


def test_cookies_are_ignored_unless_configured():
    authenticator = JWT(FixedKey(Key(("HS256",), SECRET)), CLAIMS, cookie="", orgs=Orgs("default"))

    with pytest.raises(Unauthorized):
        authenticator.authenticate({}, {"session": token(), "": token()})


def test_small_clock_differences_are_tolerated():
    now = time.time()

    for changes in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        assert secret_auth.authenticate(bearer(token(**changes)), {}).user_id == "ada"


@pytest.mark.parametrize(
    ("org", "expected"),
    [("A-b_c 9", "A-b_c 9"), ("a/b", "default"), (" a", "default"), ("", "default"), (7, "default"), (None, "default")],
)
def test_an_invalid_org_becomes_the_default(org, expected):
    assert secret_auth.authenticate(bearer(token(org=org)), {}).org == expected


def test_user_and_org_claims_are_configurable():
    authenticator = JWT(
        FixedKey(Key(("HS256",), SECRET)), Claims("chat", "", "email", "tenant"), cookie="", orgs=Orgs("default")
    )

    identity = authenticator.authenticate(bearer(token(email="ada@x.org", tenant="t1")), {})

    assert identity == Identity("ada@x.org", "t1")


# Invalid tokens


NOW = time.time()
REFUSED = {
    "expired": {"exp": NOW - 60},
    "never expiring": {"exp": None},
    "an exp that is no number": {"exp": "soon"},
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
def test_a_token_with_invalid_claims_is_refused(changes):
    assert is_refused(secret_auth, token(**changes))


def test_a_numeric_user_id_is_refused():
    body = f"{segment({'alg': 'HS256'})}.{segment(claims(sub=7))}"
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), body.encode(), sha256)).rstrip(b"=").decode()

    assert is_refused(secret_auth, f"{body}.{signature}")


def test_a_token_with_an_audience_is_refused_if_none_is_configured():
    assert is_refused(JWT(FixedKey(Key(("HS256",), SECRET)), Claims("", ""), cookie="", orgs=Orgs("o")), token())


def test_a_token_signed_with_another_key_is_refused():
    assert is_refused(secret_auth, token("t" * 32))
    assert is_refused(jwks_auth(jwk(rsa_key(), "a")), token(rsa_key(2049), "RS256", {"kid": "a"}))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, "HS512", "RS256", "../HS256"])
def test_the_algorithm_in_a_tokens_header_has_no_effect(alg):
    unsigned = f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(claims())}"
    genuine = token().rpartition(".")[2]

    for authenticator in (secret_auth, jwks_auth(jwk(rsa_key(), "a"))):
        for signature in ("", genuine):
            assert is_refused(authenticator, f"{unsigned}.{signature}")


@pytest.mark.parametrize("form", ["SubjectPublicKeyInfo", "PKCS1"])
def test_a_public_key_is_not_accepted_as_an_hmac_secret(form):
    public = rsa_key().public_key().public_bytes(serialization.Encoding.PEM, getattr(serialization.PublicFormat, form))
    body = f"{segment({'alg': 'HS256', 'kid': 'a'})}.{segment(claims())}"
    signature = base64.urlsafe_b64encode(hmac.digest(public, body.encode(), sha256)).rstrip(b"=").decode()

    assert is_refused(jwks_auth(jwk(rsa_key(), "a")), f"{body}.{signature}")


def test_keys_in_a_tokens_header_are_ignored():
    headers = {"jwk": jwk(rsa_key(2049)), "jku": "https://evil.example/keys", "x5u": "https://evil.example/x", "kid": "a"}

    assert is_refused(jwks_auth(jwk(rsa_key(), "a")), token(rsa_key(2049), "RS256", headers))


def test_a_token_with_critical_headers_is_refused():
    assert is_refused(secret_auth, token(headers={"crit": ["exp"], "exp": 1}))


@pytest.mark.parametrize("text", ["x" * 8193, "a.b", "....", "a.b.c", "\ud800", "é.é.é", "e30.e30.", segment([1]) + ".e30."])
def test_malformed_tokens_are_refused(text):
    assert is_refused(secret_auth, text)


def test_a_deeply_nested_token_is_refused():
    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()

    assert is_refused(secret_auth, f"{deep}..")
    assert is_refused(secret_auth, f"{segment({'alg': 'HS256'})}.{deep}.")


@given(st.integers(0, 400), st.characters(codec="ascii"))
def test_a_modified_token_is_refused(at, letter):
    genuine = token()
    at %= len(genuine)

    changed = genuine[:at] + letter + genuine[at + 1 :]

    try:
        identity = secret_auth.authenticate(bearer(changed), {})
    except Unauthorized:
        return
    # Some bits of the last base64 character are unused, and whitespace around the token is ignored.
    assert identity == Identity("ada", "Some Org")
    assert at == len(genuine) - 1 or changed == genuine


# Key sets


SIGNERS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), rsa_key),
    "ES256": ec_key,
    "ES384": lambda: ec_key(ec.SECP384R1),
    "ES512": lambda: ec_key(ec.SECP521R1),
    "EdDSA": ed_key,
}


@pytest.mark.parametrize("named", [True, False], ids=["with alg", "without alg"])
@pytest.mark.parametrize("algorithm", SIGNERS)
def test_the_algorithm_follows_the_key(algorithm, named):
    key = SIGNERS[algorithm]()
    authenticator = jwks_auth(jwk(key, "mine", **({"alg": algorithm} if named else {})))

    assert authenticator.authenticate(bearer(token(key, algorithm, {"kid": "mine"})), {}).user_id == "ada"


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
def test_a_key_with_an_algorithm_verifies_no_other(algorithm):
    authenticator = jwks_auth(jwk(rsa_key(), "mine", alg="PS512"))

    assert is_refused(authenticator, token(rsa_key(), algorithm, {"kid": "mine"}))


def test_ed448_keys_verify_tokens():
    key = ed448_key()

    assert jwks_auth(jwk(key)).authenticate(bearer(token(key, "EdDSA")), {}).user_id == "ada"


@pytest.mark.parametrize(("make", "algorithm"), [(rsa_key, "RS256"), (ec_key, "ES256")])
def test_a_token_is_verified_with_the_key_of_its_key_id(make, algorithm):
    authenticator = jwks_auth(jwk(rsa_key(2049), "other"), jwk(make(), "mine"))

    assert authenticator.authenticate(bearer(token(make(), algorithm, {"kid": "mine"})), {}).user_id == "ada"
    assert is_refused(authenticator, token(make(), algorithm, {"kid": "other"}))
    assert is_refused(authenticator, token(make(), algorithm, {"kid": "unknown"}))
    assert is_refused(authenticator, token(make(), algorithm))


private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ec_key()))
UNUSABLE = {
    "has 1024 bits instead of 2048 to 8192": jwk(rsa_key(1024), "weak"),
    "has an unsupported type or curve": jwk(ec_key(ec.SECP256K1), "another curve"),
    "is for an algorithm other than RS256, RS384": jwk(rsa_key(), "another algorithm", alg="ES256"),
    "is for an algorithm other than ES384": jwk(ec_key(ec.SECP384R1), "a mismatch", alg="ES256"),
    "is private, and compromised": private | {"kid": "private"},
    "('oct', 'HS256') has an unsupported type": {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric", "alg": "HS256"},
    "is incomplete or malformed": {"kty": "RSA", "kid": "incomplete"},
    "'odd' () has an unsupported type": {"kty": ["RSA"], "kid": "odd"},
    "'nothing' () has an unsupported type": {"kid": "nothing"},
    "is not an object": "no object",
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_unusable_keys_are_skipped_and_named(reason):
    good = [jwk(rsa_key(), "rsa"), jwk(ec_key(), "ec", use="sig", alg="ES256")]
    bad = UNUSABLE[reason]

    keys, unusable = parse_jwks({"keys": [bad, *good]})

    assert sorted(keys) == ["ec", "rsa"]
    assert len(unusable) == 1
    assert reason in unusable[0]
    assert bad == "no object" or f"The key '{bad['kid']}' (" in unusable[0]
    assert "c2VjcmV0" not in unusable[0]


def test_keys_that_share_an_id_are_named():
    keys, unusable = parse_jwks({"keys": [jwk(rsa_key(), "a"), jwk(ec_key(), "a")]})

    assert keys["a"].algorithms[0] == "RS256"
    assert unusable == ("The key 'a' ('EC', 'P-256') has the id of another key.",)


@pytest.mark.parametrize("purpose", [{"use": "enc"}, {"key_ops": ["encrypt"]}])
def test_keys_for_other_purposes_are_skipped(purpose):
    assert parse_jwks({"keys": [jwk(rsa_key(), "a", **purpose)]}) == ({}, ())


def test_keys_beyond_the_limit_are_named():
    keys, unusable = parse_jwks({"keys": [jwk(ec_key(), str(number)) for number in range(101)]})

    assert len(keys) == 100
    assert unusable == ("Only the first 100 of 101 keys are used.",)


def test_unusable_keys_are_logged_until_they_change(caplog):
    parse = JWKSParser()
    weak, symmetric = jwk(rsa_key(1024), "weak"), {"kty": "oct", "kid": "symmetric"}

    for jwks in ([weak], [weak], [], [weak, symmetric]):
        parse({"keys": jwks})

    assert [("weak" in line, "symmetric" in line) for line in caplog.messages] == [(True, False), (True, False), (False, True)]


@pytest.mark.parametrize("content", [{}, {"keys": None}, {"keys": {"a": 1}}, {"keys": []}])
def test_an_invalid_key_set_has_no_keys(content):
    assert parse_jwks(content) == ({}, ())


def test_repr_does_not_contain_the_secret():
    assert SECRET not in repr(Key(("HS256",), SECRET))


# The whole app


def client(url: str = "", **settings: str):
    auth = {"AUTH_MODE": "jwt", "AUTH_JWT_AUDIENCE": "chat", "AUTH_JWT_COOKIE": "session"}
    key = {"AUTH_JWT_JWKS_URL": url} if url else {"AUTH_JWT_SECRET": SECRET}
    return new_app(**auth | key | settings).test_client()


def get(browser, text: str):
    return browser.get("/api/chat/active", headers=bearer(text))


def test_the_app_authenticates_users_by_their_tokens():
    browser = client()

    assert get(browser, token()).status_code == 200
    assert get(browser, token(exp=NOW - 60)).json["code"] == "unauthorized"
    assert browser.get("/api/chat/active").status_code == 401
    browser.set_cookie("session", token())
    assert browser.get("/api/chat/active").status_code == 200


def test_keys_are_fetched_once_for_all_requests():
    keys = json.dumps({"keys": [jwk(ec_key(), "a")]}).encode()

    with WireServer([reply(keys)]) as issuer:
        browser = client(f"{issuer.url}/keys?tenant=1")
        statuses = [get(browser, token(ec_key(), "ES256", {"kid": kid})).status_code for kid in ("a", "a", "b", "a", "c")]

    assert statuses == [200, 200, 401, 200, 401]
    assert [request.path for request in issuer.requests] == ["/keys?tenant=1"]
    assert issuer.requests[0].headers["accept-encoding"] == "identity"


BAD_ISSUERS = {
    "an error": [reply(b"{}", "500 Internal Server Error")],
    "a redirect": [reply(b"", "302 Found", Location="https://evil.example/keys")],
    "no JSON": [reply(b"<html>")],
    "too much": [reply(b'{"keys": "' + b"x" * 2 * 1024 * 1024 + b'"}')],
    "compressed": [reply(b"{}", Content_Encoding="gzip")],
    "no response": [HANG],
}


@pytest.mark.parametrize("steps", BAD_ISSUERS.values(), ids=BAD_ISSUERS)
def test_a_failed_key_fetch_is_a_503(steps):
    with WireServer(steps) as issuer:
        browser = client(issuer.url, UPSTREAM_CONNECT_SECONDS="0.3")
        responses = [get(browser, token(ec_key(), "ES256", {"kid": "a"})) for _ in range(3)]

    assert [(response.status_code, response.json["code"]) for response in responses] == [(503, "upstream_unavailable")] * 3
    assert all(int(response.headers["Retry-After"]) > 0 for response in responses)
    assert len(issuer.requests) == 1
