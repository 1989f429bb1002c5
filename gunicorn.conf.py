"""gunicorn's configuration, derived from our settings. gunicorn finds it in the working directory."""

from bff.ops.gunicorn_config import gunicorn_config

globals().update(gunicorn_config())
