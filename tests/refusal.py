"""What stops a start."""

import pytest

from bff.config.settings import Settings
from bff.errors import SettingsError


def refusal(environment: dict[str, str], **options: bool) -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment(environment, **options)
    return str(refused.value)
