"""Bounds on what waits: refused, or cancelled, and exact whatever happens in the same step."""

from collections.abc import Mapping

import pytest

from asyncproc.core.crowd import Crowd, Place
from asyncproc.core.decision import EnqueueReply
from asyncproc.core.events import CancelAsked, Enqueued, Event, Polled, RulesChanged
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import Overflow, QueueRules, Rules
from asyncproc.core.task import NewTask, OnParentFailure, Parents, TaskId, Terms
from simulation.chance import Chance
from simulation.world import Granted, World, copy_of, failed, succeeded

REJECT, OLDEST, NEWEST = Overflow.REJECT, Overflow.CANCEL_OLDEST, Overflow.CANCEL_NEWEST


class Bounded(World):
    def bound(self, policy: Overflow, most: int | None = None, per_key: int | None = None) -> None:
        queue = QueueRules(max_waiting=most, max_waiting_per_key=per_key, overflow=policy)
        self.rules = Rules(queues={"default": queue})
        self.turn(RulesChanged(self.ticket(), self.rules))

    def take_over(self, *events: Event) -> None:
        self.epoch += 1
        self.core = self.make_core(self.settings, self.epoch)
        self.sessions.clear()
        self.turn(RulesChanged(self.ticket(), self.rules), self.table.load(), *events)

    def ask(self, *requests: list[NewTask], requested: bool = False) -> EnqueueReply:
        """All of them in one event."""
        ticket = self.ticket()
        tasks = [task for request in requests for task in request]
        self.turn(Enqueued(ticket, tasks, sizes=[len(request) for request in requests], requested=requested))
        reply = self.answers[ticket]
        assert isinstance(reply, EnqueueReply)
        return reply

    def some(self, number: int, key: str = "", delay_s: float = 0.0) -> list[NewTask]:
        tasks = [self.new(delay_s=delay_s) for _ in range(number)]
        return [(*task[:2], task[2]._replace(concurrency_key=key), *task[3:]) for task in tasks]

    def waiting(self) -> list[TaskId]:
        return sorted(row.id for row in self.table.waiting("default"))


def ids(tasks: list[NewTask]) -> list[TaskId]:
    return [task[0] for task in tasks]


@pytest.fixture(params=[10_000, 2], ids=["in memory", "on disk"])
def world(request: pytest.FixtureRequest) -> Bounded:
    return Bounded(CoreSettings(prefetch_s=0.0, window=request.param))


def test_requests_that_do_not_fit_are_refused_whole_and_the_others_are_not(world: Bounded) -> None:
    world.bound(REJECT, 5)
    fits, too_many, last = world.some(3), world.some(3), world.some(2)
    reply = world.ask(fits, too_many, last)
    (full,) = reply.full
    assert (full.task_ids, full.first, full.waiting, full.limit) == (tuple(ids(too_many)), too_many[2][0], 3, 5)
    assert world.waiting() == ids(fits + last)
    assert not world.ask([world.new(queue="other")]).full


def test_a_key_of_a_refused_request_is_not_used_up(world: Bounded) -> None:
    world.bound(REJECT, 1)
    first, second = world.some(1), world.some(1)
    keys = [(name, b"", b"", 60.0, ids(tasks)) for name, tasks in (("a", first), ("b", second))]
    world.turn(Enqueued(world.ticket(), first + second, keys, sizes=[1, 1]))
    assert [*world.table.keys] == ["a"]


def test_a_refused_request_replaces_nothing_and_nor_do_those_that_lean_on_it(world: Bounded) -> None:
    world.bound(REJECT, 2)
    (there,) = world.enqueue_all(world.some(1))
    other, too_many = world.some(1), world.some(2)
    before, ticket = world.table.snapshot(), world.ticket()
    keys = [(name, b"", b"", 60.0, ids(tasks)) for name, tasks in (("a", other), ("b", too_many))]
    replaced = [(copy_of(world.row(there)), (there, b"new", *other[0][2:]))]
    world.turn(Enqueued(ticket, other + too_many, keys, replaced=replaced, sizes=[1, 2], whole=True))
    reply = world.answers[ticket]
    assert isinstance(reply, EnqueueReply)
    assert ([full.task_ids for full in reply.full], reply.replaced) == ([tuple(ids(too_many))], ())
    assert world.table.snapshot() == before


