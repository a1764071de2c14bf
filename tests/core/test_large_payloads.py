from typing import Any

import pytest

from asyncproc.core.events import Enqueued
from asyncproc.core.retry import constant
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from simulation.world import World, failed, succeeded
from tests.core.test_dispatch import tiny_tasks

LARGE = b"x" * 1000


def world_of(**settings: Any) -> World:
    return World(CoreSettings(large_bytes=100, **settings))


def payloads_held(world: World) -> int:
    return sum(len(task.payload) for task in world.core.tasks.values())


def payload_of(world: World, ticket: int) -> bytes:
    (lease,) = world.leases(ticket) or []
    return lease[5]


def test_a_large_payload_is_held_until_its_commit_and_no_longer() -> None:
    world = world_of()
    decision = world.turn(Enqueued(world.ticket(), [world.new(payload=LARGE)]))
    assert [task.payload for task in decision.writes.inserts] == [LARGE]
    world.turn()
    assert payloads_held(world) == 0


def test_who_waited_for_it_gets_it_from_memory() -> None:
    world = world_of()
    ticket = world.poll("a")
    world.enqueue(payload=LARGE)
    assert payload_of(world, ticket) == LARGE
    assert world.decisions[-1].payloads == []


def test_later_it_is_read_for_the_lease() -> None:
    world = world_of()
    task = world.enqueue(payload=LARGE)
    ticket = world.poll("a")
    assert world.decisions[-1].payloads == [task]
    assert payload_of(world, ticket) == LARGE


def test_every_attempt_reads_it_anew() -> None:
    world = world_of()
    world.enqueue(payload=LARGE, retry=constant(3, backoff_s=0))
    lease = world.take("a")[0]
    ticket = world.poll("a", (lease.task, lease.number, *failed()[2:]))
    assert payload_of(world, ticket) == LARGE
    world.lose("a")
    assert payload_of(world, world.poll("b")) == LARGE
    assert payloads_held(world) == 0


def test_one_that_runs_when_the_reign_begins_is_read_when_it_runs_again() -> None:
    world = world_of()
    lease = world.lease(world.enqueue(payload=LARGE), worker="a")
    world.restart()
    assert payloads_held(world) == 0
    world.lose("a")
    ticket = world.poll("b")
    assert world.granted(ticket, "b")[0].task == lease.task
    assert payload_of(world, ticket) == LARGE


def test_small_ones_are_never_read_again() -> None:
    world = world_of(window=2)
    world.enqueue_all([world.new(payload=b"x" * 100) for _ in range(10)])
    for _ in range(10):
        world.poll("a")
    assert not any(decision.payloads for decision in world.decisions)


def test_what_is_left_out_does_not_count_in_the_window() -> None:
    world = world_of(window_bytes=500)
    world.enqueue_all([world.new(payload=LARGE) for _ in range(50)])
    world.turn()
    assert len(world.core.tasks) == 50


def test_large_payloads_are_not_granted_ahead() -> None:
    world = world_of()
    tiny_tasks(world, 0)
    world.register("a", concurrency=2)
    world.enqueue_all([world.new(payload=LARGE) for _ in range(10)])
    assert len(world.take("a")) == 2


def test_a_step_grants_no_more_bytes_than_it_may_and_the_next_one_follows_at_once() -> None:
    world = world_of(lease_bytes=2500)
    tickets = {name: world.poll(name) for name in "abcde"}
    world.cycle([Enqueued(world.ticket(), [world.new(payload=LARGE) for _ in range(5)])])
    assert world.running() == 2
    assert world.wake_at == world.now
    world.turn()
    world.turn()
    assert world.running() == 5
    assert not any(world.parked(ticket) for ticket in tickets.values())


def test_a_payload_larger_than_a_step_may_grant_is_granted_alone() -> None:
    world = world_of(lease_bytes=10)
    world.poll("a")
    task = world.enqueue(payload=LARGE)
    assert world.state(task) is State.RUNNING


@pytest.mark.parametrize("window", [10, 100])
@pytest.mark.parametrize("window_bytes", [600, 1 << 40])
def test_the_order_does_not_depend_on_what_is_held(window: int, window_bytes: int) -> None:
    bounded = CoreSettings(window=window, window_bytes=window_bytes, large_bytes=100)
    assert order_of_execution(bounded) == order_of_execution(CoreSettings(window=1_000_000, window_bytes=1 << 40))


def order_of_execution(settings: CoreSettings) -> list[TaskId]:
    world = World(settings)
    for number in range(300):
        world.now += 7.3 * (number % 11)
        world.enqueue(queue="ab"[number % 2], priority=number * 7 % 5, payload=b"x" * (number * 37 % 300))
    world.wait(1)
    order: list[TaskId] = []
    leases = world.take("w")
    while leases:
        order.append(leases[0].task)
        leases = world.report(leases[0], succeeded())
    assert len(order) == 300
    return order
