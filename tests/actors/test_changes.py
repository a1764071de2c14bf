"""Tasks that wait are changed while others run, and operations go on where they were."""

from pathlib import Path

from asyncproc.core.asked import Action, Change
from asyncproc.core.record import OperationState, TaskFilter
from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger
from tests.eventually import eventually


def test_a_raised_priority_counts_at_the_next_pop(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy(queue={"workerPoolSize": 1, "prefetch": "1ms"})
    system.enqueue("Hold", {"ledger": ledger.path, "n": 0, "gate": str(gate)})
    eventually(ledger.order)
    tasks = system.enqueue("Note", *({"ledger": ledger.path, "n": n} for n in range(1, 6)))

    outcome = system.change_task(tasks[-1], priority=1)
    gate.touch()

    assert (outcome.is_there, outcome.refused) == (True, None)
    for task in tasks:
        system.ended(task)
    assert ledger.order() == [0, 5, 1, 2, 3, 4]


def test_an_operation_goes_on_under_the_next_reign(deploy: Deploy) -> None:
    system = deploy()
    tasks = system.enqueue("Note", *({"ledger": "none", "n": n} for n in range(300)), delay_s=3600.0)
    others = system.enqueue("Note", {"ledger": "none", "n": 0}, delay_s=3600.0, queue="other")
    operation = system.order(Action.CANCEL, TaskFilter(queue="default"), rate=100.0)
    eventually(lambda: system.progress(operation).done)

    system.kill_queue()

    eventually(lambda: system.progress(operation).state is OperationState.DONE)
    progress = system.progress(operation)
    assert progress.done == progress.matched <= len(tasks)
    assert system.states() == {State.CANCELLED: len(tasks), State.SCHEDULED: len(others)}


def test_many_are_changed_while_tasks_run(deploy: Deploy, ledger: Ledger) -> None:
    system = deploy(queue={"maxBufferSize": 100})
    waiting = system.enqueue("Note", *({"ledger": "none", "n": n} for n in range(2_000)), delay_s=3600.0)
    operation = system.order(Action.MOVE, TaskFilter(state=State.SCHEDULED), Change(queue="later"))
    system.enqueue("Work", *({"ledger": ledger.path, "n": n, "seconds": 0.002} for n in range(200)))

    eventually(lambda: system.progress(operation).state is OperationState.DONE)

    assert system.progress(operation).done == len(waiting)
    assert len(system.tasks(queue="later", state=State.SCHEDULED)) == len(waiting)
    eventually(lambda: system.states()[State.SUCCEEDED] == 200)
