import json

import pytest

from bff import create_app
from bff.auth.orgs import MAP_MAX_BYTES, Orgs
from bff.config.settings import Settings
from bff.errors import SettingsError

DEFAULT = "unfoldingWord"


@pytest.fixture
def map_file(tmp_path):
    return tmp_path / "orgs.json"


def write(file, content) -> None:
    """As operators do: the new file takes the old one's place."""
    new = file.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    new.replace(file)


def test_who_is_in_no_map_belongs_to_the_default():
    assert Orgs(DEFAULT).org_of("ada") == DEFAULT


def test_the_map_says_whose_a_user_is(map_file):
    write(map_file, {"ada": "Analytical Engines", "a/../b": "x"})

    orgs = Orgs(DEFAULT, str(map_file))

    assert [orgs.org_of(user) for user in ("ada", "a/../b", "eve")] == ["Analytical Engines", "x", DEFAULT]


def test_what_the_identity_claims_wins_over_the_map(map_file):
    write(map_file, {"ada": "mapped"})

    assert Orgs(DEFAULT, str(map_file)).org_of("ada", "claimed") == "claimed"


def test_a_map_that_changes_is_read_again(map_file):
    write(map_file, {"ada": "before"})
    orgs = Orgs(DEFAULT, str(map_file))
    assert orgs.org_of("ada") == "before"

    write(map_file, {"ada": "after"})

    assert orgs.org_of("ada") == "after"


@pytest.mark.parametrize("content", ["{", "[]", '{"ada": 1}', "[" * 100_000, ""])
def test_a_map_that_breaks_while_we_run_changes_nothing_and_is_complained_about_once(map_file, caplog, content):
    write(map_file, {"ada": "before"})
    orgs = Orgs(DEFAULT, str(map_file))

    write(map_file, content)

    assert [orgs.org_of("ada") for _ in range(3)] == ["before"] * 3
    assert len(caplog.records) == 1


def test_a_map_that_is_gone_for_a_moment_stays_in_force(map_file):
    write(map_file, {"ada": "before"})
    orgs = Orgs(DEFAULT, str(map_file))

    map_file.unlink()
    assert orgs.org_of("ada") == "before"
    write(map_file, {"ada": "after"})

    assert orgs.org_of("ada") == "after"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"ada": 1}', '{"ada": "x"' + " " * MAP_MAX_BYTES + "}"])
def test_a_map_that_cannot_be_read_stops_the_start(map_file, content):
    if content is not None:
        write(map_file, content)
    settings = Settings(app_env="development", auth_mode="anonymous", secret_key="k" * 32, org_map_file=str(map_file))

    with pytest.raises(SettingsError, match="ORG_MAP_FILE="):
        create_app(settings)


@pytest.mark.parametrize("org", ["a", "A1", "Word Collective", "a_b-c", "x" * 100])
def test_an_organisations_name_is_taken_as_it_is(org):
    assert Orgs(DEFAULT).org_of("ada", org) == org


@pytest.mark.parametrize("org", [" a", "a ", "-a", "a/b", "..", "a\n", "é", "x" * 101, "a\0b", "a%2fb", " "])
def test_what_is_no_organisations_name_is_the_default_and_one_warning(caplog, org):
    orgs = Orgs(DEFAULT)

    assert [orgs.org_of("ada", org), orgs.org_of("eve", org)] == [DEFAULT, DEFAULT]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
