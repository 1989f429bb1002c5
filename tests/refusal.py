"""The reason why settings are refused."""

import pytest

from bff.config.environment import load_settings
from bff.errors import SettingsError


def refusal(environment: dict[str, str], **options: bool) -> str:
    with pytest.raises(SettingsError) as error:
        load_settings(environment, **options)
    return str(error.value)
