"""The system that existed before ours fails where it was measured to fail, and nowhere else."""

import pytest

from bff.api.cli.conformance.chaos import TOPIC
from bff.api.cli.conformance.checks import ALL
from bff.api.cli.conformance.runner import run_checks
from bff.api.cli.conformance.target import TEXT, Options, Target
from tests.adopted import adoptable_broker
from tests.api.cli.conformance.original import OriginalRelay

pytestmark = pytest.mark.live

PASSED = {
    "stream.opens",
    "framing.bytes",
    "framing.frames",
    "framing.unicode",
    "framing.json",
    "end.one",
    "end.complete",
    "headers.not-compressed",
    "delivery.no-buffering",
    "http.cors",
}


@pytest.mark.slow
def test_the_original_fails_where_it_was_measured_to_fail():
    options = Options((("X-Forwarded-User", "{user}"),), f"/slow 0.6 {TEXT}", timeout=4, heartbeat=0.5)
    with adoptable_broker() as broker, OriginalRelay(broker) as relay:
        results = run_checks(Target(relay.url, options), [check for check in ALL.values() if check.topic != TOPIC])

    assert {result.check.id for result in results if result.status == "passed"} == PASSED
    assert {result.check.id for result in results if result.status == "skipped"} == set()
