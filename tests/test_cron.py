"""When schedules are due, the days on which clocks change included."""

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from asyncproc.core.schedule import Plan
from asyncproc.cron import Cron, Every

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def next_ones(plan: Plan, instant: float, count: int) -> list[str]:
    """In UTC."""
    found: list[str] = []
    for _ in range(count):
        following = plan.after(instant)
        assert following is not None
        assert following > instant
        instant = following
        found.append(datetime.fromtimestamp(instant, UTC).strftime("%m-%d %H:%M"))
    return found


def test_a_cron_goes_by_the_clocks_of_its_zone() -> None:
    cron = Cron("30 9 * * MON-FRI", "America/New_York")
    assert next_ones(cron, at("2026-03-05T20:00"), 3) == ["03-06 14:30", "03-09 13:30", "03-10 13:30"]
    assert cron.text(at("2026-03-06T14:30")) == b'"2026-03-06T09:30:00-05:00"'
    assert Cron("@daily").text(0.0) == b'"1970-01-01T00:00:00Z"'


def test_a_local_time_that_does_not_exist_comes_at_the_end_of_the_gap_once() -> None:
    """Clocks go from 02:00 to 03:00 on March 29, which is 01:00 UTC."""
    assert next_ones(Cron("30 2 * * *", BERLIN), at("2026-03-28T00:00"), 3) == [
        "03-28 01:30",
        "03-29 01:00",
        "03-30 00:30",
    ]
    both = Cron("10,50 2 * * *", BERLIN)
    assert next_ones(both, at("2026-03-28T12:00"), 2) == ["03-29 01:00", "03-30 00:10"]


def test_a_local_time_that_exists_twice_comes_the_first_time_only() -> None:
    """Clocks go from 03:00 back to 02:00 on October 25: 02:30 is 00:30 UTC and 01:30 UTC."""
    cron = Cron("30 2 * * *", BERLIN)
    assert next_ones(cron, at("2026-10-24T12:00"), 2) == ["10-25 00:30", "10-26 01:30"]
    for between in ("2026-10-25T00:30", "2026-10-25T00:45", "2026-10-25T01:10", "2026-10-25T01:30"):
        assert next_ones(cron, at(between), 1) == ["10-26 01:30"]


def test_a_cron_of_every_hour_goes_by_the_time_that_passes() -> None:
    cron = Cron("30 * * * *", BERLIN)
    assert next_ones(cron, at("2026-10-24T23:45"), 3) == ["10-25 00:30", "10-25 01:30", "10-25 02:30"]
    assert next_ones(cron, at("2026-03-29T00:00"), 3) == ["03-29 00:30", "03-29 01:30", "03-29 02:30"]


@pytest.mark.parametrize(
    "plan",
    [
        Cron("30 2 * * *", BERLIN),
        Cron("0,30 1-3 * * *", BERLIN),
        Cron("*/15 * * * *", BERLIN),
        Cron("15 */2 * * *", "America/Sao_Paulo"),
        Cron("0 2 * * *", "Australia/Lord_Howe"),
        Every(5400.0),
        Every(1.5),
    ],
)
@pytest.mark.parametrize("day", ["2026-03-28T12:00", "2026-10-24T12:00", "2026-04-04T06:00", "2026-10-03T06:00"])
def test_the_last_one_until_an_instant_is_one_of_those_that_come_one_after_the_other(plan: Plan, day: str) -> None:
    begin = instant = at(day)
    forwards = [instant] + [instant := plan.after(instant) or 0.0 for _ in range(40)]
    assert all(earlier < later for earlier, later in pairwise(forwards))
    for earlier, later in pairwise(forwards[1:]):
        for moment in (earlier, earlier + 0.000001, (earlier + later) / 2, later - 0.000001):
            assert (plan.until(moment), plan.after(moment)) == (earlier, later)
    assert begin < forwards[1]


def test_an_interval_is_the_same_whoever_asks() -> None:
    assert next_ones(Every(21_600.0), at("2026-01-01T05:59"), 2) == ["01-01 06:00", "01-01 12:00"]
    tick = Every(1.1).after(1_800_000_000.0)
    assert tick is not None
    assert Every(1.1).until(tick) == tick
    assert Every(1.1).until(tick - 1e-6) < tick  # type: ignore[operator]


@pytest.mark.parametrize(
    ("expression", "zone", "why"),
    [
        ("0 0 30 2 *", "UTC", "day-of-month"),
        ("0 0 31 2,4 *", "UTC", "day-of-month"),
        ("61 * * * *", "UTC", "bad minute: must be a cron"),
        ("* * * *", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("", "UTC", "five fields"),
        ("@never", "UTC", "five fields"),
        ("é * * * *", "UTC", "bad minute"),
        ("0 0 * * *", "Europe/Berln", "did you mean Europe/Berlin?"),
        ("0 0 * * *", "../../etc/passwd", "there is no time zone"),
        ("0 0 * * *", "Europe", "there is no time zone"),
        ("0 0 * * *", "", "there is no time zone"),
    ],
)
def test_what_is_no_cron_is_refused_and_says_why(expression: str, zone: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("?", r"\?")):
        Cron(expression, zone)


def test_a_leap_day_is_found() -> None:
    assert next_ones(Cron("0 0 29 2 *"), at("2026-01-01T00:00"), 1) == ["02-29 00:00"]
