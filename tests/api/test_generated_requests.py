"""Generated requests, valid and invalid: each response is described in /openapi.json.

They are generated when the tests are collected, which takes seconds: tests/conftest.py ignores this file without `slow` tests.
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from tests.security.matrix import bearer, new_app

app = new_app(ECHO_WORD_SECONDS="0", MESSAGES_PER_MINUTE="1000000", QUEUE_DEPTH_PER_USER="1000000")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

load_all_checks()
schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@schema.exclude(path="/api/diagnostics/stream").parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_responses_to_generated_requests_are_described(case):
    # Werkzeug's `path:` converter does not match a newline: such a path has no route and gets the error shape of other routes.
    assume("%0A" not in case.formatted_path)

    response = case.call(headers=bearer("ada", "home"))

    case.validate_response(
        response,
        checks=[not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance],
    )
