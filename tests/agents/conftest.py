from collections.abc import Iterator

import pytest

from bff.ops import hub
from bff.ops.hub import Watch


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = hub.watch()
    yield watch
    watch.close()
