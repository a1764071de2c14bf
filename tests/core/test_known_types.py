"""A task goes only where its type is known: during an upgrade it waits for the last worker of the old code."""

from asyncproc.core.blockers import blockers
from asyncproc.core.events import Polled, Registered
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from simulation.world import World, succeeded

OLD, NEW = frozenset({"Work"}), frozenset({"Work", "New"})


class Upgraded(World):
    def knows(self, worker: str, types: frozenset[str] | None, pool: str = "default") -> None:
        ticket = self.ticket()
        self._registering = {ticket: worker}
        self.turn(Registered(ticket, worker, pool, 1, [], None if types is None else tuple(sorted(types))))

    def waits_for(self, task: TaskId) -> list[str]:
        options = self.row(task).options
        return [blocker.text for blocker in blockers(self.core.backlog, options, self.now)]

    def unknown(self) -> list[str]:
        return self.core.backlog.unknown_types()


def test_a_task_that_no_worker_knows_waits_and_is_listed_and_costs_no_attempt() -> None:
    world = Upgraded()
    world.knows("a", OLD)
    new, work = world.enqueue(type_name="New", priority=9), world.enqueue()

    (lease,) = world.take("a")

    assert lease.task == work
    assert world.waits_for(new) == ["no worker knows type New, or not all of its pool do yet"]
    assert world.waits_for(work) == []
    assert world.unknown() == ["New"]
    assert (world.row(new).state, world.row(new).attempt) == (State.QUEUED, 0)


def test_it_starts_once_the_last_worker_of_the_old_code_is_gone() -> None:
    world = Upgraded()
    world.knows("a", OLD)
    new = world.enqueue(type_name="New")
    world.knows("b", NEW)
    assert world.take("b") == []

    world.lose("a", charged=False)

    assert world.row(new).worker == "b"
    assert world.unknown() == []


def test_one_that_leaves_holds_nothing_up() -> None:
    world = Upgraded()
    world.knows("a", OLD)
    world.knows("b", NEW)
    lease = world.lease(world.enqueue(), "a")
    new = world.enqueue(type_name="New")
    world.poll("b")
    assert world.state(new) is State.QUEUED

    world.turn(Polled(world.ticket(), "a", world.sessions["a"], [], [], leaving=True))

    assert world.row(new).worker == "b"
    assert world.row(lease.task).worker == "a"


def test_a_type_that_is_gone_from_the_new_code_waits_for_the_next_one() -> None:
    world = Upgraded()
    world.knows("a", frozenset({"Work", "Old"}))
    old = world.enqueue(type_name="Old")
    world.lose("a", charged=False)
    world.knows("b", NEW)
    assert world.take("b") == []
    assert world.unknown() == ["Old"]

    world.knows("b", NEW | {"Old"})

    (lease,) = world.take("b")
    assert lease.task == old


def test_each_pool_is_asked_for_itself_and_one_that_says_nothing_is_believed() -> None:
    world = Upgraded(CoreSettings(pool_of={"mail": "mails"}))
    world.knows("a", OLD)
    world.knows("m", NEW, pool="mails")
    world.knows("silent", None)

    here, there = world.enqueue(type_name="New"), world.enqueue("mail", type_name="New")
    world.poll("silent")
    world.poll("m")

    assert world.state(here) is State.QUEUED
    assert world.row(there).worker == "m"
    assert world.unknown() == ["New"]


def test_a_limit_goes_on_counting_while_workers_come_and_go() -> None:
    world = Upgraded()
    world.knows("a", OLD)
    lease = world.lease(world.enqueue(), "a")
    new = world.enqueue(type_name="New")
    world.restart()
    world.knows("b", NEW)
    world.register("a", lease)
    assert world.row(new).state is State.QUEUED
    world.poll("b")

    assert world.row(new).worker == "b", "a says nothing of what it knows by now"
    world.report(lease, succeeded())
    assert world.state(lease.task) is State.SUCCEEDED
