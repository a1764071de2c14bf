"""When a replica looks for garbage: not while requests wait, if that can be helped.

A search goes through all that requests in hand hold, a hundred thousand objects under load, and nobody is served until
it is over: that was what made refusals slow. Without cycles nothing needs it, and requests leave few.
"""

import asyncio
import gc
import logging
from typing import Final

from asyncproc.api.admission import Admission
from asyncproc.clock import monotonic

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
BUSY_S: Final = 30.0
"""Under load that does not let up it is done this often all the same."""
WORTH: Final = 10_000
"""With fewer objects made since the last time there is nothing to gain."""


def search_when_quiet(admission: Admission) -> "asyncio.Task[None]":
    """From now on, for as long as the task that is returned lives; should it fail, the interpreter sees to it again."""
    # What was imported stays, and need not be searched.
    gc.collect()
    gc.freeze()
    gc.disable()
    task = asyncio.get_running_loop().create_task(_search(admission))
    task.add_done_callback(_leave_it_to_the_interpreter)
    return task


async def _search(admission: Admission) -> None:
    searched_at = monotonic()
    while True:
        await asyncio.sleep(LOOK_S)
        if gc.get_count()[0] < WORTH:
            continue
        is_quiet = not admission.in_hand()
        if is_quiet or monotonic() - searched_at >= BUSY_S:
            gc.collect(2 if is_quiet else 1)
            searched_at = monotonic()


def _leave_it_to_the_interpreter(task: "asyncio.Task[None]") -> None:
    gc.enable()
    if not task.cancelled() and task.exception() is not None:
        log.error("garbage is searched for whenever the interpreter wants to", exc_info=task.exception())
