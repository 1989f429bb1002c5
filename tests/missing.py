"""External programs that tests need."""

import os
from typing import NoReturn

import pytest


def missing(program: str) -> NoReturn:
    """Skips the test; in CI it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed: run `make test-deps`")
