"""Runs one attempt: payload to model, model to result, and whatever goes wrong to bounded text."""

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json

from asyncproc import failpoints
from asyncproc.children import ChildOptions
from asyncproc.clock import TaskIds, id_text, monotonic, spread
from asyncproc.core.events import FAILED, FAILED_FOR_GOOD, KILLED, RETRY_LATER, SNOOZED, SUCCEEDED, Lease, Outcome
from asyncproc.core.task import NewTask, Options, TaskId
from asyncproc.notes import Notebook, NoteLimits
from asyncproc.preparation import SETUP_S, Preparation
from asyncproc.processable import Processable, is_async, keys_of
from asyncproc.registry import Registry, UnknownTaskType
from asyncproc.task_context import TaskContext
from asyncproc.verdicts import Fail, Retry, Snooze

Extend: TypeAlias = Callable[[float], None]

MAX_MESSAGE: Final = 1_000
MAX_TRACEBACK: Final = 16 * 1024


class ResultRefused(Exception):
    """The task returned something that cannot be kept."""


class ChildRefused(Exception):
    """The task enqueued something that cannot be kept."""


class BatchRefused(Exception):
    """What `process_batch` returned is not a result for each task."""


Call: TypeAlias = list[tuple[Lease, Processable, TaskContext]]
"""What one call of `process_batch` takes."""


class Executor:
    """One per worker. Never raises for anything that a task does."""

    def __init__(
        self,
        registry: Registry,
        worker: str,
        max_result_bytes: int,
        max_task_bytes: int,
        max_children_bytes: int,
        services: Mapping[type, object],
        note_limits: NoteLimits | None = None,
        setup_s: float = SETUP_S,
    ) -> None:
        self._registry = registry
        self._worker = worker
        self._max_result_bytes = max_result_bytes
        self._max_task_bytes = max_task_bytes
        self._max_children_bytes = max_children_bytes
        self._services = services
        self._ids = TaskIds()
        self.stops: set[str] = set()
        """Ids of running tasks that were asked to end."""
        self.notebook = Notebook(note_limits or NoteLimits())
        self._models: dict[str, type[Processable]] = {name: registry.get(name).cls for name in registry.names()}
        self.preparation = Preparation(self._models, setup_s)
        self.batching = registry.batching()
        self._async = {name for name, cls in self._models.items() if is_async(cls)}

    def is_async(self, type_name: str) -> bool:
        return type_name in self._async

    def run(self, lease: Lease, extend: Extend | None = None) -> Outcome:
        """Run a sync task to its end, in the calling thread. `extend` puts off its time limits, where it has any."""
        started = monotonic()
        try:
            model, ctx = self._prepare(lease, extend)
            if failpoints.armed:
                failpoints.hit("worker.before_effect")
            result = model.process(ctx)
            if failpoints.armed:
                failpoints.hit("worker.after_effect")
            return self._succeeded(lease, ctx, result, started)
        except BaseException as error:
            # A task may raise anything, SystemExit and KeyboardInterrupt included: it fails, its worker does not.
            return failed(lease, error, monotonic() - started)

    async def run_async(self, lease: Lease, extend: Extend | None = None) -> Outcome:
        """Run an `async def` task on the calling loop."""
        started = monotonic()
        try:
            model, ctx = self._prepare(lease, extend)
            if failpoints.armed:
                failpoints.hit("worker.before_effect")
            result = await model.process(ctx)
            if failpoints.armed:
                failpoints.hit("worker.after_effect")
            return self._succeeded(lease, ctx, result, started)
        except BaseException as error:
            return failed(lease, error, monotonic() - started)

    def run_batch(self, leases: Sequence[Lease], extend: Extend | None = None) -> list[Outcome]:
        """Run tasks of one type in one call, to its end; an outcome for each."""
        started = monotonic()
        call, ended = self._prepare_all(leases, extend)
        if not call:
            return ended
        try:
            if failpoints.armed:
                failpoints.hit("worker.before_effect")
            results = type(call[0][1]).process_batch([model for _, model, _ in call], [ctx for _, _, ctx in call])
            if failpoints.armed:
                failpoints.hit("worker.after_effect")
            return [*ended, *self._each(call, results, started)]
        except BaseException as error:
            return [*ended, *fail_all([lease for lease, _, _ in call], error, monotonic() - started)]

    async def run_batch_async(self, leases: Sequence[Lease], extend: Extend | None = None) -> list[Outcome]:
        started = monotonic()
        call, ended = self._prepare_all(leases, extend)
        if not call:
            return ended
        try:
            if failpoints.armed:
                failpoints.hit("worker.before_effect")
            results = await type(call[0][1]).process_batch([model for _, model, _ in call], [ctx for _, _, ctx in call])
            if failpoints.armed:
                failpoints.hit("worker.after_effect")
            return [*ended, *self._each(call, results, started)]
        except BaseException as error:
            return [*ended, *fail_all([lease for lease, _, _ in call], error, monotonic() - started)]

    def _prepare_all(self, leases: Sequence[Lease], extend: Extend | None) -> tuple[Call, list[Outcome]]:
        """What can be called with, and how the others ended."""
        call: Call = []
        ended: list[Outcome] = []
        for lease in leases:
            try:
                call.append((lease, *self._prepare(lease, extend)))
            except Exception as error:
                # A model's validators may raise anything: it is the end of this one, and the others go on.
                ended.append(failed(lease, error, 0.0))
        return call, ended

    def _each(self, call: Call, results: Iterable[object], started: float) -> list[Outcome]:
        if isinstance(results, str | bytes | Mapping) or not isinstance(results, Iterable):
            raise BatchRefused(f"process_batch returned a {type(results).__name__}, not a list of results")
        found = list(results)
        if len(found) != len(call):
            raise BatchRefused(f"process_batch returned {len(found)} results for {len(call)} tasks")
        # Its part of the call: so many of them have room in a time, for whoever reckons with it.
        seconds = (monotonic() - started) / len(call)
        outcomes: list[Outcome] = []
        for (lease, _, ctx), result in zip(call, found, strict=True):
            try:
                if isinstance(result, BaseException):
                    raise result
                outcome = self._succeeded(lease, ctx, result, started)
                outcomes.append((*outcome[:5], seconds, *outcome[6:]))
            except BaseException as error:
                outcomes.append(failed(lease, error, seconds))
        return outcomes

    def _prepare(self, lease: Lease, extend: Extend | None) -> tuple[Processable, TaskContext]:
        task_id, _, attempt, type_name, queue, payload, *_ = lease
        cls = self._models.get(type_name)
        if cls is None:
            raise UnknownTaskType(type_name, tuple(self._models))
        ctx = TaskContext(
            id_text(task_id), attempt, queue, self._worker, self._services, self._make_id, self.stops, lease,
            self.notebook, _extend=extend,
        )  # fmt: skip
        return cls.model_validate_json(payload), ctx

    def _make_id(self) -> str:
        return id_text(self._ids.make())

    def _succeeded(self, lease: Lease, ctx: TaskContext, result: object, started: float) -> Outcome:
        body = b"null" if result is None else self._encode(result)
        children = self._children(ctx) if ctx.children else []
        return (lease[0], lease[1], SUCCEEDED, body, "", monotonic() - started, 0.0, children)

    def _encode(self, result: object) -> bytes:
        if inspect.isgenerator(result) or inspect.iscoroutine(result):
            raise ResultRefused(f"a {type(result).__name__} is not a JSON value")
        try:
            body = to_json(result, inf_nan_mode="strings")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise ResultRefused(f"the result is not a JSON value: {error}") from error
        if len(body) > self._max_result_bytes:
            raise ResultRefused(f"the result is {len(body)} bytes: at most {self._max_result_bytes} are kept")
        return body

    def _children(self, ctx: TaskContext) -> list[NewTask]:
        children: list[NewTask] = []
        # One object serves many children, here and on the wire.
        shared: dict[tuple[str, ChildOptions], Options] = {}
        size = 0
        for child in ctx.children:
            name = type(child.model).task_options.name
            payload = child.model.model_dump_json(by_alias=True).encode()
            size += len(payload)
            if len(payload) > self._max_task_bytes:
                raise ChildRefused(
                    f"the payload of a {name} is {len(payload)} bytes: at most {self._max_task_bytes} are kept"
                )
            if size > self._max_children_bytes:
                raise ChildRefused(f"the tasks it enqueued are over {self._max_children_bytes} bytes together")
            own = child.options
            concurrency_key, fairness_key = keys_of(child.model, own.concurrency_key, own.fairness_key)
            own = own._replace(concurrency_key=concurrency_key, fairness_key=fairness_key)
            key = (name, own)
            options = shared.get(key)
            if options is None:
                made = self._registry.options_for(name, created_by=f"task {ctx.id}", **own._asdict())
                options = shared[key] = made
            children.append((UUID(child.id).bytes, payload, options, child.delay_s, child.terms))
        return children


