"""Optional and heavy libraries are imported only by the processes that use them."""

import subprocess
import sys

import pytest

from tests.live import INHERITED, ROOT

LIBRARIES = {"alembic", "cryptography", "flask", "gevent", "jwt", "psycopg", "redis", "requests", "sqlalchemy"}
ENVIRONMENT = INHERITED | {"APP_ENV": "development", "QUEUE_FILE": "off", "LOG_LEVEL": "ERROR", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        ("import bff", set()),
        ("import bff.__main__", {"flask"}),
        ("from bff import gunicorn_config; gunicorn_config()", {"gevent"}),
        ("import bff; bff.create_app()", {"flask", "requests", "sqlalchemy"}),
    ],
)
def test_only_these_libraries_are_imported(tmp_path, code, imported):
    code += f"; import sys; print(*sorted({LIBRARIES} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)

    assert set(done.stdout.split()) == imported, done.stderr
