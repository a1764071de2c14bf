"""Which pools there are, and what holds for each where several say it."""

from typing import Any

import pytest

from asyncproc.config import Settings
from asyncproc.core.origin import Origin
from asyncproc.pool_precedence import of_shape, pool_settings, pools_of
from asyncproc.pool_settings import PoolRuleSettings, PoolSettings
from asyncproc.precedence import Won, pool_of, queue_settings, rules_of
from asyncproc.rules import Stored

SETTINGS = Settings.model_validate(
    {
        "queue": {"workerPoolSize": 3, "recycleAfter": 9},
        "pools": {"films": {"queues": ["films", "trailers"], "workers": {"max": 6}, "labels": {"zone": "a"}}},
        "shapes": {"maxWorkers": 4, "idleAfter": "7s"},
    }
)


def stored(**pools: Any) -> Stored:
    return Stored(pools={name: PoolRuleSettings.model_validate(pool) for name, pool in pools.items()})


def test_what_is_stored_comes_before_the_configuration_and_that_before_the_code() -> None:
    overlay = stored(films={"workers": 2, "memory": "2GiB"}, default={"workers": 1}, mail={"queues": ["mail"]})
    pools = pools_of(SETTINGS, overlay)
    assert {name: (pool.least, pool.most) for name, pool in pools.items()} == {
        "default": (1, 1), "films": (2, 2), "mail": (1, 1),
    }  # fmt: skip
    assert (pools["films"].memory, pools["films"].queues, pools["default"].recycle_after) == (
        2 * 1024**3, ("films", "trailers"), 9,
    )  # fmt: skip
    found = pool_settings(SETTINGS, overlay, "films")
    assert found["memory"] == Won(2 * 1024**3, Origin.STORED)
    assert found["labels"] == Won({"zone": "a"}, Origin.CONFIG)
    assert found["concurrency"] == Won(1, Origin.CODE)
    assert pools_of(SETTINGS, Stored())["films"].bounds == PoolSettings(least=0, most=6).bounds


def test_a_queue_goes_where_the_last_word_on_its_pool_sends_it() -> None:
    overlay = stored(films={"queues": ["films"]}, late={"queues": ["late"]})
    assert pool_of(SETTINGS, overlay) == {"films": "films", "trailers": "default", "late": "late"}
    assert rules_of(SETTINGS, overlay).pool_of["trailers"] == "default"
    assert queue_settings(SETTINGS, overlay, "late")["pool"] == Won("late", Origin.STORED)
    assert queue_settings(SETTINGS, overlay, "films")["pool"] == Won("films", Origin.CONFIG)
    assert queue_settings(SETTINGS, Stored(), "mail")["pool"] == Won("default", Origin.CODE)


def test_the_pool_of_a_shape_is_like_the_one_that_it_belongs_to() -> None:
    pools = pools_of(SETTINGS, Stored())
    made = of_shape(SETTINGS, pools, "films~gpu0.5-mem2GiB,license=1")
    assert made is not None
    assert made.needs() == {"GPU": 0.5, "memory": 2.0 * 1024**3, "license": 1.0}
    assert (made.least, made.most, made.idle_after_s, made.labels, made.concurrency) == (0, 4, 7.0, {"zone": "a"}, 1)
    assert of_shape(SETTINGS, pools, "gone~gpu1") is None
    assert of_shape(SETTINGS, pools, "films~nothing") is None


@pytest.mark.parametrize(
    ("change", "is_another"),
    [({"most": 9, "least": 2}, False), ({"queues": ("x",)}, False), ({"memory": 1}, True), ({"concurrency": 2}, True),
     ({"environment": {"A": "b"}}, True), ({"runtime_env": {"pip": ["x"]}}, True)],
)  # fmt: skip
def test_workers_are_of_another_kind_where_what_they_are_made_of_changed(change: Any, is_another: bool) -> None:
    assert (PoolSettings(**change).fingerprint != PoolSettings().fingerprint) is is_another
