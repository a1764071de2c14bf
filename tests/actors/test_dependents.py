"""A fan-out and a fan-in, with the QueueActor killed in between."""

from pathlib import Path

from asyncproc.core.states import State
from asyncproc.core.task import MAX_PARENTS, NewTask, OnParentFailure, Parents, TaskId
from tests.actors.conftest import Deploy
from tests.deployed import Ledger
from tests.eventually import eventually

CHILDREN = MAX_PARENTS
PART = 1_000


def depending_on(tasks: list[NewTask], *parents: TaskId) -> list[NewTask]:
    given = Parents(parents, OnParentFailure.FAIL)
    return [(*task[:4], task[4]._replace(parents=given)) for task in tasks]


def test_ten_thousand_wait_for_one_and_one_for_them_though_the_queue_actor_is_killed(
    deploy: Deploy, ledger: Ledger, gate: Path
) -> None:
    system = deploy()
    (root,) = system.enqueue("Hold", {"ledger": ledger.path, "n": -1, "gate": str(gate)})
    children = depending_on(system.make("Note", *({"ledger": ledger.path, "n": n} for n in range(CHILDREN))), root)
    for first in range(0, CHILDREN, PART):
        system.send(children[first : first + PART])
    (last,) = system.send(depending_on(system.make("Gather", {}), *(child[0] for child in children)))
    assert system.task(last).state is State.BLOCKED

    system.kill_queue()
    gate.touch()
    eventually(lambda: ledger.has_more_than(CHILDREN // 3))
    system.kill_queue()

    ended = system.ended(last)
    assert ended.result == b'{"sum":%d,"parents":%d,"states":{}}' % (CHILDREN * (CHILDREN - 1) // 2, CHILDREN)
    assert ledger.runs() == dict.fromkeys(range(-1, CHILDREN), 1)
