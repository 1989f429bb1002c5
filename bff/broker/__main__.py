"""`python -m bff.broker`: a worker process, which runs the messages queued in Redis and serves no HTTP."""

from bff.ops import monkey

monkey.patch_all()

from bff.broker.app import run_worker  # noqa: E402 - sockets must not be imported before patching

run_worker()
