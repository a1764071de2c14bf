"""Systems of actors, without the REST API in front of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.deployed import Ledger, System, deployed, settings_of

Deploy = Callable[..., System]


@pytest.fixture
def deploy(ray_cluster: None, database: str, namespace: str, start_dir: Path) -> Iterator[Deploy]:
    """Starts a system with these sections of the configuration."""
    with ExitStack() as stack:

        def start(**sections: Any) -> System:
            return stack.enter_context(deployed(settings_of(database, namespace, **sections), start_dir))

        yield start


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Tasks that `Hold` end once this file is there."""
    return tmp_path / "gate"
