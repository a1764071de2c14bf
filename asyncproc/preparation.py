"""What task classes keep in one process: `setup` before the first task of a class there, `teardown` at the end."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from threading import Lock, Thread
from typing import Final

from asyncproc.errors import SetupFailed
from asyncproc.processable import Processable

log = logging.getLogger(__name__)

SETUP_S: Final = 300.0


class Preparation:
    """One per process. A class that has neither of the two costs nothing.

    Raises `SetupFailed` from whoever came for the first task; for the next one it is tried again.
    """

    def __init__(self, classes: Mapping[str, type[Processable]], limit_s: float = SETUP_S) -> None:
        self.limit_s = limit_s
        """How long one `setup` may take: it counts into no time limit of a task."""
        self.missing = {name for name, cls in classes.items() if is_prepared(cls)}
        """Types that are to be set up before their next task."""
        self.tell: Callable[[str, object], None] = lambda kind, content: None
        """Hears of each that begins and ends."""
        self._classes = classes
        self._locks = {name: Lock() for name in self.missing}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._done: list[str] = []

    def prepare(self, name: str) -> None:
        """In the calling thread; others that need the same wait for it."""
        with self._locks[name]:
            if name not in self.missing:
                return
            self.tell("preparing", self.limit_s)
            try:
                self._classes[name].setup()
            except BaseException as error:
                raise SetupFailed(name, _words(error)) from error
            finally:
                self.tell("prepared", None)
            self._is_done(name)

    async def prepare_async(self, name: str) -> None:
        """On the loop of the `async def` tasks. Whoever is cancelled leaves it to go on for the others."""
        task = self._under_way.get(name)
        if task is None:
            task = self._under_way[name] = asyncio.ensure_future(self._prepare_async(name))
            task.add_done_callback(lambda _: self._under_way.pop(name))
        await asyncio.shield(task)

    async def _prepare_async(self, name: str) -> None:
        if name not in self.missing:
            return
        cls = self._classes[name]
        self.tell("preparing", self.limit_s)
        try:
            if inspect.iscoroutinefunction(cls.setup):
                await cls.setup()
            else:
                # To load a model takes long, and the other tasks of the loop go on meanwhile.
                await asyncio.to_thread(cls.setup)
        except BaseException as error:
            raise SetupFailed(name, _words(error)) from error
        finally:
            self.tell("prepared", None)
        self._is_done(name)

    def _is_done(self, name: str) -> None:
        self._done.append(name)
        self.missing.discard(name)

    def tear_down(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        """Call the `teardown` of all that was set up, the last first, for so long at most; errors go to the log."""
        if not self._done:
            return
        thread = Thread(target=self._tear_down, args=(loop,), name="teardown", daemon=True)
        thread.start()
        thread.join(limit_s)
        if thread.is_alive():
            log.warning("teardown is not through after %g s: the process ends all the same", limit_s)

    def _tear_down(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._done:
            name = self._done.pop()
            cls = self._classes[name]
            try:
                if inspect.iscoroutinefunction(cls.teardown):
                    asyncio.run_coroutine_threadsafe(cls.teardown(), loop).result()
                else:
                    cls.teardown()
            except BaseException:
                # Also what ends a process elsewhere: this one is about to end, after the other teardowns.
                log.warning("teardown of %s failed", name, exc_info=True)


def is_prepared(cls: type[Processable]) -> bool:
    """Whether the class has something to set up or to tear down."""
    its_own = cls.__mro__[: cls.__mro__.index(Processable)]
    return any(name in base.__dict__ for base in its_own for name in ("setup", "teardown"))


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return type(error).__name__
