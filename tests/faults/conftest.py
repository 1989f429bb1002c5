import pytest


@pytest.fixture(scope="module", params=["gunicorn", "flask", "fleet"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the app is served: greenlets, plain threads, or many processes around one Redis."""
    return str(request.param)


@pytest.fixture(params=["gunicorn", "flask"])
def single(request: pytest.FixtureRequest) -> str:
    """Where what is tested belongs to one process."""
    return str(request.param)
