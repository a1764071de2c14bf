import re
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from pydantic import ValidationError

from asyncproc.config import Settings
from asyncproc.core.retry import RetryPolicy, constant, exponential
from asyncproc.errors import KeyRefused
from asyncproc.plans import ScheduleSettings
from asyncproc.registry import Registry, RegistryError, UnknownTaskType, from_settings
from asyncproc.rules import QueueRuleSettings, Stored

_numbers = count()


class Modules:
    """Task modules in a directory to start from, under names that no other test has imported."""

    def __init__(self, start_dir: Path) -> None:
        self._start_dir = start_dir
        self.names: list[str] = []

    def write(self, text: str) -> str:
        name = f"tasks_of_a_test_{next(_numbers)}"
        (self._start_dir / f"{name}.py").write_text(f"from asyncproc import Processable, TaskContext, task\n{text}")
        self.names.append(name)
        return name

    def load(self, **sections: object) -> Registry:
        return from_settings(Settings.model_validate({"tasks": self.names, **sections}), self._start_dir)


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[Modules]:
    modules = Modules(tmp_path)
    yield modules
    sys.path.remove(str(tmp_path)) if str(tmp_path) in sys.path else None
    for name in modules.names:
        sys.modules.pop(name, None)


def test_the_built_in_types_are_always_known() -> None:
    assert from_settings(Settings()).names() == ["CPUProcess", "GenerateReport", "SendEmail"]


def test_classes_and_functions_of_the_named_modules_are_known(modules: Modules) -> None:
    modules.write("class Resize(Processable):\n    n: int\n@task\ndef shrink(n: int) -> None: ...\n")

    assert {"Resize", "shrink"} <= set(modules.load().names())


def test_a_type_that_is_imported_into_another_module_is_the_same_type(modules: Modules) -> None:
    first = modules.write("class Resize(Processable):\n    n: int\n")
    modules.write(f"from {first} import Resize\n")

    assert "Resize" in modules.load().names()


def test_two_types_of_one_name_are_refused_with_where_they_are(modules: Modules) -> None:
    first = modules.write("class Resize(Processable): ...\n")
    second = modules.write("@task(name='Resize')\ndef other() -> None: ...\n")

    with pytest.raises(RegistryError, match=f"two task types are called Resize: in {first} and in {second}"):
        modules.load()


@pytest.mark.parametrize(
    ("text", "cause"),
    [("1 / 0", "ZeroDivisionError"), ("import no_such_module", "ModuleNotFoundError"), ("def", "SyntaxError")],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_cause(modules: Modules, text: str, cause: str) -> None:
    name = modules.write(text)

    with pytest.raises(RegistryError, match=f"task module '{name}' cannot be imported: {cause}"):
        modules.load()


def test_a_pool_that_does_not_serve_the_queue_is_refused(modules: Modules) -> None:
    modules.write("class Film(Processable, pool='heavy'): ...\n")

    with pytest.raises(RegistryError, match=r"name the queue under pools\.heavy\.queues"):
        modules.load()
    assert modules.load(pools={"heavy": {"queues": ["heavy"]}}).get("Film").queue == "heavy"


def test_an_unknown_type_is_said_with_those_that_are_known() -> None:
    with pytest.raises(UnknownTaskType, match="unknown task type 'Nothing': known are CPUProcess, GenerateReport"):
        from_settings(Settings()).get("Nothing")


def test_a_payload_is_kept_as_it_was_sent_once_its_model_takes_it() -> None:
    registry = from_settings(Settings())

    assert registry.validate("CPUProcess", {"ProcessType": "x", "é": [1, None]}) == (
        '{"ProcessType":"x","é":[1,null]}'.encode()
    )
    with pytest.raises(ValidationError):
        registry.validate("CPUProcess", {})


@pytest.mark.parametrize(
    ("option", "policy"),
    [
        ("", exponential(4)),
        ("retry=0", exponential(1)),
        ("retry=7", exponential(8)),
        ("retry=RetryPolicy(2, 3.0, 1.0, 9.0, 0.0)", RetryPolicy(2, 3.0, 1.0, 9.0, 0.0)),
    ],
)
def test_a_type_says_how_often_it_is_retried_or_leaves_it_to_the_configuration(
    modules: Modules, option: str, policy: RetryPolicy
) -> None:
    modules.write(f"from asyncproc.core.retry import RetryPolicy\n@task({option})\ndef retried() -> None: ...\n")

    assert modules.load().options_for("retried").retry == policy


def test_a_retry_that_is_neither_number_nor_policy_is_refused(modules: Modules) -> None:
    modules.write("@task(retry='often')\ndef retried() -> None: ...\n")

    with pytest.raises(RegistryError, match="retry must be a number of retries or a RetryPolicy"):
        modules.load()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("queue='a b'", "queue is 'a b'"),
        ("queue='a\\x00'", "queue is"),
        ("priority=101", "priority is 101"),
        ("priority=0.5", "priority is 0.5"),
        ("retry=100", "attempts are 1 to 100"),
        ("retry=-1", "attempts are 1 to 100"),
        ("retry=exponential(3, cap_s=1e300)", "waits 0 to 86400 seconds"),
        ("retry=exponential(3, jitter=float('nan'))", "jitter 0 to 1"),
        ("name='a\\nb'", "a name is 200 characters at most"),
    ],
)
def test_options_that_no_row_could_hold_are_refused_at_the_start(modules: Modules, options: str, problem: str) -> None:
    modules.write(f"from asyncproc.core.retry import exponential\n@task({options})\ndef odd() -> None: ...\n")

    with pytest.raises(RegistryError, match=re.escape(problem)):
        modules.load()


