"""Greenlets in place of threads, for a process that gunicorn does not start."""

from gevent import monkey


def patch_all() -> None:
    """To be called before anything is imported that opens sockets."""
    monkey.patch_all()
