"""Faults against the whole system under load, and an account of every task by a ledger of its own."""
