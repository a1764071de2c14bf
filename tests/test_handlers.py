"""Types that pools bring along, and what their handlers are called with."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from asyncproc import Fail
from asyncproc.config import Settings
from asyncproc.handlers import HandlerCall, current_task, handler_type, payload_of
from asyncproc.pool_settings import PoolRuleSettings
from asyncproc.processable import Processable
from asyncproc.registry import Registry, TaskType, UnknownTaskType
from asyncproc.rules import Stored
from asyncproc.task_context import TaskContext

CTX = TaskContext("id", 1, "queue", "worker")


def called(handler: Any, *args: Any, **kwargs: Any) -> Any:
    return handler_type("handler", handler).model_validate_json(payload_of(args, kwargs)).process(CTX)


def test_a_handler_is_called_with_what_was_given_by_name_and_by_place() -> None:
    def handler(first: int, *more: int, model_config: str = "", process: str = "") -> list[object]:
        return [first, *more, model_config, process]

    assert called(handler, 1, 2, 3, model_config="a", process="b") == [1, 2, 3, "a", "b"]
    assert called(lambda **named: named, Lower=1, UPPER=2) == {"Lower": 1, "UPPER": 2}


def test_a_handler_sees_its_task_and_nobody_does_outside_of_it() -> None:
    async def handler() -> TaskContext | None:
        return current_task()

    assert called(current_task) is CTX
    assert asyncio.run(called(handler)) is CTX
    assert current_task() is None


def test_arguments_that_do_not_fit_fail_for_good() -> None:
    with pytest.raises(Fail, match="cannot be called with these arguments: missing a required argument: 'first'"):
        called(lambda first: first, second=1)


@pytest.mark.parametrize(("args", "kwargs"), [([object()], {}), ([], {"a": object()}), ([], {"*args": [1]})])
def test_arguments_that_are_no_json_are_refused_before_they_are_sent(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match=r"JSON values|no keyword argument"):
        payload_of(args, kwargs)


def test_the_types_of_pools_are_known_for_as_long_as_these_are_stored() -> None:
    registry = Registry({"own": TaskType(Processable, "default")}, Settings())
    pool = PoolRuleSettings.model_validate(
        {"queues": ["films", "more"], "workers": 0, "handlers": {"cut": {"maxTaskRetry": 5}, "own": {}, "join": {}}}
    )

    registry.obey(Stored(1, pools={"films": pool}))

    assert registry.names() == ["cut", "join", "own"]
    assert registry.get("cut") == TaskType(HandlerCall, "films", registry.get("cut").own)
    assert registry.get("own").queue == "default", "what the code says comes first"
    assert registry.options_for("cut").retry.max_attempts == 6
    assert registry.options_for("join").retry == registry.options_for("own").retry
    assert registry.validate("cut", {"film": 1, "*args": [2]}) == b'{"film":1,"*args":[2]}'
    with pytest.raises(ValidationError, match="must be a list of positional arguments"):
        registry.validate("cut", {"*args": 2})
    registry.obey(Stored(2))
    with pytest.raises(UnknownTaskType, match="known are own"):
        registry.get("cut")
