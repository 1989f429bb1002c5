"""How a check ends that does not pass."""


class Failed(Exception):
    """The server broke the rule; the text says what was seen."""


class Skipped(Exception):
    """The check cannot be made with this server; the text says why."""


def expect(condition: object, message: str) -> None:
    """Raises Failed with `message` unless the condition holds."""
    if not condition:
        raise Failed(message)
