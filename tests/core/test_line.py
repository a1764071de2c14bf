"""What a worker begins next: the order of the leases as they came, and the better ones of a queue before the worse."""

import pytest

from asyncproc.core.events import Lease
from asyncproc.core.line import Line
from asyncproc.core.task import NO_LIMITS
from simulation.chance import Chance


def lease(number: int, queue: str = "a", rank: float = 0.0) -> Lease:
    return (number.to_bytes(16), 1, 1, "T", queue, b"", rank, NO_LIMITS, False)


def order(line: Line) -> list[int]:
    return [int.from_bytes(line.pop()[0]) for _ in range(len(line))]


def test_equal_ranks_begin_as_they_came() -> None:
    line = Line()
    line.put([lease(1), lease(2)])
    line.put([lease(3)])
    assert order(line) == [1, 2, 3]


def test_a_better_rank_goes_before_the_worse_ones_of_its_queue() -> None:
    line = Line()
    line.put([lease(number, rank=float(number)) for number in range(1, 6)])
    line.put([lease(9, rank=2.5)])
    assert order(line) == [1, 2, 9, 3, 4, 5]


def test_it_does_not_go_before_another_queue_for_its_rank() -> None:
    line = Line()
    line.put([lease(1, "b", 7.0), lease(2, "a", 5.0), lease(3, "b", 8.0)])
    line.put([lease(4, "a", 1.0)])
    assert order(line) == [1, 4, 2, 3]


def test_what_is_taken_does_not_begin() -> None:
    line = Line()
    line.put([lease(1), lease(2), lease(3)])
    assert [taken[0] for taken in line.take({lease(2)[0]})] == [lease(2)[0]]
    assert order(line) == [1, 3]
    line.put([lease(4), lease(5)])
    assert len(line.take()) == 2
    assert not line
    with pytest.raises(IndexError):
        line.pop()


def test_each_queue_begins_in_the_order_of_its_ranks_whatever_comes_when() -> None:
    chance = Chance(7)
    line, waiting, begun = Line(), dict[str, list[float]](), 0
    for number in range(2_000):
        if chance.random() < 0.6:
            arriving = [lease(number, chance.choice("abc"), chance.random()) for _ in range(chance.randrange(4))]
            line.put(arriving)
            for one in arriving:
                waiting.setdefault(one[4], []).append(one[6])
        elif line:
            one = line.pop()
            assert one[6] == min(waiting[one[4]])
            waiting[one[4]].remove(one[6])
            begun += 1
    assert begun > 500
