import pytest

from asyncproc.core.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("5s", 5.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("250ms", 0.25), ("2h45m10s", 9910.0), ("+5s", 5.0),
        ("-5s", -5.0), (".5s", 0.5), ("1.s", 1.0), ("3us", 3e-6), ("3µs", 3e-6), ("3μs", 3e-6), ("7ns", 7e-9),
        ("0s", 0),
    ],
)  # fmt: skip
def test_go_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5x", "5s ", " 5s", "5s3", "-", "+-5s", "1h-5m", ".s", "1e3s", "nan", "inf", "1" * 70 + "s"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 5s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.25, "250ms"), (0.1, "100ms"), (1, "1s"), (90, "1m30s"), (3600, "1h"), (5400, "1h30m"),
        (59.9996, "1m"), (3599.9999, "1h"), (1.5, "1.5s"), (86_400, "24h"), (1e-9, "0.000001ms"),
    ],
)  # fmt: skip
def test_durations_are_written_as_short_as_they_go(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [1e-9, 2.5e-5, 0.001, 0.123456, 0.999, 1.001, 12.345, 61.5, 4000.25, 1e6])
def test_what_is_written_can_be_read(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)
