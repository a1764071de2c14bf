"""What these tests share with those of the actors."""

from tests.actors.conftest import gate, ledger

__all__ = ["gate", "ledger"]
