"""Each check fails for the faults that it is there for, and for none where there is none."""

from collections.abc import Callable

import pytest

from bff.api.cli.conformance.chaos import TOPIC
from bff.api.cli.conformance.checks import ALL
from bff.api.cli.conformance.model import Result
from bff.api.cli.conformance.runner import run_check, run_checks
from bff.api.cli.conformance.target import TEXT, Options, Target
from tests.api.cli.conformance.faults import FAULTS
from tests.api.cli.conformance.proxy import Fault, Proxy
from tests.live import PROXY_SECRET, Server, in_parallel

pytestmark = pytest.mark.live

HEADERS = (("X-Proxy-Secret", PROXY_SECRET), ("X-Forwarded-User", "{user}"))
OPTIONS = Options(HEADERS, f"/slow 0.6 {TEXT}", timeout=3, heartbeat=0.5)


@pytest.fixture(scope="module")
def port(share: Callable[..., Server]) -> int:
    return share("gunicorn", HEARTBEAT_SECONDS="0.4").port


def run(port: int, check_id: str, fault: Fault) -> Result:
    with Proxy(port, fault) as proxy:
        return run_check(Target(proxy.url, OPTIONS), ALL[check_id])


@pytest.mark.parametrize("check_id", FAULTS)
def test_faults_are_noticed_by_their_check(port, check_id):
    """At the same time, as most of it is waiting."""
    faults = list(FAULTS[check_id].values())

    results = in_parallel(len(faults), lambda number: run(port, check_id, faults[number]))

    outcomes = dict(zip(FAULTS[check_id], results, strict=True))
    assert {name: result.detail for name, result in outcomes.items() if result.status != "failed"} == {}


def test_every_check_has_a_fault_that_it_notices():
    assert FAULTS.keys() == {check.id for check in ALL.values() if check.topic != TOPIC}


@pytest.mark.slow
def test_a_proxy_without_a_fault_passes(port):
    with Proxy(port, Fault()) as proxy:
        results = run_checks(Target(proxy.url, OPTIONS._replace(timeout=20)), [ALL[check_id] for check_id in FAULTS])

    assert [(result.check.id, result.detail) for result in results if result.status != "passed"] == []
