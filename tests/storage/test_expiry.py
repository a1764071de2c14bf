"""Tasks past an instant of their own, in the table."""

from dataclasses import fields

from asyncproc.core.decision import Writes
from asyncproc.core.states import State
from asyncproc.core.task import Terms
from asyncproc.storage import bisect
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from tests.storage.table import ERROR, NOW, a_task, done, live, write, write_again


async def test_what_waits_past_its_instants_is_found(storage: Storage, database: str) -> None:
    past, future = NOW - 10, NOW + 1e6
    found = [
        a_task(terms=Terms(start_by=past)),
        a_task(State.SCHEDULED, terms=Terms(deadline=past)),
        a_task(terms=Terms(start_by=past, deadline=past)),
    ]
    others = [
        a_task(),
        a_task(terms=Terms(start_by=future, deadline=future)),
        a_task(State.RUNNING, terms=Terms(deadline=past)),
        a_task(terms=Terms(start_by=past), attempt=1),
    ]
    await write(storage, inserts=[*found, *others])
    inspector = Inspector(database)
    await inspector.open()
    try:
        over = await inspector.overdue(NOW, 100)
        assert {task.id for task in over} == {task.id for task in found}
        assert {task.id: task.terms for task in over} == {task.id: task.terms for task in found}
        assert len(await inspector.overdue(NOW, 1)) == 2
    finally:
        await inspector.close()


async def test_a_waiting_task_fails_without_an_attempt(storage: Storage, database: str) -> None:
    waiting, running = a_task(terms=Terms(deadline=NOW)), a_task(State.RUNNING)
    await write(storage, inserts=[waiting, running])
    writes = {"overdue": [(task.id, task.lease, "DeadlineExceeded: late", ERROR) for task in (waiting, running)]}

    await write(storage, **writes)
    await write_again(storage, **writes)

    ended = done(database)[waiting.id]
    assert (ended["state"], ended["attempt"], ended["error"]) == ("failed", 0, "DeadlineExceeded: late")
    assert ended["deadline"].timestamp() == NOW
    assert live(database).keys() == {running.id}


def test_a_bad_row_keeps_no_kind_of_write_from_its_neighbours() -> None:
    """What is not named there would be left out of all that follows a bad row."""
    by_other_means = {"inserts", "keys", "levels", "depends", "parents", "positions", "positions_over"}
    assert {field.name for field in fields(Writes)} - by_other_means == set(bisect._BY_ID)
