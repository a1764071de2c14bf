"""New tasks that found no room where they wait: the answer to their request says that they are cancelled."""

import json
from typing import Final

from asyncproc.clock import id_text
from asyncproc.config import Settings
from asyncproc.core.crowd import bounded
from asyncproc.core.states import State
from asyncproc.core.steering import Overflow
from asyncproc.core.task import NewTask
from asyncproc.errors import StorageUnavailable
from asyncproc.precedence import rules_of
from asyncproc.rules import Stored
from asyncproc.storage.inspector import Inspector

_NONE: Final[frozenset[str]] = frozenset()


class Cancelling:
    """The queues that cancel what there is no room for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version: int | None = None
        self._names = _NONE

    def names(self, stored: Stored) -> frozenset[str]:
        if stored.version != self._version:
            queues = bounded(rules_of(self._settings, stored))
            self._names = frozenset(name for name, queue in queues.items() if queue.overflow is not Overflow.REJECT)
            self._version = stored.version
        return self._names


async def amended(answer: bytes, tasks: list[NewTask], names: frozenset[str], inspector: Inspector) -> bytes:
    """The answer as it is to be, once all is committed. `names` are queues that cancel what there is no room for."""
    ids = [task[0] for task in tasks if task[2].queue in names]
    try:
        glimpses = await inspector.glimpses(ids) if ids else {}
    except StorageUnavailable:
        return answer  # the tasks are on record, whatever has become of them
    cancelled = {id_text(task_id) for task_id, glimpse in glimpses.items() if glimpse.state is State.CANCELLED}
    if not cancelled:
        return answer
    document = json.loads(answer)
    for task in document["tasks"]:
        if task["id"] in cancelled:
            task["status"] = State.CANCELLED
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
