"""What travels over HTTP about pools."""

from datetime import datetime
from typing import Final

from pydantic import ConfigDict
from pydantic.config import JsonDict

from asyncproc.api.queue_bodies import Setting
from asyncproc.pool_settings import PoolRuleSettings
from asyncproc.sections import Name
from asyncproc.wire import Body

_POOL: Final[JsonDict] = {
    "queues": ["films"],
    "workers": {"min": 0, "max": 6},
    "targetWait": "5s",
    "idleAfter": "30s",
    "numGpus": 0.5,
    "memory": "2GiB",
    "labels": {"ray.io/accelerator-type": "A100"},
    "environment": {"OMP_NUM_THREADS": "1"},
}


class PoolBody(PoolRuleSettings):
    """Settings of a pool. In a PATCH a key that is null goes back to what the configuration or the code says."""

    model_config = ConfigDict(json_schema_extra={"examples": [_POOL]})


class NewPoolBody(PoolRuleSettings):
    """A pool and its settings."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "films", **_POOL}]})

    name: Name


class WorkersView(Body):
    """Workers of a pool, as they are and as they should be."""

    present: int
    """They take tasks."""
    starting: int
    leaving: int
    """They finish what they run, and take nothing more."""
    wanted: int
    reason: str
    """Why so many are wanted."""
    since: datetime | None
    """When that was decided."""


class DecisionView(Body):
    """So many workers were wanted from then on."""

    at: datetime
    workers: int
    reason: str


_VIEW: Final[JsonDict] = {
    "name": "films",
    "settings": {"workers": {"value": {"min": 0, "max": 6}, "from": "stored"}},
    "shape": None,
    "workers": {
        "present": 2,
        "starting": 4,
        "leaving": 0,
        "wanted": 6,
        "reason": "3000 tasks wait, 150 s of work for a wait of 5 s: at most 6 workers",
        "since": "2026-11-25T09:00:00Z",
    },
    "problem": None,
    "decisions": [{"at": "2026-11-25T09:00:00Z", "workers": 6, "reason": "3000 tasks wait, 150 s of work"}],
}


class PoolView(Body):
    """A pool: what holds for it, who said so, and how its workers stand."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VIEW]})

    name: str
    settings: dict[str, Setting]
    shape: dict[str, float | str] | None
    """What its tasks ask for, where it is a pool that the system made for them; null otherwise."""
    workers: WorkersView
    problem: str | None
    """Why workers that are wanted do not come: no node has what they need, or they fail at their start."""
    decisions: list[DecisionView]
    """The last ones that changed the number of workers, newest first."""


class PoolList(Body):
    """All pools, those of shapes among them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pools": [_VIEW]}]})

    pools: list[PoolView]


PARSED: Final = (PoolBody, NewPoolBody)
"""Bodies that are parsed by this API and not by its framework."""
