"""`flask doctor`: tries the broker, the engine, the model's server and the key set, each on the way that its requests take."""

from collections.abc import Iterator
from contextlib import closing
from time import monotonic
from typing import Final

from bff.api.cli.diagnose import CheckResult
from bff.auth.identity import Identity
from bff.config.settings import Settings
from bff.errors import ChatError, NotFound, UpstreamError
from bff.http import waiting
from bff.upstream import http
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import Proxy

DOCTOR_USER: Final = "flask-doctor"


def check_upstreams(settings: Settings, broker: BrokerClient, engine: EngineClient) -> Iterator[CheckResult]:
    yield _check_broker(settings, broker)
    yield _check_engine(settings, engine)
    if settings.openai_base_url:
        yield _check_model(settings)
    if settings.auth_mode == "jwt" and settings.auth_jwt_jwks_url:
        yield from _check_key_set(settings)
    if settings.webhook_secret:
        yield _check_webhooks(settings)


def _check_webhooks(settings: Settings) -> CheckResult:
    """Sends nothing: a receiver would take it for a message's end."""
    if not settings.webhook_url:
        return CheckResult(True, "Webhooks are signed with WEBHOOK_SECRET and sent to each message's callback_url.")
    origin = http.origin_of(settings.webhook_url)
    if problem := http.problem_of(settings.webhook_url, settings.webhook_allow_origins):
        return CheckResult(False, f"WEBHOOK_URL {problem}: see WEBHOOK_ALLOW_ORIGINS, which may name {origin}.")
    return CheckResult(True, f"Webhooks are signed with WEBHOOK_SECRET and sent to {origin}{_way(settings, origin)}.")


def _check_broker(settings: Settings, broker: BrokerClient) -> CheckResult:
    url = settings.broker_base_url
    if not url:
        return CheckResult(True, "The broker is the bundled one, in this process.")
    try:
        broker.check()
        broker.numbers_events(DOCTOR_USER)
    except ChatError as error:
        return CheckResult(False, _failure_message(settings, "broker", url, error))
    return CheckResult(True, f"The broker at {url} answers and accepts our key{_way(settings, url)}.")


def _check_engine(settings: Settings, engine: EngineClient) -> CheckResult:
    url = settings.engine_base_url
    if not url:
        return CheckResult(True, "The engine is the bundled one, in this process.")
    try:
        with closing(waiting.new_waiter()) as waiter:
            engine.known_preferences(Identity(DOCTOR_USER, settings.default_org), waiter)
    except NotFound:
        # Most engines answer 404 for an unknown user; any other server answers 404 for an unknown path.
        way = _way(settings, url)
        return CheckResult(
            True, f"The server at {url} knows no user {DOCTOR_USER}, or is not an engine: see ENGINE_BASE_URL{way}."
        )
    except ChatError as error:
        return CheckResult(False, _failure_message(settings, "engine", url, error))
    return CheckResult(True, f"The engine at {url} answers and accepts our key{_way(settings, url)}.")


def _failure_message(settings: Settings, name: str, url: str, error: ChatError) -> str:
    setting, way = name.upper(), _way(settings, url)
    status = error.upstream_status if isinstance(error, UpstreamError) else None
    if status in {401, 403}:
        return f"The {name} at {url} refuses our key{way}: {setting}_API_KEY is not the one it expects."
    if status == 404:
        return f"The server at {url} is no {name}{way}: {setting}_BASE_URL must be the part of the URL before /api/v1."
    reason = error.detail or error.code
    return f"The {name} at {url} does not answer as it should ({reason}){way}: see {setting}_BASE_URL."


def _check_model(settings: Settings) -> CheckResult:
    """Lists the models, which costs nothing. Some servers have no such route."""
    url, way = settings.openai_base_url, _way(settings, settings.openai_base_url)
    key = settings.openai_api_key
    try:
        status = _status(settings, f"{url}/models", {"Authorization": f"Bearer {key}"} if key else {})
    except ChatError as error:
        reason = error.detail or error.code
        return CheckResult(False, f"The model's server at {url} cannot be reached ({reason}){way}: see OPENAI_BASE_URL.")
    if status in {401, 403}:
        return CheckResult(False, f"The model's server at {url} refuses our key{way}: see OPENAI_API_KEY.")
    if status >= 500:
        return CheckResult(False, f"The model's server at {url} answers {status} to a request for its models{way}.")
    if status != 200:
        hint = f"answers {status} to a request for its models, which it may not support: see OPENAI_BASE_URL"
        return CheckResult(True, f"The model's server at {url} {hint}{way}.")
    return CheckResult(True, f"The model's server at {url} answers{' and accepts our key' if key else ''}{way}.")


def _status(settings: Settings, url: str, headers: dict[str, str]) -> int:
    """Raises an UpstreamFailure."""
    connect = settings.upstream_connect_seconds
    deadline = monotonic() + settings.upstream_open_seconds
    response = http.send(http.session_for(settings), "GET", url, headers=headers, connect=connect, deadline=deadline)
    with closing(response):
        return response.status_code


def _check_key_set(settings: Settings) -> Iterator[CheckResult]:
    from bff.auth.jwt import parse_jwks  # Imports a cryptography library, which only this mode needs.

    url, way = settings.auth_jwt_jwks_url, _way(settings, settings.auth_jwt_jwks_url)
    try:
        keys, unusable = parse_jwks(http.read_url(http.session_for(settings), url, settings.upstream_connect_seconds))
    except ChatError as error:
        reason = error.detail or error.code
        yield CheckResult(False, f"The key set at {url} cannot be fetched ({reason}){way}: see AUTH_JWT_JWKS_URL.")
        return
    if not keys:
        yield CheckResult(False, f"The key set at {url} has no key that can verify a token{way}: see AUTH_JWT_JWKS_URL.")
    else:
        yield CheckResult(True, f"The key set at {url} has {len(keys)} usable {'key' if len(keys) == 1 else 'keys'}{way}.")
    for message in unusable:
        yield CheckResult(bool(keys), f"{message} Tokens that it signs are refused.")


def _way(settings: Settings, url: str) -> str:
    """What the settings change about the way to `url`; "" for nothing."""
    if not url.startswith("https://"):
        return ", directly: HTTPS_PROXY is for https:// only" if settings.https_proxy else ""
    parts = []
    if settings.https_proxy:
        proxy = Proxy.of(settings)
        parts.append(f"through the proxy {proxy.address}" if proxy.url_for(url) else "directly, as NO_PROXY says")
    if settings.ca_file:
        parts.append(f"with the authorities of {settings.ca_file}")
    return "".join(f", {part}" for part in parts)
