"""Memory against table: what the core believes is what a successor would read."""

from collections import Counter
from collections.abc import Container

from asyncproc.core.backlog import LEAST_OF_A_LANE, Backlog
from asyncproc.core.dangers import runs_alone
from asyncproc.core.states import DUE_LATER, State
from asyncproc.core.step import Core
from asyncproc.core.task import Task, TaskId, lane_key
from simulation.family import nobody_waits_in_vain
from simulation.ledger import name
from simulation.rules import Rule, Violation, require
from simulation.table import Table, due_key, ready_key

NONE: frozenset[TaskId] = frozenset()


def agree(core: Core, table: Table, but: Container[TaskId] = NONE) -> None:
    """Holds after each commit, `but` for those of which the core will be told that the table has them otherwise."""
    for task in core.tasks.values():
        if task.id in but:
            continue
        row = table.live.get(task.id)
        if row is None:
            raise Violation(Rule.AGREEMENT, f"{name(task.id)} is {task.state} in memory, and not in the table")
        if _figures(task) != _figures(row):
            raise Violation(Rule.AGREEMENT, f"{name(task.id)} is {_figures(task)} in memory, {_figures(row)} on disk")
        if task.payload != row.payload and (task.payload or task.left_out != len(row.payload)):
            raise Violation(Rule.AGREEMENT, f"{name(task.id)} has another payload in memory than on disk")
    _workers_agree(core, table, but)
    nobody_waits_in_vain(table, core.dependents.owed)
    _batches_agree(core)
    _nothing_is_forgotten(core.backlog, core.tasks, table, but)
    _bounds_hold(core)


def _figures(task: Task) -> tuple[object, ...]:
    rank = None if task.state in DUE_LATER else task.rank
    worker = task.worker if task.state is State.RUNNING else ""
    where = (task.options.priority, task.queue)
    left = bool(task.checkpoint_bytes)
    return (task.state, task.lease, task.attempt, task.losses, task.ready_at, rank, worker, left, *where)


def _workers_agree(core: Core, table: Table, but: Container[TaskId]) -> None:
    holders: dict[TaskId, str] = {}
    for worker in core.workers.values():
        suspected = False
        for task_id in worker.held:
            if task_id in but:
                continue
            require(task_id not in holders, Rule.ONE_LEASE, f"{worker.name} and another hold {task_id.hex()}")
            holders[task_id] = worker.name
            suspected = suspected or runs_alone(core.tasks[task_id].losses)
        if suspected:
            require(len(worker.held) == 1, Rule.ALONE, f"{worker.name} holds {len(worker.held)} tasks, one a suspect")
    for row in table.live.values():
        if row.state is State.RUNNING and row.id not in but:
            holder = holders.pop(row.id, "nobody")
            if holder != row.worker:
                raise Violation(Rule.ONE_LEASE, f"{name(row.id)} runs on {row.worker}, and {holder} holds it")
    require(not holders, Rule.ONE_LEASE, f"{len(holders)} tasks are held that do not run")


def _batches_agree(core: Core) -> None:
    for worker in core.workers.values():
        sizes = Counter(id(batch) for batch in worker.batches.values())
        alone = len(worker.held) - len(worker.batches)
        slots = f"{worker.name} holds {len(worker.held)} tasks in {worker.taken} slots, {dict(sizes)} in batches"
        require(worker.taken == len(sizes) + alone, Rule.BATCHES, slots)
        require(worker.batches.keys() <= worker.held.keys(), Rule.BATCHES, slots)
        for task_id, batch in worker.batches.items():
            most = worker.batching[batch.type].size
            require(batch.left == sizes[id(batch)] <= most, Rule.BATCHES, slots)
            is_alike = core.tasks[task_id].options.type == batch.type
            require(is_alike, Rule.BATCHES, f"{name(task_id)} runs with tasks of type {batch.type}")


def _nothing_is_forgotten(
    backlog: Backlog, known: Container[TaskId], table: Table, but: Container[TaskId] = NONE
) -> None:
    ends = {
        (stream.queue, lane.key): lane.end
        for pool in backlog.pools.values()
        for stream in pool.lineup
        for lane in stream.lanes.values()
    }
    for row in table.live.values():
        if row.id in known or row.id in but or row.id in table.edges.untold or row.state is State.BLOCKED:
            continue
        if row.state is State.QUEUED:
            end, key = ends.get((row.queue, lane_key(row.options))), ready_key(row)
        else:
            end, key = backlog._due.end, due_key(row)
        if row.state is State.RUNNING:
            raise Violation(Rule.ALL_ON_DISK, f"{name(row.id)} runs, and is forgotten")
        if end is None:
            raise Violation(Rule.ALL_ON_DISK, f"{name(row.id)} is {row.state}, and its window claims to hold all")
        if key <= end:
            raise Violation(Rule.ALL_ON_DISK, f"{name(row.id)} is {row.state} before the end of its window")


def _bounds_hold(core: Core) -> None:
    settings = core.settings
    for worker in core.workers.values():
        most = max(settings.max_held, worker.concurrency)
        # One that is known by its rows alone says how many slots it has when it registers.
        require(not worker.session or len(worker.held) <= most, Rule.BOUNDS, f"{worker.name} holds {len(worker.held)}")
    for pool in core.backlog.pools.values():
        for stream in pool.lineup:
            most = settings.window + LEAST_OF_A_LANE * len(stream.lanes)
            require(stream.held <= most, Rule.BOUNDS, f"{stream.held} tasks of {stream.name} are in memory")
            waiting = sum(len(lane) for lane in stream.lanes.values())
            require(
                waiting == stream.held, Rule.BOUNDS, f"{waiting} tasks wait in {stream.name}, it counts {stream.held}"
            )
