"""How long workers that have nothing to do wait for an answer, and how soon they must be heard of after it."""

import pytest

from asyncproc.core.decision import RegisterReply
from asyncproc.core.events import Polled, Registered
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from simulation.world import World, succeeded

SETTINGS = CoreSettings(poll_s=10, longest_poll_s=60, idle_polls_a_second=0.1, silence_s=30)
"""Four workers are answered every 40 s, one each ten seconds."""


def crowd(patient: bool = True, settings: CoreSettings = SETTINGS) -> World:
    world = World(settings)
    for name in "abcd":
        ticket = world.ticket()
        world.turn(Registered(ticket, name, "default", 1, [], patient=patient))
        reply = world.answers[ticket]
        assert isinstance(reply, RegisterReply)
        world.sessions[name] = reply.session
    return world


def test_the_more_workers_wait_the_less_often_each_is_answered() -> None:
    world = crowd()
    assert answered_after_s(world, "abcdabcd") == [10, 20, 30, 40, 40, 40, 40, 40]


def answered_after_s(world: World, workers: str) -> list[int]:
    """Each asks at once; after that, again in its turn, as soon as it was answered."""
    waits: list[int] = []
    tickets = {name: (world.poll(name), world.now) for name in workers[:4]}
    for name in workers:
        ticket, since = tickets[name]
        while world.parked(ticket):
            world.wait(1)
        waits.append(round(world.now - since))
        tickets[name] = (world.poll(name), world.now)
    return waits


def test_a_few_are_answered_as_ever() -> None:
    world = crowd()
    for name in "bcd":
        world.lose(name)
    assert answered_after_s(world, "aaaaaa") == [10] * 6


def test_one_that_does_not_say_that_it_waits_is_answered_soon() -> None:
    world = crowd(patient=False)
    ticket = world.poll("a")
    world.wait(10.1)
    assert world.leases(ticket) == []


def test_one_that_runs_something_is_answered_soon() -> None:
    world = crowd()
    lease = world.lease(world.enqueue(), "a")
    parked = world.poll("a")
    world.wait(10.1)
    assert world.leases(parked) == []
    ticket = world.ticket()
    world.turn(Polled(ticket, "a", world.sessions["a"], [(lease.task, lease.number, *succeeded()[2:])]))
    assert world.leases(ticket) == []


@pytest.mark.parametrize("waited_s", [5, 36])
def test_one_that_is_given_a_task_must_be_heard_of_as_soon_as_any_other(waited_s: float) -> None:
    world = crowd()
    tickets = [world.poll(name) for name in "bcda"]
    for name in "bcd":
        world.lose(name)
    ticket = tickets[-1]
    world.wait(waited_s)
    task = world.enqueue()
    assert len(world.granted(ticket, "a")) == 1
    world.wait(29)
    assert world.state(task) is State.RUNNING
    world.wait(11.1)
    assert world.state(task) is State.QUEUED


def test_an_answer_that_found_nobody_is_noticed_within_the_usual_time() -> None:
    world = crowd()
    for name in "bcda":
        world.poll(name)
    world.wait(40.1)
    assert "a" in world.core.workers
    world.wait(29)
    assert "a" in world.core.workers
    world.wait(12)
    assert "a" not in world.core.workers


def test_one_that_came_anew_and_never_asks_is_lost_within_the_usual_time() -> None:
    world = crowd()
    for name in "bcda":
        world.poll(name)
    world.wait(12)
    world.turn(Registered(world.ticket(), "a", "default", 1, [], patient=True))
    world.wait(41)
    assert "a" not in world.core.workers


def test_no_poll_is_open_longer_than_is_set() -> None:
    world = crowd(settings=CoreSettings(poll_s=10, longest_poll_s=15, idle_polls_a_second=0.1))
    assert answered_after_s(world, "abcd") == [10, 15, 15, 15]
