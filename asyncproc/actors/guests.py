"""Workers that nobody here started: they come and go by themselves, and are watched like all others.

A guest lives in an actor of somebody else's, such as a replica of Ray Serve, and is called after it:
`namespace/actor.code`. Such an actor has no call that would tell of its death. Instead the guest owns an object that is
never made: Ray tells whoever waits for it when the owner is no more. A QueueActor that takes over has no such object
until the guest introduces itself, and until then asks the actor from time to time whether it is there.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, RayError

from asyncproc.clock import monotonic
from asyncproc.core.events import WorkerLost

log = logging.getLogger(__name__)

_SPACE: Final = "/"
_FIRST_S: Final = 0.2
_LAST_S: Final = 5.0
_ANSWER_S: Final = 5.0
_LOOK_S: Final = 0.05
_MISSED_S: Final = 60.0
"""By then one that has not introduced itself is known by its silence, or will not be missed."""


def guest_name(namespace: str, actor: str, code: str) -> str:
    """`code` parts one life of the actor from another."""
    return f"{namespace}{_SPACE}{actor}.{code}"


def is_guest(worker: str) -> bool:
    """No pool has a slash in its name."""
    return _SPACE in worker


class Guests:
    def __init__(self, lost: Callable[[WorkerLost], None]) -> None:
        """`lost` is told of each one that died."""
        self._lost = lost
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._missed: dict[str, asyncio.Task[None]] = {}
        """Those of an earlier reign that have not introduced themselves yet."""
        self._gone: dict[str, asyncio.Event] = {}

    async def witness(self, worker: str) -> None:
        """Returns only once the worker is gone: what the call returns is the object that the worker owns."""
        await self._gone.setdefault(worker, asyncio.Event()).wait()

    def introduce(self, worker: str, witness: Sequence[Any]) -> None:
        """A guest says that it is there. `witness` is what its call of that name returns. Raises `ValueError`."""
        if not witness:
            raise ValueError(f"{worker} has no witness")
        if worker not in self._watches:
            self._watches[worker] = watch = asyncio.get_running_loop().create_task(self._watch(worker, witness[0]))
            watch.add_done_callback(lambda watch: self._watched(worker, watch))
        if (missed := self._missed.pop(worker, None)) is not None:
            missed.cancel()

    async def find(self, workers: Iterable[str]) -> set[str]:
        """Those whose actors Ray knows to be there. They introduce themselves again, or die before, or fall silent."""
        found = await asyncio.to_thread(lambda: {name for name in workers if is_guest(name) and _actor_of(name)})
        for worker in found - self._watches.keys():
            self._missed[worker] = missed = asyncio.get_running_loop().create_task(self._miss(worker))
            missed.add_done_callback(partial(_watched, worker))
        return found

    async def drain(self, held: Callable[[str], int | None], grace_s: float) -> None:
        """Returns once they hold nothing more: they are not ours to end."""
        until = monotonic() + grace_s
        while any(held(worker) for worker in self._watches) and monotonic() < until:
            await asyncio.wait(self._watches.values(), timeout=_LOOK_S)

    async def _watch(self, worker: str, witness: Any) -> None:
        log.info("%s is there", worker)
        try:
            await witness
        except RayError as error:
            log.info("%s may be gone: %s", worker, type(error).__name__)
        await self._is_dead(worker)
        self._lose(worker)

    async def _miss(self, worker: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_MISSED_S):
                await self._is_dead(worker)
                self._lose(worker)
        self._missed.pop(worker, None)

    def _lose(self, worker: str) -> None:
        log.info("%s is gone", worker)
        # Where it said before that it leaves, nothing is held against it.
        self._lost(WorkerLost(worker, "its process was killed or crashed, or Ray Serve ended it", charged=True))
        self._gone.pop(worker, asyncio.Event()).set()

    def _watched(self, worker: str, watch: "asyncio.Task[None]") -> None:
        del self._watches[worker]
        _watched(worker, watch)

    async def _is_dead(self, worker: str) -> None:
        """Returns once it is. That it cannot be reached is no proof of that."""
        wait_s = _FIRST_S
        while True:
            try:
                if (actor := await asyncio.to_thread(_actor_of, worker)) is None:
                    return
                async with asyncio.timeout(_ANSWER_S):
                    await actor.__ray_call__.remote(_nothing)
            except ActorDiedError:
                return
            except (RayError, TimeoutError) as error:
                log.warning("%s cannot be reached: %s", worker, type(error).__name__)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_S)


def _watched(worker: str, watch: "asyncio.Task[None]") -> None:
    """A watch that failed leaves the worker to its silence, and to the watch that its next registration begins."""
    if not watch.cancelled() and (error := watch.exception()) is not None:
        log.error("%s is not watched any more: %s", worker, error, exc_info=error)


def _actor_of(worker: str) -> Any:
    """None where there is no such actor any more."""
    namespace, _, rest = worker.partition(_SPACE)
    try:
        return ray.get_actor(rest.rpartition(".")[0], namespace=namespace)
    except ValueError:
        return None


def _nothing(_: object) -> None: ...
