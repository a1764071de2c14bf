"""Payloads that the QueueActor does not hold reach the worker all the same."""

from pathlib import Path

from asyncproc.core.settings import LARGE_BYTES
from asyncproc.core.states import State
from tests.actors.conftest import Deploy
from tests.deployed import Ledger
from tests.eventually import eventually


def test_a_large_payload_is_read_for_its_attempt(deploy: Deploy, ledger: Ledger, gate: Path) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    system.enqueue("Hold", {"ledger": ledger.path, "n": 0, "gate": str(gate)})
    eventually(ledger.traces)
    system.enqueue("Answer", *({"how": str(n) * LARGE_BYTES} for n in range(1, 6)))
    system.enqueue("Note", {"ledger": ledger.path, "n": 1})

    gate.touch()

    eventually(lambda: system.states() == {State.SUCCEEDED: 7})
    system.enqueue("Answer", {"how": "at once" * LARGE_BYTES})
    eventually(lambda: system.states() == {State.SUCCEEDED: 8})
