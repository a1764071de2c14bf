"""One system for all faults here: it is struck, mended, and goes on."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from chaos.disks import SMALL_BYTES
from chaos.system import System, system


@pytest.fixture(scope="package")
def struck() -> Iterator[System]:
    """With a small disk of its own where this user may mount one."""
    with ExitStack() as stack:
        try:
            the_system = stack.enter_context(system(SMALL_BYTES))
        except OSError:
            the_system = stack.enter_context(system())
        yield the_system
