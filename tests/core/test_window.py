from asyncproc.core.decision import Key
from asyncproc.core.states import State
from asyncproc.core.task import Options, Task
from asyncproc.core.window import START, Window
from simulation.world import THRICE

OPTIONS = Options("Work", "default", 0, THRICE, "tests")
NO_LIMIT = 1 << 30


class Bounded(Window):
    """A window whose bounds do not change."""

    def __init__(self, limit: int, limit_bytes: int, end: Key | None) -> None:
        super().__init__(end)
        self._bounds = (limit, limit_bytes)

    def left(self) -> list[Task]:
        return self.shed(*self._bounds)

    def lacks(self) -> int:
        return self.wanted(*self._bounds)


def a_task(number: int, size: int = 0) -> Task:
    return Task(number.to_bytes(16), b"x" * size, OPTIONS, State.QUEUED, 0.0, 0.0)


def filled(limit: int, *ranks: float, limit_bytes: int = NO_LIMIT, size: int = 0) -> Bounded:
    window = Bounded(limit, limit_bytes, None)
    for number, rank in enumerate(ranks):
        assert window.push(rank, a_task(number, size))
    return window


def drained(window: Window) -> list[int]:
    return [int.from_bytes(window.pop().id) for _ in range(len(window))]


def test_tasks_come_out_by_key_and_then_by_id() -> None:
    assert drained(filled(10, 3.0, 1.0, 2.0, 1.0)) == [1, 3, 2, 0]


def test_a_look_at_the_head_leaves_it_there() -> None:
    window = filled(10, 3.0, 1.0)
    assert [entry[:1] if entry else None for entry in (window.peek(), window.peek())] == [(1.0,), (1.0,)]
    assert Bounded(10, 10, None).peek() is None


def test_what_is_worse_than_the_end_stays_on_disk() -> None:
    window = Bounded(10, NO_LIMIT, (5.0, a_task(5).id))
    assert window.push(4.0, a_task(9))
    assert window.push(5.0, a_task(5))
    assert not window.push(5.0, a_task(6))
    assert not window.push(6.0, a_task(1))
    assert len(window) == 2


def test_a_window_at_its_start_takes_nothing_but_from_pages() -> None:
    assert not Bounded(10, NO_LIMIT, START).push(-1e300, a_task(1))


def test_within_its_bounds_nothing_is_shed() -> None:
    window = filled(4, 1, 2, 3, 4, limit_bytes=40, size=10)
    assert (window.left(), window.lacks()) == ([], 0)


def test_past_the_limit_the_worst_are_shed_and_a_quarter_more() -> None:
    window = filled(4, 5, 3, 1, 4, 2)
    assert sorted(int.from_bytes(task.id) for task in window.left()) == [0, 3]
    assert window.end == (3.0, a_task(1).id)
    assert drained(window) == [2, 4, 1]


def test_past_the_bytes_the_worst_are_shed_too() -> None:
    window = filled(100, 5, 3, 1, 4, 2, limit_bytes=40, size=10)
    assert len(window.left()) == 2
    assert window.end == (3.0, a_task(1).id)


def test_one_task_is_kept_however_large() -> None:
    window = filled(100, 1, limit_bytes=10, size=500)
    assert window.left() == []
    window.push(2, a_task(7, 500))
    assert [int.from_bytes(task.id) for task in window.left()] == [7]


def test_no_page_is_wanted_right_after_shedding() -> None:
    window = Bounded(100, 60, None)
    for number, size in enumerate([10, 10, 40, 40]):
        window.push(number, a_task(number, size))
    window.left()
    assert window.end is not None
    assert window.lacks() == 0


def test_a_page_of_a_quarter_is_wanted_when_half_is_gone() -> None:
    window = filled(8, *range(9))
    window.left()
    assert (len(window), window.lacks()) == (6, 0)
    window.pop()
    assert window.lacks() == 0
    window.pop()
    assert window.lacks() == 2


def test_bytes_hold_a_page_back_while_half_of_them_are_in_use() -> None:
    window = Bounded(100, 100, START)
    window.page_arrived((2.0, b""), complete=False)
    window.push(1.0, a_task(1, 51))
    assert window.lacks() == 0
    window.pop()
    assert window.lacks() == 25


def test_no_second_page_is_wanted_while_one_is_on_its_way() -> None:
    window = Bounded(8, NO_LIMIT, START)
    assert window.lacks() == 2
    window.paging = True
    assert window.lacks() == 0
    window.page_arrived((3.0, b"x"), complete=False)
    assert window.end == (3.0, b"x")
    assert window.lacks() == 2


def test_the_last_page_opens_the_window() -> None:
    window = Bounded(8, NO_LIMIT, START)
    window.page_arrived(None, complete=True)
    assert window.lacks() == 0
    assert window.push(1e300, a_task(1))


def test_a_rewound_window_leaves_all_from_the_key_on_to_the_disk() -> None:
    window = filled(10, 1, 2, 3, 4, limit_bytes=100, size=10)
    assert sorted(int.from_bytes(task.id) for task in window.rewind((3, b""))) == [2, 3]
    assert window.end == (3.0, b"")
    assert not window.push(3, a_task(2))
    assert drained(window) == [0, 1]


def test_a_window_that_ends_before_the_key_is_not_rewound() -> None:
    window = Bounded(10, 100, (2.0, b"x"))
    assert window.rewind((3.0, b"")) == []
    assert window.end == (2.0, b"x")


def test_what_is_taken_out_of_the_middle_is_passed_over() -> None:
    window = filled(10, 1.0, 2.0, 3.0, 4.0)
    for number in (1, 0):
        window.discard(1.0 + number, a_task(number))
    assert len(window) == 2
    head = window.peek()
    assert head is not None
    assert head[0] == 3.0
    assert drained(window) == [2, 3]


def test_what_was_taken_out_can_come_back_under_the_same_key() -> None:
    window = filled(10, 1.0, 2.0, 3.0, 4.0)
    window.discard(2.0, a_task(1))
    again = a_task(1)
    assert window.push(2.0, again)
    assert drained(window) == [0, 1, 2, 3]


def test_the_bounds_do_not_count_what_was_taken_out() -> None:
    window = filled(4, 1.0, 2.0, 3.0, 4.0, 5.0)
    window.discard(3.0, a_task(2))
    assert window.left() == []
    assert window.end is None
