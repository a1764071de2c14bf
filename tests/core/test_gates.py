"""Limits, rates, fairness and pauses, through the core and one day of simulated time."""

from collections import Counter

import pytest

from asyncproc.core.blockers import blockers
from asyncproc.core.decision import PageWanted
from asyncproc.core.events import Page, QueueReranked, Refused, RulesChanged
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.steering import Pause, QueueRules, RateLimit, Rules, TypeRules
from asyncproc.core.task import NewTask, TaskId
from simulation.world import NOON, Granted, World, succeeded


class Steered(World):
    """A world with an operator."""

    def obey(self, **rules: object) -> None:
        self.rules = Rules(**rules)  # type: ignore[arg-type]
        self.turn(RulesChanged(self.ticket(), self.rules))

    def take_over(self) -> None:
        """The QueueActor dies, and the next one is told the rules before anything else."""
        self.epoch += 1
        self.core = self.make_core(self.settings, self.epoch)
        self.sessions.clear()
        self.turn(RulesChanged(self.ticket(), self.rules), self.table.load())

    def keyed(self, number: int, *, key: str = "", tenant: str = "", **options: object) -> list[TaskId]:
        tasks = [self.new(**options) for _ in range(number)]  # type: ignore[arg-type]
        return self.enqueue_all([with_keys(task, key, tenant) for task in tasks])

    def take_all(self, worker: str) -> list[Granted]:
        """Poll until nothing more comes; returns all that the worker runs, in the order of the start."""
        while self.take(worker):
            pass
        rows = [row for row in self.table.live.values() if row.state is State.RUNNING and row.worker == worker]
        rows.sort(key=lambda row: (row.rank, row.id))
        return [Granted(row.id, row.lease, row.attempt, worker) for row in rows]

    def running_of(self, tasks: list[TaskId]) -> int:
        return sum(self.state(task) is State.RUNNING for task in tasks)


def started_at(world: World, task: TaskId) -> float:
    return world.core.tasks[task].started_at


def with_keys(task: NewTask, key: str, tenant: str) -> NewTask:
    task_id, payload, options, delay_s, terms = task
    return (task_id, payload, options._replace(concurrency_key=key, fairness_key=tenant), delay_s, terms)


@pytest.fixture
def world() -> Steered:
    world = Steered(CoreSettings(prefetch_s=0.0))
    world.register("w", concurrency=50)
    return world


def test_of_a_concurrency_key_one_runs_at_a_time(world: Steered) -> None:
    first, second = world.keyed(2, key="k")
    others = world.keyed(3, key="other") + world.keyed(4)

    leases = world.take_all("w")

    assert {lease.task for lease in leases} == {first, others[0], *others[3:]}
    ended = next(lease for lease in leases if lease.task == first)
    assert [lease.task for lease in world.report(ended, succeeded())] == [second]


def test_a_key_is_of_its_queue(world: Steered) -> None:
    tasks = world.keyed(1, key="k", queue="a") + world.keyed(1, key="k", queue="b")
    assert {lease.task for lease in world.take_all("w")} == set(tasks)


@pytest.mark.parametrize(
    "rules",
    [
        {"queues": {"default": QueueRules(max_running=3, max_running_per_key=9)}},
        {"queues": {"default": QueueRules(max_running_per_key=3)}},
        {"types": {"Work": TypeRules(max_running=3)}, "queues": {"default": QueueRules(max_running_per_key=9)}},
    ],
)
def test_no_more_run_than_the_limit_and_what_ends_makes_room(world: Steered, rules: dict[str, object]) -> None:
    world.obey(**rules)
    tasks = world.keyed(10, key="k")

    leases = world.take_all("w")
    assert [lease.task for lease in leases] == tasks[:3]

    for place in range(3, 10):
        leases += world.report(leases[place - 3], succeeded())
        assert world.running_of(tasks) == 3
    assert [lease.task for lease in leases] == tasks


def test_a_task_that_returns_or_fails_or_loses_its_worker_makes_room(world: Steered) -> None:
    world.obey(types={"Work": TypeRules(max_running=1)})
    first, second = world.keyed(2)
    lease = world.lease(first, "w")
    (again,) = world.give_back([lease])
    assert again.task == first
    world.register("v", concurrency=5)
    world.lose("w", charged=False)
    assert [lease.task for lease in world.take_all("v")] == [first]
    assert world.state(second) is State.QUEUED


