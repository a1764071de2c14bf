"""What must hold, in plain words. Whoever breaks a rule is named by it."""

from enum import StrEnum


class Rule(StrEnum):
    AGREEMENT = "memory is what the table says"
    ALL_ON_DISK = "what is not in memory is known to be on disk"
    ONE_LEASE = "every running task has one lease, on one worker"
    ALONE = "what was aboard when two workers died runs alone"
    CONFINED = "a suspect runs in a process of its own"
    BOUNDS = "windows and workers stay within their bounds"
    COUNTERS = "the counters add up"
    FAMILY = "no task starts before its parents have ended, and none waits for those that have"
    DUE = "no task starts before it is due"
    NOT_ASLEEP = "what is due does not sleep on"
    RANK = "the rank is the ready time less the priority's worth"
    PLACE = "a task runs in the pool of its queue, for what it asks"
    ORDER = "the best rank of a queue goes first"
    BATCHES = "tasks that run in one call take one slot, are of one type, and no more than it takes"
    AFFINITY = "who waits for a certain worker does so for a bounded time"
    GATES = "limits, rates and pauses are kept to"
    ROOM = "new tasks wait only where there is room"
    SHARES = "queues that all have work share by weight"
    IDLE_HANDS = "no worker waits while work does"
    KNOWN = "a task goes only where its type is known"
    GRANTED = "what is claimed is granted, and what is granted is claimed"
    HEARD = "a call is heard by the registration it belongs to, and no other"
    ANSWERED = "every call is answered once, and in time"
    DRAINED = "who drains grants nothing"
    INNOCENT_WORKER = "a worker that calls is not given up"
    INNOCENT_TASK = "only a proven poison pill is charged with the death of a worker"
    REPLAY = "a replay changes nothing"
    FENCE = "who does not reign writes nothing"
    ON_RECORD = "every start is on record before it happens"
    PAYLOAD = "a task runs with the payload it was posted with"
    CHECKPOINT = "an attempt finds the last checkpoint of those before it"
    OWN_OUTCOME = "an attempt ends as its own lease ended"
    ONCE = "nothing runs twice unless its worker was lost"
    ATTEMPTS = "attempts are counted by their ends"
    ACKNOWLEDGED = "what was acknowledged is never lost"
    ONE_ANSWER = "a key makes its tasks once, and has one answer"
    UNIQUE = "of those that are to be the only ones with a key there is one"
    TICKS = "each tick of a schedule is decided once, and is one task"
    EXPECTED = "nothing is there that nobody asked for"
    FINAL = "every task ends in exactly one final state"
    RESTS = "the core rests when there is nothing to do"
    ONE_HOME = "a queue has one home"
    LIVENESS = "without faults everything ends"
    SOUND = "the core does not fail"


class Violation(AssertionError):
    """A rule was broken."""

    def __init__(self, rule: Rule, detail: str) -> None:
        super().__init__(rule, detail)
        self.rule = rule
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


def require(holds: object, rule: Rule, detail: str) -> None:
    """For where the detail costs nothing to name."""
    if not holds:
        raise Violation(rule, detail)
