"""The account of ticks finds what it is there to find."""

from typing import Any

import pytest

from asyncproc.storage.cycle import Storage
from chaos.ticks import WRONG_APART, account_of
from tests.storage.table import NOW, PAGE_BYTES, a_task, query, write


@pytest.mark.parametrize(
    ("dues", "tasks", "found"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], (0, 0, 0, True)),
        ([0, 1, 1, 2], [0, 1, 2, 3], (1, 0, 0, False)),
        ([0, 1, 3], [0, 1, 2], (0, 1, 0, False)),
        ([0, 1, 2], [0, 1], (0, 0, 1, False)),
        ([0, 1], [0, 1, 2], (0, 0, 0, False)),
    ],
)
async def test_what_is_doubled_missing_or_without_a_task_shows(
    database: str, dues: list[int], tasks: list[int], found: tuple[Any, ...]
) -> None:
    storage = Storage(database, PAGE_BYTES)
    await storage.take_over()
    made = [a_task(created_by="schedule tick-1") for _ in range(4)]
    ticks = [(made[n].id, "tick-1", NOW + due, "tick", "task", NOW) for n, due in enumerate(dues)]
    await write(storage, inserts=[made[n] for n in tasks], ticks=ticks)
    await storage.close()
    account = account_of(lambda text: query(database, text), WRONG_APART)
    assert (account.doubled, account.missing, account.wrong, account.adds_up) == found
