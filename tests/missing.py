"""What a test needs beside Python."""

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """It is not here: a machine without it skips, CI fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not installed: run `make test-deps`")
