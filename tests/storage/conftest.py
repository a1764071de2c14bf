"""A reign over a database of its own, and a look from outside."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import AsyncConnection

from asyncproc.storage.connection import Connection
from asyncproc.storage.cycle import Storage
from tests.storage.table import PAGE_BYTES


@pytest.fixture
async def storage(database: str) -> AsyncIterator[Storage]:
    storage = Storage(database, PAGE_BYTES)
    await storage.take_over()
    yield storage
    await storage.close()


@pytest.fixture
async def successor(database: str) -> AsyncIterator[Storage]:
    """A second QueueActor, which has not taken over yet."""
    successor = Storage(database, PAGE_BYTES)
    yield successor
    await successor.close()


@pytest.fixture
async def bystander(database: str) -> AsyncIterator[Connection]:
    """A connection of somebody else."""
    connection: AsyncConnection[tuple[object, ...]] = await psycopg.AsyncConnection.connect(database, autocommit=True)
    async with connection:
        yield connection
