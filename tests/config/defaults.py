"""Settings for tests: a minimal production environment, and the defaults of all settings."""

from dataclasses import fields

from bff.config.environment import load_settings
from bff.config.settings import Settings, streams_by_descriptors

MIB = 1024 * 1024
SECRET = "s" * 32

PRODUCTION = {"AUTH_MODE": "anonymous", "SECRET_KEY": SECRET}

DEFAULTS = {
    "APP_ENV": "production",
    "HOST": "0.0.0.0",
    "PORT": 8000,
    "WEB_CONCURRENCY": 1,
    "BROKER_BASE_URL": "",
    "BROKER_API_KEY": "",
    "ENGINE_BASE_URL": "",
    "ENGINE_API_KEY": "",
    "REDIS_URL": "",
    "REDIS_PREFIX": "chat",
    "REDIS_TLS_VERIFY": True,
    "LEASE_SECONDS": 10.0,
    "RUN_WORKER": True,
    "DATABASE_URL": "sqlite:///instance/chat.db",
    "QUEUE_FILE": "instance/queue.db",
    "OPENAI_BASE_URL": "",
    "OPENAI_API_KEY": "",
    "OPENAI_MODEL": "gpt-4o-mini",
    "CA_FILE": "",
    "HTTPS_PROXY": "",
    "NO_PROXY": (),
    "CLIENT_ID": "web",
    "DEFAULT_ORG": "default",
    "ORG_MAP_FILE": "",
    "AUTH_PROXY_USER_HEADER": "X-Forwarded-User",
    "AUTH_PROXY_SECRET": "",
    "AUTH_JWT_COOKIE": "",
    "AUTH_JWT_SECRET": "",
    "AUTH_JWT_JWKS_URL": "",
    "AUTH_JWT_AUDIENCE": "",
    "AUTH_JWT_ISSUER": "",
    "AUTH_JWT_USER_CLAIM": "sub",
    "AUTH_JWT_ORG_CLAIM": "org",
    "CORS_ALLOW_ORIGINS": (),
    "TRUSTED_PROXY_HOPS": 0,
    "WEBHOOK_URL": "",
    "WEBHOOK_SECRET": "",
    "WEBHOOK_ALLOW_ORIGINS": (),
    "WEBHOOK_SECONDS": 15.0,
    "WEBHOOK_RETRY_SECONDS": (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0),
    "DYNO": "",
    "HEARTBEAT_SECONDS": 15,
    "HEARTBEAT": "event",
    "UPSTREAM_CONNECT_SECONDS": 5,
    "UPSTREAM_OPEN_SECONDS": 20,
    "UPSTREAM_READ_SECONDS": 45,
    "ENGINE_SECONDS": 120,
    "ANSWER_MAX_SECONDS": 600,
    "MODEL_READ_SECONDS": 300.0,
    "MAX_EVENT_BYTES": 16 * MIB,
    "MAX_BODY_BYTES": 36 * MIB,
    "MAX_STREAMS": streams_by_descriptors(1, 200),
    "QUEUE_DEPTH_PER_USER": 20,
    "MAX_RUNNING": 200,
    "MAX_STREAMS_PER_USER": 32,
    "MESSAGES_PER_MINUTE": 60,
    "REQUEST_SECONDS": 30.0,
    "SLOW_READER_SECONDS": 60.0,
    "DRAIN_SECONDS": 20.0,
    "LOG_MAX_BYTES": 32 * MIB,
    "RETENTION_SECONDS": 600,
    "ENGINE_REPEATABLE": False,
    "ON_BUSY": "enqueue",
    "ON_DISCONNECT": "continue",
    "DEFAULT_AGENT": "",
    "CONVERSATION_ON_DISCONNECT": "cancel",
    "DISCONNECT_GRACE_SECONDS": 5.0,
    "KEEP_STOPPED": False,
    "HISTORY_CHARACTERS": 200_000,
    "EXPOSE_UPSTREAM_ERRORS": False,
    "RELAY_TOOL_EVENTS": True,
    "RELAY_REASONING": True,
    "ECHO_WORD_SECONDS": 0.03,
    "METRICS_TOKEN": "",
    "PROMETHEUS_MULTIPROC_DIR": "",
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
}


def read(**environment: str) -> Settings:
    return load_settings(PRODUCTION | environment)


def by_name(settings: Settings) -> dict:
    return {field.metadata["name"]: getattr(settings, field.name) for field in fields(settings)}
