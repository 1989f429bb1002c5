"""Each check fails for the faults that it is there for, and for none where there is none."""

from collections.abc import Callable, Iterator

import pytest

from bff.conformance.chaos import TOPIC
from bff.conformance.checks import ALL
from bff.conformance.model import Result
from bff.conformance.runner import run_check, run_checks
from bff.conformance.target import WORDS, Options, Target
from tests.conformance.faults import FAULTS
from tests.conformance.proxy import Fault, Proxy
from tests.live import PROXY_SECRET, Server

pytestmark = pytest.mark.live

HEADERS = (("X-Proxy-Secret", PROXY_SECRET), ("X-Forwarded-User", "{user}"))
OPTIONS = Options(HEADERS, f"/slow 0.6 {WORDS}", timeout=3, heartbeat=0.5)


@pytest.fixture(scope="module")
def proxy(share: Callable[..., Server]) -> Iterator[Proxy]:
    server = share("gunicorn", HEARTBEAT_SECONDS="0.4")
    with Proxy(server.port) as proxy:
        yield proxy


def run(proxy: Proxy, check_id: str, fault: Fault) -> Result:
    proxy.fault = fault
    target = Target(proxy.url, OPTIONS)
    return run_check(target, ALL[check_id])


@pytest.mark.parametrize(
    ("check_id", "name"), [(check_id, name) for check_id, faults in FAULTS.items() for name in faults], ids=str
)
def test_a_fault_is_noticed_by_its_check(proxy, check_id, name):
    result = run(proxy, check_id, FAULTS[check_id][name])

    assert result.status == "failed", result.detail


def test_every_check_has_a_fault_that_it_notices():
    assert FAULTS.keys() == {check.id for check in ALL.values() if check.topic != TOPIC}


def test_a_proxy_without_a_fault_passes(proxy):
    proxy.fault = Fault()
    results = run_checks(Target(proxy.url, OPTIONS._replace(timeout=20)), [ALL[check_id] for check_id in FAULTS])

    assert [(result.check.id, result.detail) for result in results if result.status != "passed"] == []
