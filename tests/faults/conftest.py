from collections.abc import Iterator

import pytest

from tests.faults.engine import Engine


@pytest.fixture(scope="module", params=["gunicorn", "flask", "fleet"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the app is served: greenlets, threads, or several processes with one Redis."""
    return str(request.param)


@pytest.fixture(params=["gunicorn", "flask"])
def single(request: pytest.FixtureRequest) -> str:
    """For behaviour of a single process."""
    return str(request.param)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine
