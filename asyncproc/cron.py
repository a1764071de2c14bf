"""When schedules are due: by cron in a time zone, or each so many seconds.

Clocks that are set forward: a tick at a local time that does not exist comes at the end of the gap, once. Clocks that
are set back: a tick at a local time that exists twice comes the first time only. A cron that says `*` for the minutes
or the hours goes by the time that passes instead: it comes in each hour that there is, be it called the same twice.
"""

from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from math import floor
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

_FIELDS: Final = 5
_SHORT: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ALLOWED: Final = (
    "must be a cron of five fields (minute, hour, day of month, month, day of week) such as 30 9 * * MON-FRI"
)


def zone(name: str) -> tzinfo:
    """Raises `ValueError` for one that is not known."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = get_close_matches(name, sorted(available_timezones()), n=1)
        hint = f"did you mean {near[0]}?" if near else "it must be a name such as Europe/Berlin or UTC"
        raise ValueError(f"there is no time zone {name!r:.60}: {hint}") from None


class Cron:
    """A `core.schedule.Plan`. What it keeps between two calls only makes the next one cheaper."""

    def __init__(self, expression: str, time_zone: str = "UTC") -> None:
        """Raises `ValueError` for what is no cron, or never comes true."""
        self._zone = zone(time_zone)
        self._expression = _SHORT.get(expression.strip().lower(), expression)
        if len(self._expression.split()) != _FIELDS:
            raise ValueError(_ALLOWED)
        try:
            possible = self.after(0.0) is not None
        except CronSimError as error:
            raise ValueError(f"{str(error)[:1].lower()}{str(error)[1:]}: {_ALLOWED}") from None
        if not possible:
            raise ValueError("never comes true: there is no such day")

    _came: float | None = None
    _coming: CronSim | None = None

    def after(self, instant: float) -> float | None:
        coming = self._coming
        if coming is None or self._came != instant:
            coming = self._coming = CronSim(self._expression, self._local(instant))
        self._came = None
        try:
            # Of an hour that exists twice the second one reads like the first: what comes of it may be past.
            while (found := next(coming).timestamp()) <= instant:
                pass
        except StopIteration:
            self._coming = None
            return None
        self._came = found
        return found

    def until(self, instant: float) -> float | None:
        try:
            found = next(CronSim(self._expression, self._local(instant + 1), reverse=True)).timestamp()
        except StopIteration:
            return None
        later = self.after(found)
        while later is not None and later <= instant:
            found, later = later, self.after(later)
        return found

    def text(self, instant: float) -> bytes:
        return _text(instant, self._zone)

    def _local(self, instant: float) -> datetime:
        return datetime.fromtimestamp(floor(instant), self._zone)


class Every:
    """Multiples of a duration since 1970: the same whoever asks, whenever it was set up."""

    def __init__(self, seconds: float, time_zone: str = "UTC") -> None:
        self._seconds = seconds
        self._zone = zone(time_zone)

    def after(self, instant: float) -> float | None:
        return self._multiple(instant, 1)

    def until(self, instant: float) -> float | None:
        return self._multiple(instant, 0)

    def text(self, instant: float) -> bytes:
        return _text(instant, self._zone)

    def _multiple(self, instant: float, more: int) -> float:
        # In whole microseconds, as instants are kept: parts of them would make one tick two.
        micros, step = floor(round(instant * 1e6, 0)), round(self._seconds * 1e6)
        return (micros // step + more) * step / 1e6


def _text(instant: float, zone: tzinfo) -> bytes:
    text = datetime.fromtimestamp(instant, zone).isoformat()
    return f'"{text.replace("+00:00", "Z") if zone is UTC else text}"'.encode()