def failed(
    lease: Lease | tuple[TaskId, int], error: BaseException, seconds: float, stack: str | None = None
) -> Outcome:
    """The outcome of an attempt that raised `error`; `stack` is where it stood, if the error itself does not know."""
    name = type(error).__name__
    message = _message(error)
    record = {
        "type": _clean(name, 200),
        "message": message,
        "traceback": _bounded(_traceback(error) if stack is None else stack),
    }
    short = _clean(f"{name}: {message}" if message else name, MAX_MESSAGE)
    ending, when = _verdict(error)
    return (lease[0], lease[1], ending, to_json(record), short, seconds, when, [])


def fail_all(leases: Sequence[Lease], error: BaseException, seconds: float) -> list[Outcome]:
    """One call ended like this for all of them, and each is tried again by itself."""
    return [failed(lease, error, seconds / len(leases)) for lease in leases]


def _verdict(error: BaseException) -> tuple[int, float]:
    if isinstance(error, Retry):
        return RETRY_LATER, error.after_s
    if isinstance(error, Snooze):
        return SNOOZED, error.after_s
    return (FAILED_FOR_GOOD if isinstance(error, Fail) else FAILED), spread()


def as_killed(outcome: Outcome) -> Outcome:
    """The attempt cost its process, or will."""
    return (*outcome[:2], KILLED, *outcome[3:])


def _message(error: BaseException) -> str:
    try:
        return _clean(str(error), MAX_MESSAGE)
    except BaseException as second:
        # The text of an error is the task's code too.
        return f"(its text cannot be had: {type(second).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        return "".join(traceback.format_tb(error.__traceback__))


def _bounded(text: str) -> str:
    half = MAX_TRACEBACK // 2
    return _clean(text if len(text) <= MAX_TRACEBACK else f"{text[:half]}\n...\n{text[-half:]}", MAX_TRACEBACK + 5)


def _clean(text: str, most: int) -> str:
    """At most so many characters, all of which Postgres stores: neither NUL nor half a surrogate pair."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
