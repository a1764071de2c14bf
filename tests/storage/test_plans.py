"""The plans that the statements rely on: by index, whatever is known about the table."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any, Final, LiteralString

import psycopg

from asyncproc.core.states import State
from asyncproc.storage import statements as sql
from asyncproc.storage.connection import WRITER_OPTIONS, hardened
from asyncproc.storage.cycle import Storage
from tests.storage.table import ERROR, a_task, write

# What each statement does with the tables: the index that it must use, and those that it may use.
BY_INDEX: Final[dict[str, tuple[LiteralString, set[str]]]] = {
    "claim": (sql.CLAIM, {"task_live_pkey"}),
    "succeed": (sql.SUCCEED, {"task_live_pkey"}),
    "fail": (sql.FAIL, {"task_live_pkey"}),
    "retry": (sql.RETRY, {"task_live_pkey"}),
    "requeue": (sql.REQUEUE, {"task_live_pkey"}),
    "come due": (sql.COME_DUE, {"task_live_pkey"}),
    "agreeing": (sql.AGREEING, {"task_live_pkey"}),
    "ready page": (sql.READY_PAGE, {"task_live_ready"}),
    "due page": (sql.DUE_PAGE, {"task_live_due"}),
    "queue names": (sql.QUEUE_NAMES, {"task_live_ready"}),
    "revive": (sql.REVIVE, {"task_done_*_id_idx"}),
    "existing": (sql.EXISTING, {"task_live_pkey", "task_done_*_pkey"}),
    "insert again": (sql.INSERT_AGAIN, {"task_done_*_pkey"}),
}


async def test_the_cycle_reads_by_index_whatever_is_known_about_the_table(storage: Storage, database: str) -> None:
    with psycopg.connect(hardened(database, "plans", WRITER_OPTIONS), autocommit=True) as connection:
        _all_by_index(connection, "empty")

        connection.execute("ALTER TABLE asyncproc.task_live SET (autovacuum_enabled = off)")
        states = [State.QUEUED, State.QUEUED, State.SCHEDULED, State.RUNNING]
        tasks = [a_task(states[n % 4], queue=f"q{n % 3}") for n in range(50_000)]
        await write(storage, inserts=tasks)
        running = [task for task in tasks if task.state is State.RUNNING]
        await write(storage, succeeded=[(task.id, 1, b"1") for task in running[:5000]])
        await write(storage, failed=[(task.id, 1, "Boom", ERROR) for task in running[5000:6000]])
        _all_by_index(connection, "full, nothing known")

        connection.execute("ANALYZE")
        _all_by_index(connection, "full, analysed")


async def test_a_page_reads_no_more_rows_than_it_returns(storage: Storage, database: str) -> None:
    await write(storage, inserts=[a_task(queue=f"q{n % 3}") for n in range(3000)])
    text = sql.READY_PAGE.replace("%s", "{}").format("'q1'", "'-Infinity'", f"'{0:032x}'", "50", "1000000")
    with psycopg.connect(hardened(database, "plans", WRITER_OPTIONS), autocommit=True) as connection:
        rows = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}".encode()).fetchall()

    nodes = list(_nodes(rows[0][0][0]["Plan"]))
    (scan,) = [node for node in nodes if node.get("Relation Name") == "task_live"]
    assert (scan["Node Type"], scan["Index Name"], scan["Actual Rows"]) == ("Index Scan", "task_live_ready", 50)
    assert "Sort" not in {node["Node Type"] for node in nodes}


def _all_by_index(connection: psycopg.Connection[tuple[Any, ...]], table: str) -> None:
    for name, (text, indexes) in BY_INDEX.items():
        nodes = list(_nodes(_plan(connection, text)))
        detours = [
            kind for node in nodes if (kind := node["Node Type"]).startswith(("Seq", "Bitmap", "Sort", "Incremental"))
        ]
        used = {_of_any_day(node["Index Name"]) for node in nodes if "Index Name" in node}
        assert (name, detours, used) == (name, [], indexes), f"{table}: {json.dumps(nodes, indent=1)}"


def _plan(connection: psycopg.Connection[tuple[Any, ...]], text: LiteralString) -> dict[str, Any]:
    numbers = count(1)
    parts = text.split("%s")
    numbered = parts[0] + "".join(f"${next(numbers)}{part}" for part in parts[1:])
    rows = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {numbered}".encode()).fetchall()
    plan: dict[str, Any] = rows[0][0][0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {name: value for name, value in plan.items() if name != "Plans"}
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _of_any_day(index: str) -> str:
    day = index.removeprefix("task_done_")[:8]
    return index.replace(day, "*") if day.isdigit() else index
