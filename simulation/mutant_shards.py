"""What shards may do wrong, each of which the referee must see."""

from collections.abc import Iterable, Sequence
from typing import Final

from asyncproc.core.events import RulesChanged
from asyncproc.core.steering import Rules
from asyncproc.core.task import Task
from simulation.rules import Violation
from simulation.shards import Actor, At, Cast, Client, Hand, Home, Mover, Shard, World


class _MovesWhatRuns(Actor):
    """A queue goes though some of its tasks run."""

    def runs(self, rows: Sequence[Task]) -> bool:
        return False


class _ForgetsThatItCloses(Actor):
    """After a takeover a queue that closes is open."""

    def rules(self) -> RulesChanged:
        return RulesChanged(next(self.world.tickets), Rules())


class _TakesWhatIsLate(Actor):
    """New tasks are taken while the queue is copied."""

    def takes(self, home: Home, version: int) -> bool:
        return home.at is not At.GONE and home.version == version


class _HearsOldCalls(Actor):
    """A call for an earlier home of the queue at the same shard is heard."""

    def takes(self, home: Home, version: int) -> bool:
        return home.at is At.OPEN


class _KeepsOldCopies(Actor):
    """What was copied once is taken for the queue as it is."""

    def copied(self, queue: str, version: int) -> list[Task] | None:
        known = self.shard.copies.get(queue)
        return None if known is None else known[1]


class _ProvesNothing(Actor):
    """Whoever believes to reign writes."""

    def prove(self) -> None:
        pass


class _OpensEarly(Mover):
    """The new home opens as soon as it has the rows."""

    def advance(self, queue: str, owner: Shard, home: Home) -> None:
        there = self.world.reigning(self.world.shards[home.to])
        if home.at is At.CLOSING and there.copied(queue, home.version) is not None:
            self.later(there.open, queue, home.version)
        super().advance(queue, owner, home)


class _RepeatsAtTheNewHome(Client):
    """A call without an answer is made again where the queue is now."""

    def again(self, shard: Shard, version: int) -> None:
        self._ask_anew()


class _HasOneEpoch(Hand):
    """The highest epoch of any shard is that of all."""

    def epoch_of(self, shard: Shard) -> int:
        return 0


MUTANTS: Final = {
    "moves-what-runs": Cast(actor=_MovesWhatRuns),
    "forgets-that-it-closes": Cast(actor=_ForgetsThatItCloses),
    "takes-what-is-late": Cast(actor=_TakesWhatIsLate),
    "hears-old-calls": Cast(actor=_HearsOldCalls),
    "keeps-old-copies": Cast(actor=_KeepsOldCopies),
    "proves-nothing": Cast(actor=_ProvesNothing),
    "opens-early": Cast(mover=_OpensEarly),
    "repeats-at-the-new-home": Cast(client=_RepeatsAtTheNewHome),
    "has-one-epoch": Cast(hand=_HasOneEpoch),
}


def hunt(name: str, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed that catches it and the rule that was broken; None where none does."""
    for seed in seeds:
        try:
            World(seed, MUTANTS[name]).run()
        except Violation as violation:
            return seed, violation.rule
        except Exception as error:  # as in `History`: a core that fails is caught as well
            return seed, type(error).__name__
    return None