def test_the_newest_is_recorded_and_cancelled(world: Bounded) -> None:
    world.bound(NEWEST, 2)
    tasks = world.enqueue_all(world.some(4))
    assert world.waiting() == tasks[:2]
    assert [world.state(task) for task in tasks[2:]] == [State.CANCELLED] * 2
    assert b"2 tasks may wait in queue default" in world.table.bodies[tasks[3]]
    assert world.core.counters.cancelled == 2


def test_the_oldest_go_for_the_new_ones(world: Bounded) -> None:
    tasks = world.enqueue_all(world.some(3, delay_s=60)) + world.enqueue_all(world.some(3))
    world.bound(OLDEST, 4)
    new = world.enqueue_all(world.some(2))
    assert world.waiting() == tasks[4:] + new  # those that were too many before go too
    crowd = world.enqueue_all(world.some(10))
    assert world.waiting() == crowd[6:]
    assert world.core.counters.cancelled == 14


def test_one_runs_and_one_waits_of_each_key(world: Bounded) -> None:
    world.bound(OLDEST, per_key=1)
    world.register("w", concurrency=10)
    first = world.enqueue_all(world.some(1, "a"))
    (lease,) = world.take("w")
    for _ in range(3):
        last = world.enqueue_all(world.some(1, "a"))
    other = world.enqueue_all(world.some(1, "b"))
    assert world.waiting() == sorted(last + other)
    assert world.state(first[0]) is State.RUNNING
    world.report(lease, succeeded())
    assert world.state(last[0]) is State.RUNNING


def test_what_comes_back_is_never_turned_away_but_counts(world: Bounded) -> None:
    world.bound(REJECT, 1)
    world.register("w", concurrency=3)
    world.enqueue_all(world.some(1))
    (lease,) = world.take("w")
    assert not world.ask(world.some(1)).full
    world.report(lease, failed())
    assert world.state(lease.task) is State.RETRYING
    assert len(world.waiting()) == 1  # the other one began
    assert world.ask(world.some(1)).full


def test_what_waits_for_others_does_not_count_and_comes_in_when_it_is_released(world: Bounded) -> None:
    world.bound(NEWEST, 1)
    (parent,) = world.enqueue_all(world.some(1))
    lease = world.lease(parent, "w")
    terms = Terms(parents=Parents((parent,), OnParentFailure.RUN))
    children = [(*task[:4], terms) for task in world.some(3)]
    (full,) = world.enqueue_all(world.some(1))
    assert not world.ask(children).full
    assert {world.state(child[0]) for child in children} == {State.BLOCKED}
    world.poll("v")
    world.report(lease, succeeded())
    assert {world.state(child[0]) for child in children} <= {State.QUEUED, State.RUNNING, State.SCHEDULED}
    assert world.state(full) is State.RUNNING
    assert world.state(world.enqueue_all(world.some(1))[0]) is State.CANCELLED


def test_a_child_of_one_that_found_no_room_ends_with_it(world: Bounded) -> None:
    world.bound(NEWEST, 1)
    _, parent = tasks = world.some(2)
    terms = Terms(parents=Parents((parent[0],), OnParentFailure.SKIP))
    (child,) = [(*task[:4], terms) for task in world.some(1)]
    world.ask([*tasks, child])
    assert [world.state(task[0]) for task in (parent, child)] == [State.CANCELLED] * 2


def test_nobody_can_be_told_that_children_and_requested_tasks_are_refused(world: Bounded) -> None:
    world.bound(REJECT, 1)
    lease = world.lease(world.enqueue_all(world.some(1))[0], "w")
    children = world.some(2)
    world.register("w", lease, concurrency=1)
    world.enqueue_all([world.new(queue="other")])
    world.report(lease, succeeded(children=children))
    assert [world.state(child[0]) for child in children] == [State.QUEUED, State.CANCELLED]
    requested = world.some(1)
    world.ask(requested, requested=True)
    assert world.state(requested[0][0]) is State.CANCELLED


