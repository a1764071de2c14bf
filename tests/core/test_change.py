"""What waits is changed: one by one and many at a time, in memory and on disk, and whatever happened meanwhile."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from asyncproc.core.asked import Action, Change
from asyncproc.core.decision import BulkReply, ChangeReply
from asyncproc.core.events import BulkAsked, ChangeAsked, Event, Polled, RulesChanged
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import Pause, QueueRules, Rules
from asyncproc.core.task import Task, TaskId
from simulation.world import NOON, ONCE, World, failed, succeeded


class Operated(World):
    """A world with an operator, who reads a row before anything is asked for it."""

    def read(self, task: TaskId) -> Task:
        return replace(self.row(task))

    def change(self, task: TaskId | Task, *others: Event, **change: object) -> ChangeReply:
        read = task if isinstance(task, Task) else self.read(task)
        ticket = self.ticket()
        self.turn(ChangeAsked(ticket, read, Change(**change)), *others)  # type: ignore[arg-type]
        reply = self.answers[ticket]
        assert isinstance(reply, ChangeReply)
        return reply

    def bulk(self, action: Action, tasks: Sequence[TaskId | Task], **change: object) -> BulkReply:
        ticket = self.ticket()
        read = [task if isinstance(task, Task) else self.read(task) for task in tasks]
        self.turn(BulkAsked(ticket, action, read, Change(**change), "by hand"))  # type: ignore[arg-type]
        reply = self.answers[ticket]
        assert isinstance(reply, BulkReply)
        return reply

    def order(self, worker: str = "w") -> list[TaskId]:
        """The tasks in the order in which one worker is given them, each ending at once."""
        taken: list[TaskId] = []
        leases = self.take(worker)
        while leases:
            taken += [lease.task for lease in leases]
            leases = self.report(leases[0], succeeded())
        return taken


@pytest.fixture
def world() -> Operated:
    return Operated(CoreSettings(prefetch_s=0.0))


@pytest.fixture
def shallow() -> Operated:
    """Of each queue four tasks at most are in memory."""
    return Operated(CoreSettings(prefetch_s=0.0, window=4))


def test_a_raised_priority_counts_at_the_next_pop(world: Operated) -> None:
    first, second, third = (world.enqueue() for _ in range(3))

    assert world.change(third, priority=1) == ChangeReply(world._tickets, third)

    assert world.row(third).options.priority == 1
    assert world.order() == [third, first, second]


def test_a_lowered_priority_keeps_the_wait_it_had(world: Operated) -> None:
    early = world.enqueue(priority=1)
    world.wait(30)
    late = world.enqueue()
    world.change(early, priority=0)
    assert world.row(early).ready_at == NOON
    assert world.order() == [early, late]


def test_a_moved_task_is_ranked_by_the_rules_of_its_new_queue() -> None:
    world = Operated(CoreSettings(queues={"fast": QueueRules(aging_s=1.0)}, pool_of={"fast": "gpu"}))
    task = world.enqueue(priority=3)

    world.change(task, queue="fast")

    assert (world.row(task).queue, world.row(task).rank) == ("fast", NOON - 3.0)
    assert world.take("w") == []
    world.register("g", pool="gpu")
    assert [lease.task for lease in world.take("g")] == [task]


def test_a_postponed_task_waits_for_its_instant(world: Operated) -> None:
    task, other = world.enqueue(), world.enqueue()

    world.change(task, delay_s=10.0)

    assert (world.state(task), world.row(task).ready_at) == (State.SCHEDULED, NOON + 10)
    assert world.order() == [other]
    world.wait(10.1)
    assert world.order() == [task]


@pytest.mark.parametrize("change", [{"delay_s": 0.0}, {"ready_at": NOON - 5}])
def test_a_task_that_waits_for_its_instant_runs_now(world: Operated, change: dict[str, float]) -> None:
    scheduled = world.enqueue(delay_s=60)
    lease = world.lease(world.enqueue(), "w")
    world.report(lease, failed())
    assert world.state(lease.task) is State.RETRYING

    for task in (scheduled, lease.task):
        world.change(task, **change)
        assert (world.state(task), world.row(task).ready_at) == (State.QUEUED, NOON)

    assert set(world.order()) == {scheduled, lease.task}


def test_what_is_ready_already_keeps_its_place_where_it_is_to_run_now(world: Operated) -> None:
    first = world.enqueue()
    world.wait(5)
    second = world.enqueue()
    world.change(first, delay_s=0.0)
    assert world.row(first).ready_at == NOON
    assert world.order() == [first, second]


def test_several_changes_are_one(world: Operated) -> None:
    task = world.enqueue(delay_s=60)
    world.change(task, priority=5, queue="mail", delay_s=0.0)
    row = world.row(task)
    assert (row.state, row.options.priority, row.queue) == (State.QUEUED, 5, "mail")


def test_what_runs_or_has_ended_is_refused_with_its_state(world: Operated) -> None:
    lease = world.lease(world.enqueue(retry=ONCE), "w")
    before = world.read(lease.task)
    assert world.change(lease.task, priority=1).refused is State.RUNNING
    world.report(lease, failed())
    assert world.change(lease.task, priority=1).refused is State.FAILED
    assert world.row(lease.task).options == before.options


def test_a_suspect_is_changed_and_stays_one(world: Operated) -> None:
    lease = world.lease(world.enqueue(), "w")
    world.lose("w")
    assert world.change(lease.task, queue="mail").stale is False
    row = world.row(lease.task)
    assert (row.queue, row.losses) == ("mail", 1)
    assert world.order("v") == [lease.task]


# ---- memory and disk


def test_a_task_on_disk_comes_into_the_window_by_its_new_rank(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(20)]
    assert tasks[-1] not in shallow.core.tasks

    shallow.change(tasks[-1], priority=1)

    assert tasks[-1] in shallow.core.tasks
    assert shallow.order() == [tasks[-1], *tasks[:-1]]


def test_a_task_in_memory_is_left_to_the_disk_by_its_new_rank(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(20)]

    shallow.change(tasks[0], priority=-1)

    assert tasks[0] not in shallow.core.tasks
    assert shallow.order() == [*tasks[1:], tasks[0]]


def test_a_task_on_disk_is_changed_there(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(20)]
    shallow.change(tasks[-1], priority=-1)
    assert tasks[-1] not in shallow.core.tasks
    assert shallow.row(tasks[-1]).options.priority == -1


def test_a_scheduled_task_on_disk_is_postponed_and_run_now(shallow: Operated) -> None:
    tasks = [shallow.enqueue(delay_s=10.0 + n) for n in range(20)]
    shallow.change(tasks[-1], delay_s=100.0)
    shallow.change(tasks[-2], delay_s=0.0)
    assert shallow.order() == [tasks[-2]]
    shallow.wait(40)
    assert shallow.order("a later worker") == tasks[:-2]
    shallow.wait(70)
    assert shallow.order("the last worker") == [tasks[-1]]


@pytest.mark.parametrize("change", [{"priority": 7}, {"queue": "mail"}, {"delay_s": 5.0}])
def test_a_copy_that_is_outdated_changes_nothing(shallow: Operated, change: dict[str, object]) -> None:
    task = shallow.enqueue(retry=ONCE)
    read = shallow.read(task)
    shallow.order()

    assert shallow.change(read, **change).stale

    assert shallow.state(task) is State.SUCCEEDED
    assert task not in shallow.core.tasks


def test_a_copy_from_before_it_came_due_changes_nothing(shallow: Operated) -> None:
    tasks = [shallow.enqueue(delay_s=1.0) for _ in range(20)]
    read = shallow.read(tasks[-1])
    shallow.wait(2)
    assert tasks[-1] not in shallow.core.tasks

    assert shallow.change(read, queue="mail").stale

    assert shallow.row(tasks[-1]).queue == "default"
    assert shallow.order() == tasks


def test_of_two_changes_at_once_the_second_is_told_to_read_again(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(20)]
    read = shallow.read(tasks[-1])
    second = ChangeAsked(shallow.ticket(), replace(read), Change(priority=-2))

    assert not shallow.change(read, second, priority=-1).stale

    reply = shallow.answers[second.ticket]
    assert isinstance(reply, ChangeReply)
    assert reply.stale
    assert shallow.row(tasks[-1]).options.priority == -1


def test_what_the_table_refuses_is_read_again(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(20)]
    read = shallow.read(tasks[-1])
    row = shallow.table.live[tasks[-1]]
    row.options = row.options._replace(priority=-1)
    row.rank += 60

    shallow.tampered = True
    shallow.change(read, priority=2)
    shallow.tampered = False

    assert shallow.row(tasks[-1]).options.priority == -1
    assert shallow.order() == tasks


# ---- many at a time


def test_all_that_waits_is_cancelled_and_what_runs_is_asked_to_end(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(10)] + [shallow.enqueue(delay_s=60.0 + n) for n in range(10)]
    lease = shallow.lease(tasks[0], "w")

    reply = shallow.bulk(Action.CANCEL, tasks)

    assert (set(reply.done), reply.skipped, reply.stale) == (set(tasks), 0, [])
    assert {shallow.state(task) for task in tasks[1:]} == {State.CANCELLED}
    assert shallow.core.counters.cancelled == 19
    assert (shallow.state(tasks[0]), shallow.core.tasks[tasks[0]].stop_reason) == (State.RUNNING, "by hand")
    shallow.report(lease, failed())
    assert shallow.state(tasks[0]) is State.CANCELLED
    assert list(shallow.core.tasks) == []


def test_a_bulk_change_skips_what_runs(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(3)]
    shallow.lease(tasks[0], "w")
    reply = shallow.bulk(Action.CHANGE_PRIORITY, tasks, priority=1)
    assert (reply.done, reply.skipped) == (tasks[1:], 1)


def test_a_bulk_change_reorders_all_of_a_queue(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(20)]
    reply = shallow.bulk(Action.CHANGE_PRIORITY, tasks[10:], priority=1)
    assert len(reply.done) == 10
    assert shallow.order() == tasks[10:] + tasks[:10]


def test_a_bulk_change_is_the_same_when_it_is_repeated(shallow: Operated) -> None:
    tasks = [shallow.enqueue() for _ in range(20)]
    shallow.bulk(Action.MOVE, tasks, queue="mail")
    rows = [shallow.read(task) for task in tasks]
    assert len(shallow.bulk(Action.MOVE, tasks, queue="mail").done) == 20
    assert not shallow.decisions[-1].writes
    assert [repr(shallow.read(task)) for task in tasks] == [repr(row) for row in rows]


def test_failed_tasks_are_redriven_and_others_are_not(world: Operated) -> None:
    lease = world.lease(world.enqueue(retry=ONCE), "w")
    read = world.read(lease.task)
    world.report(lease, failed())

    assert world.bulk(Action.RETRY, [lease.task]).done == [lease.task]
    assert world.state(lease.task) is State.QUEUED
    assert (world.bulk(Action.RETRY, [read]).done, world.state(lease.task)) == ([], State.QUEUED)
    assert world.order() == [lease.task]


def test_a_task_that_changed_since_it_was_read_is_left_alone(world: Operated) -> None:
    task = world.enqueue()
    read = world.read(task)
    world.change(task, queue="mail")
    assert world.bulk(Action.CANCEL, [read]).stale == [task]
    assert world.state(task) is State.QUEUED


# ---- beside limits and pauses


def keyed(world: Operated, tenant: str, number: int = 1) -> list[TaskId]:
    tasks = [world.new() for _ in range(number)]
    return world.enqueue_all([(*task[:2], task[2]._replace(fairness_key=tenant), *task[3:]) for task in tasks])


def test_where_the_next_at_a_gate_is_cancelled_the_one_behind_it_goes_on(world: Operated) -> None:
    world.turn(RulesChanged(world.ticket(), Rules({"default": QueueRules(max_running=1)})))
    lease = world.lease(keyed(world, "ada")[0], "w")
    second, third = keyed(world, "ada")[0], keyed(world, "bob")[0]
    assert world.take("v") == []

    ended = Polled(world.ticket(), "w", world.sessions["w"], [(lease.task, lease.number, *succeeded()[2:])])
    world.turn(ended, BulkAsked(world.ticket(), Action.CANCEL, [world.read(second)]))

    assert (world.state(second), world.state(third)) == (State.CANCELLED, State.RUNNING)


def test_what_comes_after_all_was_cancelled_in_a_pause_starts(world: Operated) -> None:
    tasks = [*keyed(world, "ada"), *keyed(world, "bob")]
    world.turn(RulesChanged(world.ticket(), Rules(pauses=(Pause("queue", "default"),))))
    world.lease(world.enqueue("mail"), "w")
    world.bulk(Action.CANCEL, tasks)
    world.turn(RulesChanged(world.ticket(), Rules()))

    (task,) = keyed(world, "ada")

    assert [lease.task for lease in world.take("v")] == [task]
