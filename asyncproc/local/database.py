"""Where the database of a directory is, for whoever wants to enqueue in transactions of his own."""

from pathlib import Path

from asyncproc.config import Settings
from asyncproc.errors import ConfigError
from asyncproc.local.note import HOME
from asyncproc.local.postgres import EmbeddedPostgres


def database_url(settings: Settings, start_dir: Path) -> str:
    """For libpq. Raises `ConfigError` where none is configured and none of our own runs."""
    url = settings.storage.conninfo() or EmbeddedPostgres(start_dir / HOME / "postgres").url()
    if url is None:
        raise ConfigError(
            ("storage.url is not set, and no Postgres of ours runs in this directory: start it with `asyncproc up`",)
        )
    return url
