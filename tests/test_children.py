"""What a task may say of those it enqueues, and that what is stored holds for them as for any new task."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncproc import Processable, TaskContext
from asyncproc.clock import wall_now
from asyncproc.core.events import Lease
from asyncproc.core.task import MAX_KEY, NO_LIMITS, NewTask, TimeLimits
from asyncproc.errors import KeyRefused
from asyncproc.executor import Executor
from asyncproc.precedence import with_stored
from asyncproc.registry import Registry, from_settings
from asyncproc.rules import QueueRuleSettings, Stored, TypeRuleSettings
from tests.deployed import settings_of

STORED = Stored(
    queues={
        "mail": QueueRuleSettings.model_validate({"priority": 7, "timeout": "5s", "maxTaskRetry": 5}),
        "bare": QueueRuleSettings.model_validate({"weight": 2}),
    },
    types={
        "Note": TypeRuleSettings.model_validate({"timeout": "4s", "backOff": {"base": "3s", "cap": "1h"}}),
        "Hang": TypeRuleSettings.model_validate({"softTimeout": "1s", "timeout": "0s"}),
    },
)
CONFIGURED: dict[str, Any] = {
    "queue": {"maxTaskRetry": 1, "timeout": "9s"},
    "queues": {"mail": {"priority": 3, "softTimeout": "8s"}},
}


class Small(Processable):
    n: int = 0


def context() -> TaskContext:
    return TaskContext("id", 1, "default", "w")


@pytest.fixture
def registry(start_dir: Path) -> Registry:
    return from_settings(settings_of("", "n", **CONFIGURED), start_dir)


@pytest.mark.parametrize("type_name", ["Note", "Hang", "Work"])
@pytest.mark.parametrize("queue", [None, "mail", "bare"])
@pytest.mark.parametrize(
    "own", [{}, {"priority": 1}, {"backoff_s": 2.0, "timeout_s": 1.0}, {"timeout_s": 0.0, "soft_timeout_s": 6.0}]
)
def test_a_child_is_as_if_its_worker_knew_what_is_stored(
    registry: Registry, type_name: str, queue: str | None, own: dict[str, Any]
) -> None:
    by_the_worker = registry.options_for(type_name, queue=queue, **own)
    registry.obey(STORED)
    assert with_stored(by_the_worker, STORED) == registry.options_for(type_name, queue=queue, **own)
    assert with_stored(by_the_worker, Stored()) is by_the_worker


def children_of(registry: Registry, how: dict[str, Any], type_name: str = "Spawn") -> list[NewTask]:
    executor = Executor(registry, "w", 1024, 1024, 4096, {})
    lease: Lease = (b"\x01" * 16, 1, 1, type_name, "default", json.dumps(how).encode(), 0.0, NO_LIMITS, False)
    outcome = executor.run(lease)
    assert outcome[2] == 1, outcome[4]
    return outcome[7]


def test_options_travel_with_the_children_and_one_object_serves_many(registry: Registry) -> None:
    first, second, other = children_of(registry, {"numbers": [1, 1, 2]})
    assert first[2] is second[2]
    assert (first[2].limits, first[2].retry.base_s) == (TimeLimits(1.0, 0.5), 2.0)
    assert (first[2].concurrency_key, first[2].fairness_key, other[2].concurrency_key) == ("key 1", "ada", "key 2")
    assert first[2].origins == "cfttt"
    assert first[2].resources == "gpu0.5"
    assert first[4].run_at - wall_now() > 3_000
    assert first[4].deadline > first[4].start_by > first[4].run_at
    assert 3_000 < first[3] <= 3_600


def test_a_type_makes_keys_of_the_payload_where_the_task_has_none(registry: Registry) -> None:
    assert registry.keys_of("Keyed", b'{"customer": {"name": "ada"}}', None, None) == ("ada", "shared")
    assert registry.keys_of("Keyed", b'{"customer": {}}', "own", "") == ("own", "")
    assert registry.keys_of("Note", b"not read", None, "x") == (None, "x")
    children = children_of(registry, {"names": ["ada", "bob"]}, "SpawnKeyed")
    keys = [(child[2].concurrency_key, child[2].fairness_key) for child in children]
    assert keys == [("ada", "shared"), ("bob", "shared"), ("own", "")]


@pytest.mark.parametrize("customer", [{}, {"name": 5}, {"name": "a\0"}, {"name": "x" * 201}])
def test_a_type_that_makes_no_key_of_a_payload_says_so(registry: Registry, customer: dict[str, Any]) -> None:
    with pytest.raises(KeyRefused, match=r"concurrency_key of its type: (KeyError|ValueError): "):
        registry.keys_of("Keyed", json.dumps({"customer": customer}).encode(), None, None)


NOW = datetime.fromtimestamp(wall_now(), UTC)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"timeout": -1}, "timeout is -1: it must be between 0 and"),
        ({"soft_timeout": "5s"}, "soft_timeout is '5s'"),
        ({"back_off": float("nan")}, "back_off is nan"),
        ({"concurrency_key": "x" * (MAX_KEY + 1)}, "concurrency_key is 'xxx"),
        ({"fairness_key": "a\0"}, "fairness_key is"),
        ({"fairness_key": 5}, "fairness_key is 5"),
        ({"run_at": NOW.replace(tzinfo=None)}, "run_at is .*time zone"),
        ({"run_at": NOW + timedelta(days=999)}, "run_at is .*: it must be within the next 366 days"),
        ({"run_at": NOW + timedelta(hours=1), "delay": 5}, "run_at stands beside delay"),
        ({"start_by": NOW - timedelta(hours=1)}, "start_by is .*: it must not be before the task is ready"),
        ({"deadline": NOW + timedelta(hours=1), "delay": 7200}, "deadline is .*: it must not be before"),
        ({"deadline": 5}, "deadline is 5: it must be a datetime"),
        ({"resources": {"GPU": 1}}, "'GPU' is no resource"),
    ],
)
def test_what_no_child_can_have_is_refused_at_once(options: dict[str, Any], why: str) -> None:
    ctx = context()
    with pytest.raises(ValueError, match=why):
        ctx.enqueue(Small(), **options)
    assert ctx.children == []