def test_a_limit_holds_across_a_restart(world: Steered) -> None:
    world.obey(types={"Work": TypeRules(max_running=2)})
    tasks = world.keyed(5)
    leases = world.take_all("w")

    world.take_over()
    world.register("w", *leases, concurrency=50)

    assert world.take_all("w") == leases
    assert world.running_of(tasks) == 2
    assert [lease.task for lease in world.report(leases[0], succeeded())] == [tasks[2]]


def test_a_raised_limit_counts_at_once_and_a_lowered_one_for_what_starts(world: Steered) -> None:
    world.obey(types={"Work": TypeRules(max_running=2)})
    tasks = world.keyed(8)
    assert len(world.take_all("w")) == 2
    world.obey(types={"Work": TypeRules(max_running=4)})
    leases = world.take_all("w")
    assert [lease.task for lease in leases] == tasks[:4]

    world.obey(types={"Work": TypeRules(max_running=1)})
    for lease in leases[:3]:
        world.report(lease, succeeded())
    assert [lease.task for lease in world.take_all("w")] == [tasks[3]]
    world.report(leases[3], succeeded())
    assert [lease.task for lease in world.take_all("w")] == [tasks[4]]


def test_other_types_pass_a_type_at_its_limit(world: Steered) -> None:
    world.obey(types={"Slow": TypeRules(max_running=1)})
    slow = world.keyed(100, type_name="Slow")
    quick = world.keyed(5, type_name="Quick")
    assert {lease.task for lease in world.take_all("w")} == {slow[0], *quick}


def test_a_lane_at_its_limit_does_not_fill_the_window() -> None:
    world = Steered(CoreSettings(prefetch_s=0.0, window=20))
    world.register("w", concurrency=50)
    world.keyed(500, key="flood")
    late = world.keyed(5, key="late") + world.keyed(5)
    taken = {lease.task for lease in world.take_all("w")}
    assert {late[0], *late[5:]} <= taken


# ---- rates


def test_a_rate_lets_through_what_it_fills_and_no_more(world: Steered) -> None:
    world.obey(types={"Work": TypeRules(draws=(("api", 1.0),))}, rates={"api": RateLimit(per_s=10.0, burst=3.0)})
    world.keyed(200)
    starts: list[float] = []
    while world.now < NOON + 5.0:
        for lease in world.take_all("w"):
            starts.append(started_at(world, lease.task))
            world.report(lease, succeeded())
        world.wait(0.02)
    assert len([at for at in starts if at < NOON + 5.0]) in {52, 53}
    for at in starts:
        assert len([other for other in starts if at <= other < at + 1.0]) <= 13


def test_types_share_a_rate_and_draw_their_own_units(world: Steered) -> None:
    draws = {"Small": TypeRules(draws=(("api", 1.0),)), "Large": TypeRules(draws=(("api", 5.0),))}
    world.obey(types=draws, rates={"api": RateLimit(per_s=1.0, burst=6.0)})
    large, small = world.keyed(2, type_name="Large"), world.keyed(3, type_name="Small")
    assert [lease.task for lease in world.take_all("w")] == [large[0], small[0]]


def test_a_waiting_rate_wakes_the_core_when_it_is_free(world: Steered) -> None:
    world.obey(types={"Work": TypeRules(draws=(("api", 1.0),))}, rates={"api": RateLimit(per_s=0.5, burst=1.0)})
    _, second = world.keyed(2)
    world.take("w")
    ticket = world.poll("w")
    assert world.parked(ticket)
    world.wait(2.001)
    assert [lease.task for lease in world.granted(ticket, "w")] == [second]


def test_a_rate_is_not_full_again_after_a_restart(world: Steered) -> None:
    world.obey(types={"Work": TypeRules(draws=(("api", 1.0),))}, rates={"api": RateLimit(per_s=0.01, burst=2.0)})
    world.keyed(5)
    leases = world.take_all("w")
    assert len(leases) == 2
    loaded_first = world.table.load()
    assert loaded_first.levels["api"] == (0.0, NOON)
    world.take_over()
    world.register("w", *leases, concurrency=50)
    assert world.take_all("w") == leases


# ---- fairness


def test_tenants_take_turns_whoever_has_more_waiting(world: Steered) -> None:
    world.keyed(1000, tenant="flood")
    late = world.keyed(10, tenant="late")
    taken = [lease.task for lease in world.take_all("w")]
    assert set(late) <= set(taken)


