"""Tasks whose code is a method of somebody else's object: the payload is what the method is called with."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Self

from pydantic import ConfigDict, model_validator
from pydantic_core import PydanticSerializationError, to_json

from asyncproc.processable import Processable
from asyncproc.task_context import TaskContext
from asyncproc.verdicts import Fail

POSITIONAL: Final = "*args"
"""The key of positional arguments. No parameter can be called so."""
_current: ContextVar[TaskContext | None] = ContextVar("current_task", default=None)


def current_task() -> TaskContext | None:
    """The task that the calling handler runs for: its id and attempt, `progress`, `log`, `checkpoint`, `cancelled`.
    None where no task runs."""
    return _current.get()


def payload_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Raises `TypeError` for what is no JSON value."""
    if POSITIONAL in kwargs:
        raise TypeError(f"{POSITIONAL} is no keyword argument")
    try:
        return to_json({**kwargs, POSITIONAL: list(args)} if args else dict(kwargs))
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise TypeError(f"arguments must be JSON values: {error}") from error


class HandlerCall(Processable):
    """Keyword arguments, each by its name, and others as a list under `*args`."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _has_a_list(self) -> Self:
        if not isinstance(self._given().get(POSITIONAL, []), list):
            raise ValueError(f"{POSITIONAL} must be a list of positional arguments")
        return self

    def _given(self) -> dict[str, Any]:
        return self.model_extra or {}

    def bound(self, signature: inspect.Signature) -> inspect.BoundArguments:
        """Raises `Fail`: to try it again would not help."""
        given = dict(self._given())
        try:
            return signature.bind(*given.pop(POSITIONAL, ()), **given)
        except TypeError as error:
            raise Fail(f"the handler cannot be called with these arguments: {error}") from error


def handler_type(name: str, handler: Callable[..., Any]) -> type[Processable]:
    """A task type of this name whose work is to call the handler, which may be `async def`."""
    signature = inspect.signature(handler)

    class Call(HandlerCall, name=name):
        def process(self, ctx: TaskContext) -> Any:
            bound = self.bound(signature)
            token = _current.set(ctx)
            try:
                return handler(*bound.args, **bound.kwargs)
            finally:
                _current.reset(token)

    class AsyncCall(HandlerCall, name=name):
        async def process(self, ctx: TaskContext) -> Any:
            bound = self.bound(signature)
            token = _current.set(ctx)
            try:
                return await handler(*bound.args, **bound.kwargs)
            finally:
                _current.reset(token)

    return AsyncCall if inspect.iscoroutinefunction(handler) else Call
