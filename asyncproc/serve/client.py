"""An adapter's way to the QueueActor of the same Ray: no address and no password to configure."""

from collections.abc import Sequence

from asyncproc.actors.answers import Cancelled, Health, Refusal, expect
from asyncproc.actors.calls import Calls
from asyncproc.actors.deployment import QueueHandle
from asyncproc.actors.gateway import Gateway
from asyncproc.actors.lane import Lane
from asyncproc.actors.served import Answer, Asked, Call, Count, Enqueue, Host, Hosted, LookAt
from asyncproc.core.cancel import GRACE_S
from asyncproc.core.record import TaskRecord
from asyncproc.core.states import State
from asyncproc.core.task import TaskId


class Client:
    """All of its calls may be repeated, and are, until there is an answer or the time is over. On one loop."""

    def __init__(self, queue: QueueHandle, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._gateway = Gateway(queue, timeout_s)
        self._enqueues, self._looks, self._hosts = Calls(queue), Calls(queue), Calls(queue)
        self._lane: Lane[Call, None] = Lane(self._enqueue, timeout_s)

    async def enqueue(self, call: Call) -> None:
        """Returns once it is committed. Raises what `Gateway.enqueue` raises."""
        await self._lane.carry(call, 1, len(call.payload))

    async def host(self, host: Host) -> Hosted:
        """Raises `SettingsRefused`, `StorageUnavailable` and `QueueUnavailable`."""
        return expect(await self._ask(self._hosts, host), Hosted)

    async def look(self, task_id: TaskId) -> TaskRecord | None:
        """Raises `StorageUnavailable` and `QueueUnavailable`."""
        found = await self._ask(self._looks, LookAt(task_id))
        return None if found is None else expect(found, TaskRecord)

    async def count(self, queue: str) -> dict[State, int] | None:
        """Raises the same."""
        found = await self._ask(self._looks, Count(queue))
        return None if found is None else expect(found, dict)

    async def cancel(self, task_id: TaskId) -> Cancelled:
        """Raises the same."""
        return await self._gateway.cancel(task_id, "cancelled by its adapter", GRACE_S)

    async def health(self) -> Health:
        """Raises `QueueUnavailable`."""
        return await self._gateway.health(self._timeout_s)

    async def _ask(self, calls: Calls, asked: Asked) -> Answer:
        answer: Answer | Refusal = await calls.call(lambda actor, _: actor.served.remote(asked), self._timeout_s)
        if isinstance(answer, Refusal):
            raise answer.error()
        return answer

    async def _enqueue(self, calls: Sequence[Call], repeated: bool = False) -> list[Exception | None]:
        refusal: Refusal | None = await self._enqueues.call(
            lambda actor, again: actor.served.remote(Enqueue(list(calls), repeated or again)), self._timeout_s
        )
        if refusal is None:
            return [None] * len(calls)
        if not refusal.rejected:
            return [refusal.error()] * len(calls)
        rejected = dict(refusal.rejected)
        spared = [call for call in calls if call.id not in rejected]
        # Not all causes spare the others of the call; those that are committed already are known by their ids.
        others = iter(await self._enqueue(spared, True) if spared else ())
        return [_error(refusal, call) if call.id in rejected else next(others) for call in calls]


def _error(refusal: Refusal, call: Call) -> Exception:
    own = tuple(entry for entry in refusal.rejected if entry[0] == call.id)
    full = tuple(each for each in refusal.full if each.first == call.id)
    return refusal._replace(rejected=own, full=full or refusal.full).error()
