"""The record: explicit SQL on Postgres, and nothing of Ray."""
