import pytest

from chaos.gaps import WINDOW_S, gaps, share


@pytest.mark.parametrize(
    ("starts", "gap"),
    [
        ([9.0, 10.5, 10.6], 0.5),  # from the interruption itself
        ([10.1, 13.0, 13.1], 2.9),  # what was on its way still began
        ([10.1, 24.0, 26.0], 13.9),  # the window ends before the last one
        ([10.1, 10.2, 40.0], 29.8),  # it reaches beyond the window
    ],
)
def test_the_gap_is_the_longest_time_without_a_start(starts: list[float], gap: float) -> None:
    assert gaps(starts, [10.0], []) == [pytest.approx(gap)]


def test_a_gap_ends_with_the_next_interruption() -> None:
    starts = [10.2, 12.0, 12.1, 20.0]

    assert gaps(starts, [10.0, 12.05], [10.0, 12.05]) == [pytest.approx(1.8), pytest.approx(7.9)]


def test_an_interruption_after_the_last_start_says_nothing() -> None:
    assert gaps([1.0, 2.0], [3.0], []) == []
    assert WINDOW_S > 5


def test_the_share_of_values_is_one_of_them() -> None:
    values = [5.0, 1.0, 3.0]

    assert [share(values, part) for part in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 5.0, 5.0]
