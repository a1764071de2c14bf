"""What stays is not searched, and what is made later still is."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from asyncproc.actors.garbage import NEW_OBJECTS, search_seldom, spare_what_stays


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Ring:
    def __init__(self) -> None:
        self.itself = self


def test_a_worker_spares_what_stays_and_leaves_the_rest_to_the_interpreter() -> None:
    before = gc.get_threshold()
    spare_what_stays()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold() == before


def test_the_queue_actor_is_searched_seldom_but_is_searched() -> None:
    search_seldom()
    ring = weakref.ref(Ring())
    held: list[list[int]] = [[] for _ in range(NEW_OBJECTS // 2)]
    assert ring() is not None
    held += [[] for _ in range(NEW_OBJECTS)]
    assert ring() is None, len(held)
