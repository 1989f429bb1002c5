"""`--chaos`: the server is killed and restarted under load, and what readers saw is judged."""

from bff.api.cli.conformance.chaos.run import TOPIC, Plan, run

__all__ = ["TOPIC", "Plan", "run"]
