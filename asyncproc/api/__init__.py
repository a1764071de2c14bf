"""The door: parse, call one thing, answer."""
