"""/openapi.json as public validators see it: openapi-spec-validator, and Spectral with all of its recommended rules."""

import json
import subprocess
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.live import new_app
from tests.missing import missing
from tests.web.node import HERE, node

__all__ = ["node"]

SPECTRAL = HERE / "node_modules" / "@stoplight" / "spectral-cli" / "dist" / "index.js"


def document() -> dict:
    content = new_app().test_client().get("/openapi.json").json
    assert isinstance(content, dict)
    return content


def test_openapi_spec_validator_finds_no_error():
    assert [error.message for error in OpenAPIV31SpecValidator(document()).iter_errors()] == []


@pytest.mark.live
@pytest.mark.timeout(150)
def test_spectral_finds_neither_errors_nor_warnings(node: str, tmp_path: Path):
    if not SPECTRAL.exists():
        missing("Spectral (npm ci in tests/web)")
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document()))

    command = [node, str(SPECTRAL), "lint", str(path), "--ruleset", str(HERE / "spectral.yaml"), "--fail-severity", "hint"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
