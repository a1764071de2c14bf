"""Plain integers the core counts; the shells export them."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    enqueued: int = 0
    claimed: int = 0
    succeeded: int = 0
    retried: int = 0
    cancelled: int = 0
    failed: int = 0
    lost: int = 0
    """Attempts whose worker died."""
    stale_outcomes: int = 0
    """Reports of a lease that counted no more: late, doubled, or of a worker thought dead."""
    stale_notes: int = 0
    """The same of what an attempt noted."""
    returned: int = 0
    """Leases that were called back before they began."""
    refused_writes: int = 0
    """Writes that met another state in the table than memory had."""
    stale_polls: int = 0
    """Polls of a worker that has to register first."""
