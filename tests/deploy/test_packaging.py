"""What a platform reads before anything of ours runs."""

import json
import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from bff import __version__
from bff.config.settings import Settings
from tests.live import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", LOCK, re.MULTILINE))
RANGES = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1] not in {"#", ""}]
SETTINGS = {field.metadata["name"] for field in Settings.__dataclass_fields__.values()}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


@pytest.mark.parametrize("wanted", RANGES, ids=lambda wanted: wanted.name)
def test_what_is_required_is_locked_within_its_range(wanted):
    name = wanted.name.lower()

    assert name in LOCKED, "run `make lock`"
    assert wanted.specifier.contains(LOCKED[name]), "run `make lock`"


def test_what_is_locked_has_hashes_and_comes_from_nowhere_in_particular():
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]

    assert len(entries) == len(LOCKED)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert not re.search(r"--(?!hash=sha256:[0-9a-f]{64})", LOCK)


def test_the_version_is_said_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "bff.__version__"}
    assert re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == __version__


def test_platforms_take_the_python_that_the_image_has():
    python = (ROOT / ".python-version").read_text().strip()

    assert f"FROM python:{python}-slim\n" in DOCKERFILE
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == f">={python}"


def test_the_image_runs_what_is_locked_as_nobody_special_and_is_told_when_to_stop():
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    assert re.search(r"^USER (?!root|0)", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE) == ['["gunicorn", "app:app"]'], "a shell would keep SIGTERM"
    assert not re.search(r"^(ENV|ARG).*(KEY|SECRET|PASSWORD)", DOCKERFILE, re.MULTILINE)
    for name in re.findall(r"^COPY ((?:[\w.]+ )+)", DOCKERFILE, re.MULTILINE):
        assert all(
            (ROOT / part).exists() and f"!{part}\n" in (ROOT / "deploy/Dockerfile.dockerignore").read_text()
            for part in name.split()
        )


def test_the_composed_services_have_time_to_drain_and_settings_that_exist():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]

    for name in ("web", "worker", "tables"):
        assert set(services[name]["environment"]) <= SETTINGS | {"METRICS_TOKEN"}
        assert services[name]["stop_grace_period"] == f"{Settings.drain_seconds + 10:.0f}s"
    assert services["web"]["environment"]["APP_ENV"] == "production"


def test_the_platforms_manifest_names_settings_and_processes_that_exist():
    manifest = json.loads((ROOT / "app.json").read_text())
    processes = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())

    assert set(manifest["env"]) <= SETTINGS
    assert set(manifest["formation"]) <= set(processes)
    assert set(processes) == {"web", "worker", "release"}
