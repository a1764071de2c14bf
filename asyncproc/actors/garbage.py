"""How much of an actor's process the interpreter searches for garbage, and how often.

A search of all there is takes 50 ms of a process that has imported Ray, and everybody waits for it.
"""

import gc
from typing import Final

NEW_OBJECTS: Final = 20_000
"""A cycle of the QueueActor makes thousands of records that are all needed until it is over: to look among them every
700, as the interpreter does, finds nothing. A search among so many takes a millisecond."""


def spare_what_stays() -> None:
    """What is there by now is mostly imported code, and lives as long as the process: it is not searched again."""
    gc.freeze()


def search_seldom() -> None:
    """The same, for a process whose own code alone runs in it and leaves hardly any cycles."""
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