def test_tenants_share_by_their_weights(world: Steered) -> None:
    world.obey(queues={"default": QueueRules(fairness_weights={"ada": 3.0})})
    tenants = {task: "ada" for task in world.keyed(300, tenant="ada")}
    tenants |= {task: "bob" for task in world.keyed(300, tenant="bob")}
    world.register("big", concurrency=200)
    shares = Counter(tenants[lease.task] for lease in world.take_all("big"))
    assert abs(shares["ada"] - 150) <= 1


def test_an_idle_tenant_leaves_its_share_to_the_others_and_saves_nothing(world: Steered) -> None:
    early = world.keyed(30, tenant="ada")
    leases = world.take_all("w")
    assert [lease.task for lease in leases] == early
    world.obey(pauses=(Pause("all", ""),))
    for lease in leases:
        world.report(lease, succeeded())
    tenants = {task: "ada" for task in world.keyed(40, tenant="ada")}
    tenants |= {task: "bob" for task in world.keyed(40, tenant="bob")}
    world.obey()
    shares = Counter(tenants[lease.task] for lease in world.take_all("w"))
    assert abs(shares["ada"] - shares["bob"]) <= 1


def test_tenants_take_turns_before_a_limit_that_they_share(world: Steered) -> None:
    world.obey(types={"Work": TypeRules(max_running=1)})
    tenants = {task: "ada" for task in world.keyed(20, tenant="ada")}
    tenants |= {task: "bob" for task in world.keyed(20, tenant="bob")}
    (lease,) = world.take_all("w")
    order = [tenants[lease.task]]
    for _ in range(9):
        (lease,) = world.report(lease, succeeded())
        order.append(tenants[lease.task])
    assert Counter(order) == {"ada": 5, "bob": 5}


# ---- pauses


@pytest.mark.parametrize("pause", [("all", ""), ("queue", "default"), ("type", "Work")])
def test_what_is_paused_does_not_start_until_it_is_resumed(world: Steered, pause: tuple[str, str]) -> None:
    world.obey(pauses=(Pause(*pause),))
    (task,) = world.keyed(1)
    ticket = world.poll("w")
    assert world.parked(ticket)
    world.obey()
    assert [lease.task for lease in world.granted(ticket, "w")] == [task]


def test_a_pause_ends_by_itself(world: Steered) -> None:
    world.obey(pauses=(Pause("queue", "default", until=NOON + 3.0),))
    (task,) = world.keyed(1)
    ticket = world.poll("w")
    world.wait(2.9)
    assert world.parked(ticket)
    world.wait(0.2)
    assert [lease.task for lease in world.granted(ticket, "w")] == [task]


def test_a_pause_concerns_nobody_else(world: Steered) -> None:
    world.obey(pauses=(Pause("queue", "mail"), Pause("type", "Slow")))
    world.keyed(1, queue="mail")
    world.keyed(1, type_name="Slow")
    (task,) = world.keyed(1)
    assert [lease.task for lease in world.take_all("w")] == [task]


def test_what_runs_goes_on_while_its_queue_is_paused(world: Steered) -> None:
    (task,) = world.keyed(1)
    lease = world.lease(task, "w")
    world.obey(pauses=(Pause("all", ""),))
    world.report(lease, succeeded())
    assert world.state(task) is State.SUCCEEDED


# ---- rules change


def test_a_queue_moves_to_the_pool_that_it_is_given(world: Steered) -> None:
    tasks = world.keyed(2)
    world.obey(queues={"default": QueueRules(pool="gpu")})
    assert world.take_all("w") == []
    world.register("g", pool="gpu", concurrency=5)
    assert [lease.task for lease in world.take_all("g")] == tasks


def test_a_queue_whose_ranks_were_computed_anew_is_read_again(world: Steered) -> None:
    first, second = world.keyed(1, priority=0) + world.keyed(1, priority=1)
    for row, rank in ((world.table.live[first], 1.0), (world.table.live[second], 2.0)):
        row.rank = rank
    world.tampered = True
    world.turn(QueueReranked("default"))
    assert [lease.task for lease in world.take_all("w")] == [first, second]


