"""gunicorn's configuration as a module, for an installed package: `gunicorn --config python:bff.ops.gunicorn_conf`."""

from bff.ops.gunicorn_config import gunicorn_config

globals().update(gunicorn_config())
