"""Test clients for /api/chat: of an app in this process, with the bundled broker or a fake one."""

from flask.testing import FlaskClient

from tests.live import BROKER_KEY, new_app
from tests.wire_server import WireServer


def client(**settings: str) -> FlaskClient:
    return new_app(**settings).test_client()


def client_of(broker: WireServer, **settings: str) -> FlaskClient:
    return client(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **settings)
