"""One system for all faults here: it is struck, mended, and goes on."""

from collections.abc import Iterator

import pytest

from chaos.disks import SMALL_BYTES
from chaos.system import System, system


@pytest.fixture(scope="package")
def struck() -> Iterator[System]:
    """With a small disk of its own where this user may mount one."""
    try:
        running = system(SMALL_BYTES)
        the_system = running.__enter__()
    except OSError:
        running = system()
        the_system = running.__enter__()
    yield the_system
    running.__exit__(None, None, None)
