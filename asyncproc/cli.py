"""The `asyncproc` command."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

from asyncproc.commands.changes import change, explain
from asyncproc.commands.client import ApiUnreachable
from asyncproc.commands.dead import dead
from asyncproc.commands.operations import bulk, operations
from asyncproc.commands.pauses import pause, resume
from asyncproc.commands.pools import pools
from asyncproc.commands.queues import queues
from asyncproc.commands.rates import rates
from asyncproc.commands.schedules import schedules
from asyncproc.commands.tasks import tasks
from asyncproc.commands.types import types
from asyncproc.config import Settings
from asyncproc.config_file import load, shown
from asyncproc.errors import AsyncprocError, ConfigError
from asyncproc.registry import RegistryError

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_UNREACHABLE = 3
"""The API does not answer, or says to come again."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asyncproc")
def cli() -> None:
    """Background tasks for Python on Ray, kept in Postgres."""


_config = click.option(
    "--config", "path", type=click.Path(path_type=Path), help="The YAML file; default asyncproc.yaml."
)


@cli.command()
@_config
def up(path: Path | None) -> None:
    """Start Postgres (embedded unless one is configured), Ray and the API; Ctrl-C stops them."""
    from asyncproc.local.system import up as run

    run(_load(path), Path.cwd(), lambda text: click.echo(text))


@cli.command()
@_config
def deploy(path: Path | None) -> None:
    """Put the API on the Ray that runs here, or new code and configuration in its place, and return."""
    from asyncproc.local.deploy import deploy as run

    run(_load(path), Path.cwd(), lambda text: click.echo(text))


@cli.command()
def down() -> None:
    """Stop what `asyncproc up` started in this directory: running tasks finish, the rest is kept."""
    from asyncproc.local.stop import stop

    click.echo("stopped" if stop(Path.cwd()) else "nothing runs here")


@cli.command()
def status() -> None:
    """Say whether the system of this directory runs and is healthy; exit 1 where it is not."""
    from asyncproc.local.stop import state

    healthy, lines = state(Path.cwd())
    for line in lines:
        click.echo(line)
    if not healthy:
        sys.exit(EXIT_FAILED)


@cli.command()
@_config
def migrate(path: Path | None) -> None:
    """Bring the schema of the configured database up to this release."""
    from asyncproc.storage.migrate import migrate as run

    conninfo = _load(path).storage.conninfo()
    if conninfo is None:
        raise ConfigError(
            ("storage.url is not set: `asyncproc migrate` needs a database; `asyncproc up` brings its own",)
        )
    applied = asyncio.run(run(conninfo))
    click.echo(f"applied migrations {', '.join(map(str, applied))}" if applied else "the schema is up to date")


@cli.command("database-url")
@_config
def database_url(path: Path | None) -> None:
    """Print where the database is, password included: for programs that enqueue in transactions of their own."""
    from asyncproc.local.database import database_url as find

    click.echo(find(_load(path), Path.cwd()))


@cli.command()
@_config
def config(path: Path | None) -> None:
    """Check the configuration and print what is in force, secrets left out."""
    click.echo(shown(_load(path)), nl=False)


# ---- what calls the API

for _command in (tasks, queues, types, rates, pools, schedules, pause, resume, bulk, operations, dead):
    cli.add_command(_command)
for _command in (change, explain):
    tasks.add_command(_command)


def _load(path: Path | None) -> Settings:
    return load(path, os.environ, Path.cwd())


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        cli.main(standalone_mode=False)
    except (ConfigError, RegistryError) as error:
        click.echo(f"configuration: {error}", err=True)
        sys.exit(EXIT_CONFIG)
    except AsyncprocError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_UNREACHABLE if isinstance(error, ApiUnreachable) else EXIT_FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
