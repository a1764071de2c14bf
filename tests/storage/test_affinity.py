"""The affinity key of a task, in each of the places that a row comes through."""

from typing import Any

import pytest

from asyncproc.core.states import State
from asyncproc.storage.cycle import Storage
from tests.storage.table import ERROR, NOW, a_task, claim, done, live, page, write, write_again


@pytest.mark.parametrize("insert", [write, write_again], ids=["copied", "replayed"])
async def test_the_key_stays_with_the_task_wherever_it_goes(storage: Storage, database: str, insert: Any) -> None:
    task = a_task(affinity_key="resnet ü")
    await insert(storage, inserts=[task])
    (read,) = await page(storage, "mail")
    assert read.options == task.options

    await write(storage, claims=[claim(task)])
    await write(storage, failed=[(task.id, 1, "Boom: it broke", ERROR)])
    assert done(database)[task.id]["affinity_key"] == "resnet ü"

    await write(storage, revived=[(task.id, NOW + 1, 7.0)])
    assert live(database)[task.id]["affinity_key"] == "resnet ü"
    assert (await page(storage, "mail"))[0].options.affinity_key == "resnet ü"
    assert live(database)[task.id]["state"] == State.QUEUED
