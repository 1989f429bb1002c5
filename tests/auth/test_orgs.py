import json

import pytest

from bff import create_app
from bff.auth.orgs import MAX_MAP_BYTES, Orgs
from bff.config.settings import Settings
from bff.errors import SettingsError

DEFAULT = "default"


@pytest.fixture
def map_file(tmp_path):
    return tmp_path / "orgs.json"


def write(file, content) -> None:
    """As operators do: the new file takes the old one's place."""
    new = file.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    new.replace(file)


def test_users_belong_to_the_default_org():
    assert Orgs(DEFAULT).org_of("ada") == DEFAULT


def test_mapped_users_belong_to_their_org(map_file):
    write(map_file, {"ada": "Analytical Engines", "a/../b": "x"})

    orgs = Orgs(DEFAULT, str(map_file))

    assert [orgs.org_of(user) for user in ("ada", "a/../b", "eve")] == ["Analytical Engines", "x", DEFAULT]


def test_the_maps_user_ids_are_normalized(map_file):
    write(map_file, {"jose\u0301": "Lisbon"})

    assert Orgs(DEFAULT, str(map_file)).org_of("jos\u00e9") == "Lisbon"


def test_a_claimed_org_takes_precedence_over_the_map(map_file):
    write(map_file, {"ada": "mapped"})

    assert Orgs(DEFAULT, str(map_file)).org_of("ada", "claimed") == "claimed"


def test_a_changed_map_is_read_again(map_file):
    write(map_file, {"ada": "before"})
    orgs = Orgs(DEFAULT, str(map_file))
    assert orgs.org_of("ada") == "before"

    write(map_file, {"ada": "after"})

    assert orgs.org_of("ada") == "after"


@pytest.mark.parametrize("content", ["{", "[]", '{"ada": 1}', "[" * 100_000, ""])
def test_a_map_that_becomes_invalid_is_ignored_with_one_warning(map_file, caplog, content):
    write(map_file, {"ada": "before"})
    orgs = Orgs(DEFAULT, str(map_file))

    write(map_file, content)

    assert [orgs.org_of("ada") for _ in range(3)] == ["before"] * 3
    assert len(caplog.records) == 1


def test_a_deleted_map_stays_in_force(map_file):
    write(map_file, {"ada": "before"})
    orgs = Orgs(DEFAULT, str(map_file))

    map_file.unlink()
    assert orgs.org_of("ada") == "before"
    write(map_file, {"ada": "after"})

    assert orgs.org_of("ada") == "after"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"ada": 1}', '{"ada": "x"' + " " * MAX_MAP_BYTES + "}"])
def test_an_unreadable_map_prevents_the_start(map_file, content):
    if content is not None:
        write(map_file, content)
    settings = Settings(app_env="development", auth_mode="anonymous", secret_key="k" * 32, org_map_file=str(map_file))

    with pytest.raises(SettingsError, match="ORG_MAP_FILE="):
        create_app(settings)


@pytest.mark.parametrize("org", ["a", "A1", "Word Collective", "a_b-c", "x" * 100])
def test_valid_org_names_are_unchanged(org):
    assert Orgs(DEFAULT).org_of("ada", org) == org


@pytest.mark.parametrize("org", [" a", "a ", "-a", "a/b", "..", "a\n", "é", "x" * 101, "a\0b", "a%2fb", " "])
def test_an_invalid_org_name_becomes_the_default_with_one_warning(caplog, org):
    orgs = Orgs(DEFAULT)

    assert [orgs.org_of("ada", org), orgs.org_of("eve", org)] == [DEFAULT, DEFAULT]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
