"""The shells around core and storage, and the only code that knows Ray."""
