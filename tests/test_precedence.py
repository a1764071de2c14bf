"""Which value holds: the task's own, then what is stored, the configuration, the code; a type before a queue."""

from typing import Any

import pytest

from asyncproc.config import Settings
from asyncproc.core.origin import Origin
from asyncproc.core.rank import STRICT_AGING_S
from asyncproc.core.states import State
from asyncproc.core.steering import QueueRules, RateLimit, TypeRules
from asyncproc.precedence import (
    TaskValues,
    Won,
    kept_by_queue,
    queue_settings,
    rules_of,
    shown,
    task_defaults,
    type_settings,
)
from asyncproc.rules import QueueRuleSettings, RateLimitSettings, Stored, TypeRuleSettings, from_document, to_document
from asyncproc.sections import KEPT_FOR_EVER_S

GENERAL: dict[str, Any] = {"queue": {"maxTaskRetry": 9, "timeout": "9s", "backOff": {"base": "9s"}}}
CONFIGURED: dict[str, Any] = {
    "queues": {"mail": {"timeout": "8s", "priority": 8}},
    "types": {"Send": {"timeout": "7s"}},
}
STORED_QUEUE = {"mail": QueueRuleSettings.model_validate({"timeout": "5s", "maxTaskRetry": 5})}
STORED_TYPE = {"Send": TypeRuleSettings.model_validate({"timeout": "4s"})}


