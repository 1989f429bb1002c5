"""`python -m bff.broker`: a process that answers what waits in Redis, and nothing else."""

from bff.ops import monkey

monkey.patch_all()

from bff.broker.app import work  # noqa: E402 - nothing that opens sockets may be there before

work()
