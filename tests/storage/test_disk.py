"""A disk that is nearly full is noticed before it is full, where it is this machine's."""

import asyncio
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from asyncproc.errors import DiskNearlyFull
from asyncproc.storage import disk
from asyncproc.storage.disk import Disk, data_directory, free_bytes
from tests.storage.table import query, until

FOLDER = Path("data")


class Fill:
    """How much is free, as a test has it."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.looks = 0

    def __call__(self, _: Path) -> int:
        self.looks += 1
        return self.free


async def test_new_tasks_are_refused_while_less_is_free_than_should_be(caplog: pytest.LogCaptureFixture) -> None:
    fill = Fill(100)
    watched = Disk("", 100, fill)
    for free, is_short in [(100, False), (99, True), (98, True), (100, False)]:
        fill.free = free
        await watched.look(FOLDER)
        if is_short:
            with pytest.raises(DiskNearlyFull) as refusal:
                watched.admit()
            assert (refusal.value.free_bytes, refusal.value.min_bytes) == (free, 100)
        else:
            watched.admit()

    assert caplog.text.count("nearly full") == 1


async def test_a_disk_that_cannot_be_looked_at_is_as_it_was() -> None:
    def gone(_: Path) -> int:
        raise FileNotFoundError

    watched = Disk("", 100, gone)
    await watched.look(FOLDER)

    watched.admit()


async def test_it_is_looked_at_again_and_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOOK_EVERY_S", 0.0)
    fill = Fill(1)
    watched = Disk(database, 2, fill)
    watching = asyncio.create_task(watched.watch())

    async def is_short() -> bool:
        return watched.shortage is not None

    async def has_room() -> bool:
        return watched.shortage is None

    await until(is_short)
    fill.free = 2
    await until(has_room)
    watching.cancel()


async def test_the_directory_of_a_server_on_this_machine_is_found(postgres: str) -> None:
    folder = await data_directory(postgres)

    assert folder is not None
    assert (folder / "PG_VERSION").exists()
    assert free_bytes(folder) > 0


async def test_a_server_that_does_not_say_where_its_data_is_is_not_watched(database: str) -> None:
    query(database, "CREATE ROLE stranger LOGIN")
    try:
        assert await data_directory(make_conninfo(database, user="stranger")) is None
    finally:
        query(database, "DROP ROLE stranger")


async def test_an_absent_server_is_asked_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOOK_EVERY_S", 0.0)
    asked = 0

    async def directory(_: str) -> Path:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise psycopg.OperationalError("it is away")
        return FOLDER

    monkeypatch.setattr(disk, "data_directory", directory)
    fill = Fill(1)
    watching = asyncio.create_task(Disk(database, 2, fill).watch())

    async def was_looked_at_twice() -> bool:
        return fill.looks > 1

    await until(was_looked_at_twice)
    watching.cancel()
    assert asked == 2
