"""All chance of a history: one seed, one course of events."""

from random import Random  # noqa: TID251 - seeded: a failing history replays


class Chance(Random):
    def odds(self, share: float) -> bool:
        return self.random() < share

    def latency(self) -> float:
        """Seconds that a message or a commit takes where nothing is wrong."""
        return 0.0005 + self.random() * 0.005
