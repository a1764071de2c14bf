from collections import Counter

from asyncproc.core.lanes import Lane
from asyncproc.core.states import State
from asyncproc.core.steering import QueueRules
from asyncproc.core.streams import Stream
from asyncproc.core.task import Options, Task
from asyncproc.core.turns import Turns
from simulation.world import THRICE

NOW = 0.0
AFTER_ALL = (0.0, b"\xff")


class Queues:
    """Streams with as many tasks as are asked for."""

    def __init__(self, **weights: int) -> None:
        self.lineup: Turns[Stream] = Turns()
        self.streams = {name: Stream(name, QueueRules(weight), self.lineup, {}) for name, weight in weights.items()}
        self._made = 0
        for stream in self.streams.values():
            self.lineup.add(stream)

    def fill(self, name: str, number: int) -> None:
        for _ in range(number):
            self._made += 1
            options = Options("Work", name, 0, THRICE, "tests")
            self.lane(name).push(Task(self._made.to_bytes(16), b"", options, State.QUEUED, 0.0, 0.0))

    def lane(self, name: str) -> Lane:
        return self.streams[name].lane(("Work", "", "", ""))

    def begin_page(self, name: str) -> None:
        """A part of the queue is on disk."""
        lane = self.lane(name)
        lane.rewind(AFTER_ALL)

    def serve(self, number: int) -> list[str]:
        served: list[str] = []
        while len(served) < number and (lane := self.lineup.head(NOW)) is not None:
            shown = lane.best
            assert lane.stream.serve(lane, NOW) is shown
            served.append(lane.stream.name)
        return served


def test_equal_weights_take_turns() -> None:
    queues = Queues(a=1, b=1)
    queues.fill("a", 4)
    queues.fill("b", 4)
    assert queues.serve(8) == ["a", "b"] * 4


def test_weights_three_to_one_share_three_to_one() -> None:
    queues = Queues(a=3, b=1)
    queues.fill("a", 900)
    queues.fill("b", 900)
    for _ in range(100):
        assert Counter(queues.serve(4)) == {"a": 3, "b": 1}


def test_nothing_is_held_back_for_a_queue_that_has_nothing() -> None:
    queues = Queues(a=1, b=100)
    queues.fill("a", 5)
    assert queues.serve(10) == ["a"] * 5
    assert queues.lineup.head(NOW) is None


def test_an_idle_queue_does_not_save_up() -> None:
    queues = Queues(a=1, b=1)
    queues.fill("a", 100)
    queues.serve(50)
    queues.fill("b", 50)
    assert Counter(queues.serve(20)) == {"a": 10, "b": 10}


def test_an_idle_queue_that_was_served_before_does_not_lag_behind() -> None:
    queues = Queues(a=1, b=1)
    queues.fill("a", 50)
    queues.serve(50)
    queues.fill("b", 50)
    queues.fill("a", 50)
    assert Counter(queues.serve(20)) == {"a": 10, "b": 10}


def test_a_queue_that_waits_for_a_page_keeps_its_claim() -> None:
    queues = Queues(a=1, b=1)
    queues.begin_page("a")
    queues.fill("a", 10)
    queues.fill("b", 100)
    queues.serve(40)
    queues.fill("a", 30)
    assert queues.serve(20) == ["a"] * 20


def test_a_claim_that_is_made_good_does_not_turn_back_time_for_the_others() -> None:
    queues = Queues(a=1, b=1, c=1)
    queues.begin_page("a")
    queues.fill("a", 1)
    queues.fill("b", 100)
    queues.serve(41)
    queues.fill("a", 100)
    queues.serve(1)
    queues.fill("c", 100)
    assert Counter(queues.serve(38)) == {"a": 38}
    assert Counter(queues.serve(30)) == {"a": 10, "b": 10, "c": 10}


def test_what_is_ready_is_counted_over_all_queues() -> None:
    queues = Queues(a=1, b=1)
    queues.fill("a", 3)
    queues.fill("b", 2)
    assert sum(stream.startable for stream in queues.lineup) == 5
