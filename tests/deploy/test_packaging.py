"""Packaging files: requirements, version, container image, Compose and Heroku manifests."""

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


@pytest.mark.parametrize("requirement", RANGES, ids=lambda requirement: requirement.name)
def test_requirements_are_locked_within_their_ranges(requirement):
    name = requirement.name.lower()

    assert name in LOCKED, "run `make lock`"
    assert requirement.specifier.contains(LOCKED[name]), "run `make lock`"


def test_the_wheel_with_all_extras_requires_what_requirements_txt_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]

    assert sorted(map(str, RANGES)) == sorted(str(Requirement(text)) for text in project["dependencies"] + extras)


def test_locked_packages_have_hashes_and_no_urls():
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]

    assert len(entries) == len(LOCKED)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert not re.search(r"--(?!hash=sha256:[0-9a-f]{64})", LOCK)


def test_the_version_is_defined_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "bff.__version__"}
    assert re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == __version__


def test_the_python_versions_agree():
    python = (ROOT / ".python-version").read_text().strip()

    assert f"FROM python:{python}-slim\n" in DOCKERFILE
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == f">={python}"


def test_the_image_installs_locked_packages_and_runs_unprivileged():
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    assert re.search(r"^USER (?!root|0)", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE) == ['["gunicorn", "app:app"]'], "a shell would keep SIGTERM"
    assert not re.search(r"^(ENV|ARG).*(KEY|SECRET|PASSWORD)", DOCKERFILE, re.MULTILINE)
    for name in re.findall(r"^COPY ((?:[\w.]+ )+)", DOCKERFILE, re.MULTILINE):
        assert all(
            (ROOT / part).exists() and f"!{part}\n" in (ROOT / "deploy/Dockerfile.dockerignore").read_text()
            for part in name.split()
        )


def test_compose_services_have_valid_settings_and_time_to_drain():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]

    for name in ("web", "worker", "tables"):
        assert set(services[name]["environment"]) <= SETTINGS | {"METRICS_TOKEN"}
        assert services[name]["stop_grace_period"] == f"{Settings.drain_seconds + 10:.0f}s"
    assert services["web"]["environment"]["APP_ENV"] == "production"


def test_the_heroku_manifest_names_existing_settings_and_processes():
    manifest = json.loads((ROOT / "app.json").read_text())
    processes = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())

    assert set(manifest["env"]) <= SETTINGS
    assert set(manifest["formation"]) <= set(processes)
    assert set(processes) == {"web", "worker", "release"}
