"""gevent's monkey patching, for processes that gunicorn does not start."""

from gevent import monkey


def patch_all() -> None:
    """Must be called before any module is imported that uses sockets or threads."""
    monkey.patch_all()
