"""A thread of this package's own, whose event loop goes on whatever the code around it does."""

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import Any, TypeVar

R = TypeVar("R")


class Loop:
    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        # A daemon: it must not keep a process alive that is to end.
        Thread(target=self.loop.run_forever, name=name, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, R], timeout_s: float | None = None) -> R:
        """From another thread, which waits. Raises `TimeoutError`; the work goes on then."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    async def await_(self, work: Coroutine[Any, Any, R]) -> R:
        """From another loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))