def test_a_restart_changes_nothing_and_nor_does_a_request_in_its_first_step(world: Bounded) -> None:
    world.bound(REJECT, 3)
    world.ask(world.some(3))
    ticket = world.ticket()
    world.take_over(Enqueued(ticket, world.some(1)))
    reply = world.answers[ticket]
    assert isinstance(reply, EnqueueReply)
    assert reply.full


def test_nothing_is_counted_where_there_is_room_in_any_case(world: Bounded, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bound(REJECT, 10)
    counted: list[list[int | None]] = []
    count = world.table.count

    def counting(found: Mapping[Place, Crowd]) -> None:
        counted.append([crowd.waiting for crowd in found.values()])
        count(found)

    monkeypatch.setattr(world.table, "count", counting)
    for _ in range(12):
        world.ask(world.some(1))
    assert counted == [[None], *([number] for number in range(1, 10)), [None], [None]]


@pytest.mark.parametrize("policy", [REJECT, OLDEST, NEWEST])
@pytest.mark.parametrize("seed", range(6))
def test_new_tasks_never_make_more_wait_than_may(world: Bounded, policy: Overflow, seed: int) -> None:
    chance = Chance(seed)
    world.bound(policy, 8, per_key=3)
    world.register("w", concurrency=3)
    held: list[Granted] = []
    for turn in range(150):
        before, back = len(world.waiting()), 0
        events: list[Event] = []
        for _ in range(chance.randrange(3)):
            new = world.some(chance.randrange(1, 5), chance.choice(["", "a", "b"]), chance.choice([0.0, 0.0, 2.0]))
            events.append(Enqueued(world.ticket(), new, sizes=[1] * len(new) if chance.random() < 0.5 else []))
        if chance.random() < 0.3 and (waiting := world.waiting()):
            task = copy_of(world.row(chance.choice(waiting)))
            events.append(CancelAsked(world.ticket(), task, "tried", 1.0))
        if held and chance.random() < 0.5:
            lease = held.pop()
            outcome = chance.choice([succeeded(children=world.some(2, "a")), failed()])
            back = not outcome[2]
            ticket = world.ticket()
            report = (lease.task, lease.number, *outcome[2:])
            events.append(Polled(ticket, "w", world.sessions["w"], [report]))
            world.now += 1
        chance.shuffle(events)
        world.turn(*events)
        if turn % 20 == 19:
            world.take_over()
            held.clear()
            world.register("w", *world_leases(world), concurrency=3)
        if chance.random() < 0.5:
            world.take("w")
        held = world_leases(world)
        assert len(world.waiting()) <= max(8, before) + back, turn
        for key in ("a", "b"):
            keyed = [row for row in world.table.waiting("default") if row.options.concurrency_key == key]
            assert len(keyed) <= 3 + sum(row.attempt > 0 for row in keyed)
    assert world.core.counters.claimed or world.table.done


def world_leases(world: World) -> list[Granted]:
    rows = [row for row in world.table.live.values() if row.state is State.RUNNING]
    return [Granted(row.id, row.lease, row.attempt, "w") for row in rows]


def test_what_comes_back_after_a_count_is_reckoned_with() -> None:
    """They ran when it was counted, and were not among those that wait."""
    world = Bounded(CoreSettings(prefetch_s=0.0))
    world.bound(REJECT, 4)
    world.register("w", concurrency=3)
    world.enqueue_all(world.some(3))
    while world.take("w"):
        pass
    held = world_leases(world)
    world.drain()
    assert not world.ask(world.some(2)).full  # 3 that had come and 2: it is counted, and these 2 are all
    for lease in held:
        world.report(lease, failed())
    assert len(world.waiting()) == 5
    assert world.ask(world.some(2)).full
