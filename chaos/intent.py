"""What the n-th task of a seed is: made from the two numbers alone, so that the checker knows it without being told."""

from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

BACKOFF_S: Final = 0.2
DELAY_S: Final = 1.0
LEVELS: Final = 10
_WHOLE: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Intent:
    ms: float = 1
    fails: int = 0
    type: str = "Chore"
    delay_s: float = 0.0
    priority: int = 0

    @property
    def state(self) -> str:
        """Where it must end."""
        return "failed" if self.type == "Doomed" else "succeeded"

    def body(self, n: int, ledger: str, created_by: str) -> dict[str, Any]:
        """As the REST API takes it."""
        body: dict[str, Any] = {
            "taskType": self.type,
            "payload": {"ledger": ledger, "n": n, "ms": self.ms, "fails": self.fails},
            "priority": self.priority,
            "backOffDuration": f"{BACKOFF_S:g}s",
            "createdBy": created_by,
        }
        if self.delay_s:
            body["delay"] = f"{self.delay_s:g}s"
        return body


def intent(seed: int, n: int) -> Intent:
    """81 % of 1 ms, of which one in fifty is delayed; 15 % of 20 ms; 4 % fail once, a few for good; 0.1 % of 2 s."""
    share = crc32(f"{seed}:{n}".encode()) / _WHOLE
    priority = crc32(f"priority {seed}:{n}".encode()) % LEVELS
    if share < 0.001:
        return Intent(ms=2_000, priority=priority)
    if share < 0.002:
        return Intent(fails=2, type="Doomed", priority=priority)
    if share < 0.042:
        return Intent(fails=1, priority=priority)
    if share < 0.192:
        return Intent(ms=20, priority=priority)
    return Intent(delay_s=DELAY_S if share < 0.21 else 0.0, priority=priority)
