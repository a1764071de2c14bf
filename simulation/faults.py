"""What may go wrong, how often, and how often it did."""

from collections import Counter
from enum import StrEnum
from typing import Final

from simulation.chance import Chance


class Fault(StrEnum):
    CRASH_BEFORE_COMMIT = "QueueActor crashes before its commit"
    CRASH_AFTER_COMMIT = "QueueActor crashes between commit and answers"
    CRASH_BETWEEN_ANSWERS = "QueueActor crashes between two answers"
    CRASH_AFTER_ANSWERS = "QueueActor crashes after its answers"
    CRASH_IN_TAKEOVER = "QueueActor crashes while it takes over"
    CRASH_AT_REST = "QueueActor crashes while it waits"
    SECOND_ACTOR = "two QueueActors at once"
    FENCED = "the fence refuses a commit"
    REDEPLOYED = "QueueActor drains and is replaced"
    COMMIT_FAILED = "commit fails"
    COMMIT_UNKNOWN = "commit is applied, its answer is lost"
    POSTGRES_AWAY = "Postgres is away"
    BAD_ROW = "Postgres refuses a row"
    ROW_TAKEN = "somebody deletes a waiting row"
    MESSAGE_LATE = "message is late"
    MESSAGE_LOST = "message is lost"
    MESSAGE_DOUBLED = "message is doubled"
    REORDERED = "message overtakes another"
    ANSWER_LATE = "answer is late"
    ANSWER_LOST = "answer is lost"
    REPORT_DOUBLED = "outcome is reported twice"
    RECALLED = "lease is called back before it begins"
    RETURN_DOUBLED = "lease is returned twice"
    IMPATIENCE = "worker gives up a call that is under way"
    DEATH = "worker dies and is seen to"
    SILENT_DEATH = "worker dies unseen"
    LAST_WORD = "worker dies as its report leaves"
    LEAVING = "worker says that it leaves, and is gone"
    SAID_TO_BE_DEAD = "live worker is said to be dead"
    SILENCE = "worker falls silent and comes back"
    POISON = "task kills its worker"
    TOGETHER = "several tasks run in one call"
    REPEATED_ENQUEUE = "client enqueues again"
    REPEATED_KEY = "client sends a request again by its key"
    REQUESTED = "client enqueues in a transaction of its own"
    RETRIED_BY_HAND = "client retries a failed task"
    RETRIED_TWICE = "two clients retry the same task"
    CHANGED = "somebody changes a waiting task"
    CHANGED_MANY = "somebody changes, cancels or redrives many"
    PURGED = "somebody purges a queue"
    UNIQUE = "a client asks for the only task with a key"
    UNIQUE_AGAIN = "a client asks again for the only task with a key"
    FOUND = "another task has its key"
    REPLACED = "a waiting task gets the content of another"
    NO_ROOM = "a full queue refuses a request"


ODDS: Final = {
    Fault.CRASH_BEFORE_COMMIT: 0.006,
    Fault.CRASH_AFTER_COMMIT: 0.006,
    Fault.CRASH_BETWEEN_ANSWERS: 0.02,
    Fault.CRASH_AFTER_ANSWERS: 0.005,
    Fault.CRASH_IN_TAKEOVER: 0.05,
    Fault.CRASH_AT_REST: 0.003,
    Fault.SECOND_ACTOR: 0.008,
    Fault.REDEPLOYED: 0.012,
    Fault.COMMIT_FAILED: 0.01,
    Fault.COMMIT_UNKNOWN: 0.02,
    Fault.POSTGRES_AWAY: 0.006,
    Fault.BAD_ROW: 0.02,
    Fault.ROW_TAKEN: 0.02,
    Fault.MESSAGE_LATE: 0.03,
    Fault.MESSAGE_LOST: 0.01,
    Fault.MESSAGE_DOUBLED: 0.1,
    Fault.ANSWER_LATE: 0.03,
    Fault.ANSWER_LOST: 0.01,
    Fault.REPORT_DOUBLED: 0.2,
    Fault.RETURN_DOUBLED: 0.2,
    Fault.IMPATIENCE: 0.02,
    Fault.DEATH: 0.01,
    Fault.SILENT_DEATH: 0.005,
    Fault.LAST_WORD: 0.005,
    Fault.LEAVING: 0.01,
    Fault.SAID_TO_BE_DEAD: 0.005,
    Fault.SILENCE: 0.01,
    Fault.POISON: 0.03,
    Fault.REQUESTED: 0.1,
    Fault.RETRIED_BY_HAND: 0.3,
    Fault.RETRIED_TWICE: 0.1,
    Fault.CHANGED: 0.5,
    Fault.CHANGED_MANY: 0.1,
    Fault.PURGED: 0.01,
    Fault.UNIQUE: 0.05,
}
"""For each occasion. What has no odds follows from other faults."""


class Nemesis:
    """Breaks things. Each history has its own mix: a fault that is rare beside all others is frequent in some."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._odds = {fault: odds * chance.choice((0.0, 0.0, 0.5, 1.0, 2.0, 6.0)) for fault, odds in ODDS.items()}
        self.fired: Counter[Fault] = Counter()

    def tries(self, fault: Fault) -> bool:
        """It is noted where it comes about."""
        return self._chance.random() < self._odds[fault]

    def strikes(self, fault: Fault) -> bool:
        struck = self.tries(fault)
        self.fired[fault] += struck
        return struck

    def note(self, fault: Fault) -> None:
        self.fired[fault] += 1

    def rest(self) -> None:
        self._odds = dict.fromkeys(ODDS, 0.0)