def test_a_tasks_own_options_come_before_those_of_its_type(modules: Modules) -> None:
    modules.write("@task(queue='letters', priority=5, retry=1)\ndef send() -> None: ...\n")
    registry = modules.load()

    plain = registry.options_for("send")
    own = registry.options_for("send", queue="other", priority=-3, backoff_s=5.0, created_by="me")

    assert (plain.type, plain.queue, plain.priority, plain.retry, plain.created_by) == (
        "send", "letters", 5, exponential(2), "",
    )  # fmt: skip
    assert (own.queue, own.priority, own.retry, own.created_by) == ("other", -3, constant(2, 5.0), "me")
    assert (plain.origins, own.origins) == ("ccccc", "tctcc")


def test_what_is_stored_holds_as_soon_as_it_is_known(modules: Modules) -> None:
    modules.write("@task(queue='letters', priority=5, timeout=3)\ndef send() -> None: ...\n")
    registry = modules.load()
    assert registry.options_for("send").limits.timeout_s == 3

    registry.obey(Stored(queues={"letters": QueueRuleSettings.model_validate({"timeout": "8s", "maxTaskRetry": 0})}))
    found = registry.options_for("send")
    assert (found.priority, found.limits.timeout_s, found.retry.max_attempts, found.origins) == (5, 8, 1, "cscsc")
    assert registry.options_for("send", queue="other", timeout_s=0.0).origins == "ccctc"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"taskType": "Nothing"}, "schedules.s.taskType: unknown task type 'Nothing'"),
        ({"payload": {"processType": ""}}, "schedules.s.payload.processType: String should have at least 1 character"),
    ],
)
def test_a_configured_schedule_has_tasks_that_would_be_accepted(changes: dict[str, object], problem: str) -> None:
    schedule = {"taskType": "CPUProcess", "every": "1h", "instantField": "processType"}
    registry = from_settings(Settings.model_validate({"schedules": {"s": schedule}}))
    assert registry.scheduled(
        "s", Settings.model_validate({"schedules": {"s": schedule}}).schedules["s"]
    ).created_by == ("schedule s")
    with pytest.raises(RegistryError, match=problem):
        from_settings(Settings.model_validate({"schedules": {"s": {**schedule, "instantField": None, **changes}}}))


def test_a_type_and_a_task_say_what_its_worker_is_to_have(modules: Modules) -> None:
    modules.write(
        "class Caption(Processable, resources={'num_gpus': 0.5, 'memory': '2GiB'}): ...\n"
        "@task(resources={'license': 1})\ndef render() -> None: ...\n"
    )
    registry = modules.load()
    assert registry.options_for("Caption").resources == "gpu0.5-mem2GiB"
    assert registry.options_for("render").resources == ",license=1"
    assert registry.options_for("Caption", resources="").resources == ""

    modules.write("class Odd(Processable, resources={'num_gpus': 1.5}): ...\n")
    with pytest.raises(RegistryError, match=r"task type Odd: num_gpus is 1\.5: above 1 it must be a whole number"):
        modules.load()


def test_a_type_makes_the_keys_of_the_tasks_of_a_schedule(modules: Modules) -> None:
    modules.write(
        "@task(concurrency_key=lambda p: p.at[:10] or None, fairness_key='all')\n"
        "def report(at: str = '', who: str = ''): ...\n"
        "@task(concurrency_key=lambda p: p.who)\ndef greet(who: str, at: str = ''): ...\n"
    )
    hourly = {"every": "1h", "taskType": "greet", "payload": {"who": "ada"}, "instantField": "at"}
    registry = modules.load(schedules={"hourly": hourly})

    def keys(**said: object) -> tuple[str, str]:
        schedule = ScheduleSettings.model_validate({**hourly, **said})
        made = registry.scheduled("hourly", schedule, registry.schedule_keys(schedule))
        return made.concurrency_key, made.fairness_key

    assert keys() == ("ada", "")
    assert keys(concurrencyKey="own") == ("own", "")
    assert keys(concurrencyKey="") == ("", "")
    assert keys(taskType="report", payload={"at": "2026"}, instantField=None) == ("2026", "all")
    with pytest.raises(KeyRefused, match="concurrency_key of its type: it would be another one with each tick"):
        keys(taskType="report", payload={})
    # Who has no code of theirs, as whoever makes tasks of SQL, knows the keys that all tasks of a type have.
    declared = Registry(registry.declared(), Settings())
    assert declared.options_for("report").fairness_key == "all"
    assert declared.options_for("report", fairness_key="").fairness_key == ""

    with pytest.raises(RegistryError, match=r"schedules\.daily: concurrency_key of its type: it would be another one"):
        modules.load(schedules={"daily": {"every": "24h", "taskType": "report", "instantField": "at"}})
