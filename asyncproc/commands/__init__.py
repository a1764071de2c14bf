"""Commands that call the REST API, one module a subject."""
