from pathlib import Path

import pytest

from asyncproc.actors.answers import Cause, Refusal
from asyncproc.actors.deployment import Deployment
from asyncproc.config import Settings
from asyncproc.core.retry import constant
from asyncproc.core.task import NO_TERMS, NewTask, Options
from asyncproc.errors import AsyncprocError, ConfigError, Overloaded, StorageUnavailable, TasksRejected
from tests.deployed import settings_of

DATABASE = "postgresql://somewhere/one"


def fingerprint(settings: Settings, start_dir: Path) -> str:
    return Deployment.of(settings, start_dir).fingerprint


def task(number: int) -> NewTask:
    return (number.to_bytes(16), b"{}", Options("Note", "default", 0, constant(1, 0), ""), 0.0, NO_TERMS)


def test_a_deployment_needs_a_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"storage\.url is not set"):
        Deployment.of(Settings(), tmp_path)


def test_the_same_configuration_and_code_have_the_same_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(settings_of(DATABASE, "a", tasks=[]), tmp_path) == fingerprint(
        settings_of(DATABASE, "a", tasks=[]), tmp_path
    )


@pytest.mark.parametrize(
    "changed",
    [
        settings_of(DATABASE, "a", tasks=[], queue={"maxTaskRetry": 4}),
        settings_of(DATABASE, "a", tasks=["json"]),
        # Two URLs look alike in print, where they are secrets.
        settings_of("postgresql://somewhere/two", "a", tasks=[]),
    ],
)
def test_another_configuration_has_another_fingerprint(tmp_path: Path, changed: Settings) -> None:
    assert fingerprint(changed, tmp_path) != fingerprint(settings_of(DATABASE, "a", tasks=[]), tmp_path)


@pytest.mark.parametrize("layout", ["plain_{}.py", "package_{}/inner.py"])
def test_other_code_of_a_task_module_has_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / layout.format("fingerprinted")
    source.parent.mkdir(exist_ok=True)
    if source.parent != tmp_path:
        (source.parent / "__init__.py").touch()
    source.write_text("A = 1\n")
    settings = settings_of(DATABASE, "a", tasks=[source.relative_to(tmp_path).parts[0].removesuffix(".py")])
    before = fingerprint(settings, tmp_path)

    source.write_text("A = 2\n")

    assert fingerprint(settings, tmp_path) != before


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(Cause.STORAGE, "gone"), StorageUnavailable),
        (Refusal(Cause.OVERLOAD, "full", waiting=7), Overloaded),
        (Refusal(Cause.TASK, "bad"), TasksRejected),
    ],
)
def test_a_refusal_becomes_the_error_of_its_cause(refusal: Refusal, kind: type[AsyncprocError]) -> None:
    assert type(refusal.error()) is kind


def test_a_refusal_that_names_tasks_concerns_whoever_sent_one_of_them() -> None:
    named = Refusal(Cause.TASK, "bad", rejected=((task(1)[0], "bad"),))

    assert named.concerns([task(0), task(1)])
    assert not named.concerns([task(0), task(2)])
    assert Refusal(Cause.STORAGE, "gone").concerns([task(0)])