def settings_of(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


@pytest.mark.parametrize(
    ("sections", "own", "stored", "timeout"),
    [
        ({}, TaskValues(), Stored(), Won(0.0, Origin.CODE)),
        (GENERAL, TaskValues(), Stored(), Won(9.0, Origin.CONFIG)),
        (GENERAL, TaskValues(timeout_s=8.5), Stored(), Won(8.5, Origin.CODE)),
        ({"queues": CONFIGURED["queues"]}, TaskValues(timeout_s=8.5), Stored(), Won(8.0, Origin.CONFIG)),
        (CONFIGURED, TaskValues(timeout_s=8.5), Stored(), Won(7.0, Origin.CONFIG)),
        (CONFIGURED, TaskValues(timeout_s=8.5), Stored(queues=STORED_QUEUE), Won(5.0, Origin.STORED)),
        (CONFIGURED, TaskValues(), Stored(queues=STORED_QUEUE, types=STORED_TYPE), Won(4.0, Origin.STORED)),
    ],
)
def test_the_one_with_the_most_force_wins(
    sections: dict[str, Any], own: TaskValues, stored: Stored, timeout: Won
) -> None:
    assert task_defaults(settings_of(**sections), stored, "Send", "mail", own).timeout_s == timeout


def test_each_value_is_looked_for_by_itself() -> None:
    defaults = task_defaults(settings_of(**GENERAL, **CONFIGURED), Stored(queues=STORED_QUEUE), "Send", "mail")

    assert (defaults.priority, defaults.max_task_retry) == (Won(8, Origin.CONFIG), Won(5, Origin.STORED))
    assert (defaults.retry.max_attempts, defaults.retry.base_s) == (6, 9.0)
    assert defaults.origins == "fsfsc"


def test_a_stored_off_wins_over_a_configured_limit() -> None:
    settings = settings_of(queues={"mail": {"maxRunning": 3}})
    stored = Stored(queues={"mail": QueueRuleSettings.model_validate({"maxRunning": "off"})})

    assert rules_of(settings, Stored()).queue("mail").max_running == 3
    assert rules_of(settings, stored).queue("mail").max_running is None
    assert shown(queue_settings(settings, stored, "mail"), QueueRuleSettings)["maxRunning"] == {
        "value": "off",
        "from": "stored",
    }


def test_the_core_goes_by_all_that_is_said() -> None:
    settings = settings_of(
        queue={"aging": "off"},
        queues={"mail": {"weight": 2, "pool": "relay"}},
        types={"Send": {"maxRunning": 4, "rateLimits": {"smtp": 2}}},
        rateLimits={"smtp": "60/min", "bulk": {"rate": "600/min", "burst": 50}},
        pools={"relay": {"queues": ["bounces"]}},
    )
    stored = Stored(
        queues={"mail": QueueRuleSettings.model_validate({"aging": "10s", "fairnessWeights": {"ada": 2}})},
        rates={"smtp": RateLimitSettings.model_validate({"rate": "5/s"})},
    )
    rules = rules_of(settings, stored)

    assert rules.queue("mail") == QueueRules(2, 10.0, "relay", None, 1, {"ada": 2.0})
    assert rules.queue("bounces").pool is None, "the configuration of pools says it"
    assert rules.default == QueueRules(aging_s=STRICT_AGING_S, max_running_per_key=1)
    assert rules.types == {"Send": TypeRules(4, (("smtp", 2.0),))}
    assert rules.rates == {"smtp": RateLimit(5.0, 5.0), "bulk": RateLimit(10.0, 50.0)}


def test_a_queue_shows_its_pool_and_what_the_configuration_says_of_all_queues() -> None:
    settings = settings_of(**GENERAL, pools={"relay": {"queues": ["mail"]}})
    found = shown(queue_settings(settings, Stored(), "mail"), QueueRuleSettings)

    assert found["pool"] == {"value": "relay", "from": "config"}
    assert found["maxTaskRetry"] == {"value": 9, "from": "config"}
    assert found["aging"] == {"value": "1m", "from": "code"}


def test_how_long_tasks_are_kept_is_said_by_state_and_by_queue() -> None:
    settings = settings_of(retention={"failed": "9d"}, queues={"mail": {"retentionSucceeded": "1h"}})
    stored = Stored(queues={"mail": QueueRuleSettings.model_validate({"retentionCancelled": "off"})})
    found = shown(queue_settings(settings, stored, "mail"), QueueRuleSettings)

    assert found["retentionSucceeded"] == {"value": "1h", "from": "config"}
    assert found["retentionFailed"] == {"value": "216h", "from": "config"}
    assert found["retentionCancelled"] == {"value": "off", "from": "stored"}
    assert shown(queue_settings(settings, stored, "other"), QueueRuleSettings)["retentionCancelled"] == {
        "value": "168h",
        "from": "code",
    }
    assert kept_by_queue(settings, stored) == {"mail": {State.SUCCEEDED: 3600.0, State.CANCELLED: KEPT_FOR_EVER_S}}
    assert {f"retention_{state}": kept for state, kept in Settings().retention.kept_s().items()}.items() <= {
        name: won.value for name, won in queue_settings(Settings(), Stored(), "mail").items()
    }.items()


def test_a_type_shows_what_its_code_says() -> None:
    own = TaskValues(max_task_retry=0, timeout_s=30.0)
    found = shown(type_settings(settings_of(), Stored(), "Send", "mail", own), TypeRuleSettings)

    assert found["maxTaskRetry"] == {"value": 0, "from": "code"}
    assert found["timeout"] == {"value": "30s", "from": "code"}
    assert found["backOff"]["value"] == {"base": "1s", "factor": 2.0, "cap": "1h", "jitter": 0.1}


def test_settings_come_back_from_the_table_as_they_went_in() -> None:
    given = {"weight": 2, "aging": "off", "timeout": "1m30s", "maxRunning": "off", "backOff": {"base": "250ms"}}
    rules = QueueRuleSettings.model_validate(given)

    assert from_document(QueueRuleSettings, "queue mail", to_document(rules).decode()) == rules


@pytest.mark.parametrize(
    ("rate", "per_s"),
    [("100/s", 100.0), ("60/min", 1.0), ("60 / minute", 1.0), ("1.5/h", 1.5 / 3600), ("864/day", 0.01)],
)
def test_a_rate_is_so_many_in_a_unit_of_time(rate: str, per_s: float) -> None:
    assert RateLimitSettings(rate=rate).per_s == pytest.approx(per_s)
