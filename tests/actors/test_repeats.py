"""Ids of repeated calls, kept within bounds."""

from asyncproc.actors.repeats import Repeats
from asyncproc.core.retry import constant
from asyncproc.core.task import NO_TERMS, NewTask, Options

OPTIONS = Options("Work", "default", 0, constant(1, 1.0), "")


def tasks(*numbers: int) -> list[NewTask]:
    return [(number.to_bytes(16), b"{}", OPTIONS, 0.0, NO_TERMS) for number in numbers]


def test_what_was_noted_is_known_and_nothing_else() -> None:
    repeats = Repeats()
    assert not repeats.include(tasks(1))
    repeats.note(tasks(1, 2))
    assert repeats.include(tasks(3, 2))
    assert not repeats.include(tasks(3))


def test_past_the_bound_those_are_forgotten_that_came_longest_ago() -> None:
    repeats = Repeats(most=2)
    repeats.note(tasks(1, 2))
    repeats.note(tasks(1))
    repeats.note(tasks(3))
    assert [repeats.include(tasks(number)) for number in (1, 2, 3)] == [True, False, True]
