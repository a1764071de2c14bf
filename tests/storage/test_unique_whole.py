"""Shell, core and table together, without a Ray: what is asked for at once, again and again."""

import asyncio
import json
from collections.abc import Sequence

from asyncproc.actors.once import Keyed
from asyncproc.actors.repeats import Repeats
from asyncproc.actors.unique import Unique
from asyncproc.clock import TaskIds
from asyncproc.core.decision import EnqueueReply
from asyncproc.core.events import Enqueued
from asyncproc.core.retry import constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.step import Core
from asyncproc.core.task import NO_TERMS, KeyUsed, NewTask, Options, Task
from asyncproc.core.unique import NOT_ENDED, OnConflict, Wish
from asyncproc.storage.batch import build
from asyncproc.storage.cycle import Storage
from asyncproc.storage.inspector import Inspector
from tests.storage.table import NOW, live

IDS = TaskIds()


def request(n: int, on_conflict: OnConflict, delay_s: float) -> Keyed:
    options = Options("send", "mail", n % 3, constant(1, 1.0), "")
    task = (IDS.make(), b'{"n": %d}' % n, options, delay_s, NO_TERMS._replace(unique_key="k"))
    return Keyed("", b"", b'{"tasks": [{"existing": false}]}', [task], [Wish(NOT_ENDED, on_conflict=on_conflict)])


async def test_many_that_replace_one_task_leave_one_with_what_the_last_brought(storage: Storage, database: str) -> None:
    inspector = Inspector(database, 1)
    await inspector.open()
    core = Core(CoreSettings())

    async def commit(
        tasks: list[NewTask], keys: list[KeyUsed], sizes: Sequence[int], replaced: Sequence[tuple[Task, NewTask]]
    ) -> bool:
        decision = core.step([Enqueued(1, tasks, keys, replaced=replaced)], NOW)
        committed = await storage.commit(build(decision.writes, NOW), [], False)
        assert not (committed.refused)
        assert not (committed.rejected)
        (reply,) = decision.replies
        assert isinstance(reply, EnqueueReply)
        return not reply.stale

    unique = Unique(inspector, Repeats(), lambda _: None, commit, lambda: "", lambda: NOW, asyncio.Lock(), 60.0)
    (first,) = await unique.enqueue([request(0, OnConflict.RETURN, 0.0)])
    told = await asyncio.gather(
        *(unique.enqueue([request(n, OnConflict.REPLACE, 60.0 * (n % 2))]) for n in range(1, 20))
    )
    (last,) = await unique.enqueue([request(20, OnConflict.REPLACE, 60.0)])
    await inspector.close()

    ((task_id, row),) = live(database).items()
    answers = [json.loads(answer)["tasks"][0] for (answer,) in told if isinstance(answer, bytes)]
    assert first is None
    assert isinstance(last, bytes)
    assert len(answers) == 19
    assert {answer["id"].replace("-", "") for answer in answers} == {task_id.hex()}
    assert all(answer["existing"] and answer["replaced"] for answer in answers)
    assert (row["payload"], row["state"], row["priority"]) == ({"n": 20}, "scheduled", 2)
