from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from tests.live import new_app


@pytest.fixture
def app_with_database(tmp_path) -> Iterator[Callable[..., Flask]]:
    """`app_with_database(SETTING="…")`: a new app. All apps of a test share one database."""
    apps = []

    def new(**settings: str) -> Flask:
        apps.append(new_app(**{"DATABASE_URL": f"sqlite:///{tmp_path}/chat.db", "ECHO_WORD_SECONDS": "0"} | settings))
        return apps[-1]

    yield new
    for app in apps:
        app.extensions["chat_bff"].store._database.close()
