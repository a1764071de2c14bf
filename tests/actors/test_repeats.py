"""Ids of repeated calls, kept within bounds."""

from asyncproc.actors.repeats import Repeats


def ids(*numbers: int) -> list[bytes]:
    return [number.to_bytes(16) for number in numbers]


def test_what_was_noted_is_known_and_nothing_else() -> None:
    repeats = Repeats()
    assert not repeats.include(ids(1))
    repeats.note(ids(1, 2))
    assert repeats.include(ids(3, 2))
    assert not repeats.include(ids(3))


def test_past_the_bound_the_oldest_call_is_forgotten_and_the_newest_never() -> None:
    repeats = Repeats(most=2)
    repeats.note(ids(1))
    repeats.note(ids(2, 3, 4))
    assert not repeats.include(ids(1))
    assert repeats.include(ids(4))