def test_many_tenants_are_paged_in_lane_by_lane_and_forgotten_when_they_are_through() -> None:
    world = Steered(CoreSettings(prefetch_s=0.0, window=50))
    world.register("w", concurrency=200)
    for number in range(40):
        world.keyed(30, tenant=f"t{number}", key=f"k{number}")
    world.obey(queues={"default": QueueRules(max_running_per_key=30)})
    stream = world.core.backlog.stream("default")
    ended = 0
    while leases := world.take_all("w"):
        assert stream.held <= 50 + 16 * 40
        for lease in leases:
            world.report(lease, succeeded())
        ended += len(leases)
    assert ended == 40 * 30
    assert (len(stream.lanes), stream.held, stream.parked) == (0, 0, 0)
    assert len(stream.shares) <= 64


def test_a_lane_that_was_let_on_and_turns_out_to_be_empty_lets_the_next_one_on(world: Steered) -> None:
    world.obey(queues={"default": QueueRules(max_running=1)})
    (runs,), (first,), (second,) = world.keyed(1, key="r"), world.keyed(1, key="f"), world.keyed(1, key="s")
    world.lease(runs, "w")
    world.poll("w")
    for task in (runs, first):
        del world.table.live[task]
    world.tampered = True
    world.turn(Refused([runs, first]))
    assert world.state(second) is State.RUNNING


def test_lanes_that_drain_together_hardly_read_a_row_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for a page of one of them, and not for a page of each."""
    world = Steered(CoreSettings(prefetch_s=0.0, window=1_000))
    world.register("w", concurrency=100)
    rows, page = [], world.table.page

    def counted(wanted: PageWanted) -> Page:
        read = page(wanted)
        rows.extend(read.tasks)
        return read

    monkeypatch.setattr(world.table, "page", counted)
    for _ in range(3):
        for number in range(20):
            world.keyed(50, tenant=f"t{number}")
    left_to_disk = 3_000 - world.core.backlog.stream("default").held
    rows.clear()
    while leases := world.take_all("w"):
        for lease in leases:
            world.report(lease, succeeded())
    assert left_to_disk <= len(rows) <= 1.1 * left_to_disk


# ---- what is said of it


def said(world: Steered, task: TaskId) -> list[tuple[str, str, str]]:
    found = blockers(world.core.backlog, world.row(task).options, world.now)
    return [(blocker.kind, blocker.name, blocker.text) for blocker in found]


def test_a_task_that_only_waits_for_others_is_not_blocked(world: Steered) -> None:
    (task,) = world.keyed(1, key="k")
    assert said(world, task) == []


def test_every_gate_that_is_shut_is_named(world: Steered) -> None:
    rates = {"api": RateLimit(per_s=0.5, burst=1.0)}
    world.obey(
        queues={"default": QueueRules(max_running=1)},
        types={"Work": TypeRules(max_running=1, draws=(("api", 1.0),))},
        rates=rates,
    )
    first, second = world.keyed(2, key="k")
    world.lease(first, "w")
    assert said(world, second) == [
        ("queue", "default", "1 of 1 run for the queue default"),
        ("key", "k", "1 of 1 run for the key k"),
        ("type", "Work", "1 of 1 run for the type Work"),
        ("rate", "api", "the rate limit api is free in 2.0 s"),
    ]


def test_a_pause_is_told_with_who_and_why_and_until(world: Steered) -> None:
    pauses = (Pause("queue", "default", NOON + 60, "the printer burns", "ada"), Pause("type", "Other"))
    world.obey(pauses=pauses)
    (task,) = world.keyed(1)
    (blocker,) = blockers(world.core.backlog, world.row(task).options, world.now)
    assert (blocker.text, blocker.until) == ("the queue default is paused by ada: the printer burns", NOON + 60)


def test_a_lane_that_was_empty_when_its_gate_opened_goes_on_with_what_comes() -> None:
    world = Steered(CoreSettings(window_bytes=60))
    world.obey(queues={"default": QueueRules(weight=9, max_running=1)})
    first, second = (world.enqueue(payload=b"x" * 50) for _ in range(2))
    others = [world.enqueue(queue="other") for _ in range(2)]
    world.tampered = True
    del world.table.live[second]  # somebody deleted what memory takes to be on disk
    world.register("a", concurrency=3)
    # When the first one has begun nothing is in memory beside it, and the gate is shut before its turn comes again.
    leases = world.take("a")
    assert {lease.task for lease in leases} == {first, *others}
    world.report(leases[0], succeeded())
    third = world.enqueue()
    world.poll("a")
    assert world.state(third) is State.RUNNING
