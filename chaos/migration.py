"""A migration that is killed on its way, and goes on where it is started again."""

import subprocess
import sys
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from asyncproc.failpoints import VARIABLE
from chaos.system import NotInTime, System

POINTS: Final = ("migrate.before", "migrate.mid", "migrate.after")
_SECONDS: Final = 60
_OBJECTS: Final = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'asyncproc' AND c.relkind IN ('r', 'p', 'i') AND c.relname !~ '20[0-9]{4}' ORDER BY 1"
)


class SchemaDiffers(Exception):
    """A migration that was cut off and one that was not lead to two schemas."""


def interrupt(system: System, point: str) -> None:
    """In a database of its own. Raises `NotInTime` where it was not killed, `SchemaDiffers` where that left a trace."""
    name = point.replace(".", "_")
    system.query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    system.query(f'CREATE DATABASE "{name}"')
    if _migrate(system, name, f"{point}=kill") == 0:
        raise NotInTime(f"the failpoint {point} did not fire")
    if _migrate(system, name, "") != 0:
        raise SchemaDiffers(f"after a kill at {point} the migration fails")
    found, wanted = (_objects(system, database) for database in (name, "postgres"))
    if found != wanted:
        raise SchemaDiffers(f"after a kill at {point}: {sorted(found ^ wanted)}")
    system.query(f'DROP DATABASE "{name}" WITH (FORCE)')


def _migrate(system: System, database: str, failpoints: str) -> int:
    url = system.conninfo.replace("/postgres?", f"/{database}?")
    environment = {**system.environment(), VARIABLE: failpoints, "ASYNCPROC_STORAGE_URL": url}
    command = [sys.executable, "-m", "asyncproc", "migrate"]
    return subprocess.run(
        command, cwd=system.start_dir, env=environment, capture_output=True, timeout=_SECONDS, check=False
    ).returncode


def _objects(system: System, database: str) -> set[str]:
    with psycopg.connect(make_conninfo(system.conninfo, dbname=database)) as connection:
        return {str(row[0]) for row in connection.execute(_OBJECTS).fetchall()}
