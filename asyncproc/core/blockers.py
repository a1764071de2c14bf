"""Why a ready task does not start: the gates that are shut for it, in the words of an operator."""

from dataclasses import dataclass
from math import isfinite

from asyncproc.core.backlog import Backlog
from asyncproc.core.gates import Gate, RunningLimit
from asyncproc.core.steering import Pause
from asyncproc.core.task import Options

_SCOPES = {"all": "everything", "queue": "the queue", "type": "the type"}


@dataclass(frozen=True, slots=True)
class Blocker:
    kind: str
    """`pause`, or the kind of a limit: `queue`, `type`, `key`, `rate`; `unknown` where workers lack the type."""
    name: str
    text: str
    until: float | None = None
    """When it ends, in seconds since 1970; None where nobody knows."""


def blockers(backlog: Backlog, options: Options, now: float) -> list[Blocker]:
    """What keeps a task like this from starting now; empty where only others before it do."""
    found = [_of_pause(pause) for pause in backlog.rules.pauses if _concerns(pause, options, now)]
    for gate, units in backlog.draws(options):
        opens_at = gate.opens_at(units, now)
        if opens_at > now and gate.kind != "pause":
            found.append(_of_gate(gate, opens_at, now))
    return found


def _concerns(pause: Pause, options: Options, now: float) -> bool:
    if 0 < pause.until <= now:
        return False
    return pause.name == {"all": "", "queue": options.queue, "type": options.type}[pause.scope]


def _of_pause(pause: Pause) -> Blocker:
    text = f"{_SCOPES[pause.scope]} {pause.name}".rstrip() + " is paused"
    text += f" by {pause.by}" if pause.by else ""
    text += f": {pause.reason}" if pause.reason else ""
    return Blocker("pause", pause.name, text, pause.until or None)


def _of_gate(gate: Gate, opens_at: float, now: float) -> Blocker:
    if isinstance(gate, RunningLimit):
        return Blocker(gate.kind, gate.name, f"{gate.used} of {gate.limit} run for the {gate.kind} {gate.name}")
    if gate.kind == "unknown":
        return Blocker("unknown", gate.name, f"no worker knows type {gate.name}, or not all of its pool do yet")
    until = opens_at if isfinite(opens_at) else None
    return Blocker(gate.kind, gate.name, f"the rate limit {gate.name} is free in {opens_at - now:.1f} s", until)
