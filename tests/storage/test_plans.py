"""The plans that the statements rely on: by index, and no more than the batch, whatever is known about the table."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import pytest

from asyncproc.core.decision import Writes
from asyncproc.core.record import TaskFilter
from asyncproc.core.settings import LARGE_BYTES
from asyncproc.core.states import State
from asyncproc.core.task import TaskId
from asyncproc.storage import inspector
from asyncproc.storage.arrays import PgArray, bigints, floats, ints, texts, uuids
from asyncproc.storage.batch import COPY_FROM, Statement, build
from asyncproc.storage.connection import READER_OPTIONS, WRITER_OPTIONS, Connection, hardened, open_writer
from asyncproc.storage.cycle import Storage
from asyncproc.storage.rows import not_ended_before
from asyncproc.storage.statements import dependents, moves, overflow, pages, reads, steering
from tests.storage.table import ERROR, NOW, PAGE_BYTES, a_task, query, write

_DONE: Final = {f"task_done_{state}_*_pkey" for state in ("succeeded", "failed", "cancelled")}

# What each statement of the cycle does with the tables: the indexes that it uses, all of them.
BY_INDEX: Final[dict[str, tuple[LiteralString, set[str]]]] = {
    "claim": (moves.CLAIM, {"task_live_pkey"}),
    "note": (moves.NOTE, {"task_live_pkey"}),
    "checkpoints": (pages.CHECKPOINTS, {"task_live_pkey"}),
    "succeed": (moves.SUCCEED, {"task_live_pkey"}),
    "fail": (moves.FAIL, {"task_live_pkey"}),
    "retry": (moves.RETRY, {"task_live_pkey"}),
    "requeue": (moves.REQUEUE, {"task_live_pkey"}),
    "come due": (moves.COME_DUE, {"task_live_pkey"}),
    "agreeing": (moves.AGREEING, {"task_live_pkey"}),
    "live": (moves.LIVE, {"task_live_pkey"}),
    "note parents": (dependents.NOTE, {"task_live_pkey"}),
    "connect": (dependents.CONNECT, {"task_live_pkey"}),
    "affected": (
        dependents.AFFECTED,
        {"task_live_pkey", "task_edge_pkey", "task_done_succeeded_*_pkey"},
    ),
    "end with parent": (dependents.END_WITH_PARENT, {"task_live_pkey"}),
    "free": (dependents.FREE, {"task_edge_child"}),
    "ready pages": (pages.READY_PAGES, {"task_live_ready"}),
    "due page": (pages.DUE_PAGE, {"task_live_due"}),
    "lanes": (pages.LANES, {"task_live_ready"}),
    "lanes of a queue": (pages.LANES_OF, {"task_live_ready"}),
    "count keys": (overflow.COUNT_KEYS, {"task_live_keys"}),
    "oldest of keys": (overflow.OLDEST_OF_KEYS, {"task_live_keys"}),
    "rank anew": (steering.RERANK, {"task_live_pkey"}),
    "revive": (moves.REVIVE, {"task_done_failed_*_pkey"}),
    "existing": (moves.EXISTING, {"task_live_pkey", *_DONE}),
    "insert again": (moves.INSERT_AGAIN, _DONE),
}

ROWS: Final = 300_000
DAYS: Final = 60
BATCH: Final = 100
# A descent of an index takes 3 or 4 buffers, and a row that moves takes three of them: 16 where nothing is said here.
# What may be among the finished is looked for in each day since it was made.
BUFFERS_A_ROW: Final = {"insert again": 45, "revive": 3 * DAYS, "revive from today": 30}

# Every queue has rows of each state; the ids are in the order of their making, the ranks are not.
_FILL_LIVE: Final = """
    INSERT INTO asyncproc.task_live (id, rank, ready_at, created_at, lease, priority, attempt, max_attempts, backoff_s,
        backoff_factor, backoff_cap_s, backoff_jitter, state, type, queue, created_by, worker, payload)
    SELECT ('0' || to_hex(%(now)s * 1000::bigint - n) || '70008' || substr(md5(n::text), 1, 15))::uuid,
        CASE WHEN state IN ('queued', 'running') THEN %(now)s - n / 1000.0 - 60 * (n %% 7) END,
        to_timestamp(%(now)s - n / 1000.0), to_timestamp(%(now)s - n / 1000.0),
        CASE state WHEN 'running' THEN 1 ELSE 0 END, n %% 7, CASE state WHEN 'running' THEN 1 ELSE 0 END, 3, 1, 2, 60,
        0.1, state, 'send', 'q' || n %% 3, 'me', CASE state WHEN 'running' THEN 'w' END, '{"n": 1}'
    FROM (
        SELECT n, (ARRAY['queued', 'running', 'queued', 'scheduled', 'queued', 'retrying'])[1 + n / 3 %% 6] AS state
        FROM generate_series(1, %(rows)s) n
    ) s
"""
_FILL_DONE: Final = """
    INSERT INTO asyncproc.task_done (id, ready_at, created_at, finished_at, lease, priority, attempt, losses,
        max_attempts, backoff_s, backoff_factor, backoff_cap_s, backoff_jitter, state, type, queue, created_by, errors,
        payload)
    SELECT ('0' || to_hex((1000 * extract(epoch FROM at))::bigint) || '70008' || substr(md5(n::text), 1, 15))::uuid,
        at, at, at + interval '1 minute', 1, 0, 1, 0, 3, 1, 2, 60, 0.1,
        (ARRAY['succeeded', 'failed', 'cancelled'])[1 + n %% 3], 'send', 'q1', 'me', '{}', '{"n": 1}'
    FROM (SELECT n, now() - n * interval '60 days' / 100000 AS at FROM generate_series(1, 100000 - 100) n) s
"""


@dataclass(frozen=True, slots=True)
class Ids:
    """Rows from all over the tables."""

    queued: list[TaskId]
    running: list[TaskId]
    scheduled: list[TaskId]
    failed: list[TaskId]
    failed_today: list[TaskId]


@pytest.fixture(scope="module")
def large(databases: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """A database with 300,000 live tasks and 60 days of finished ones, about which nothing is known."""
    with databases() as database:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("ALTER TABLE asyncproc.task_live SET (autovacuum_enabled = off)")
            connection.execute(
                "SELECT asyncproc.make_partitions((now() - %s * interval '1 day')::date, %s, '{}')", [DAYS, DAYS + 4]
            )
            connection.execute(_FILL_LIVE.encode(), {"now": int(NOW), "rows": ROWS})
            connection.execute(_FILL_DONE.replace("%%", "%").encode())
        yield database


async def test_the_cycle_reads_by_index_whatever_is_known_about_the_table(storage: Storage, database: str) -> None:
    with psycopg.connect(hardened(database, "plans", WRITER_OPTIONS), autocommit=True) as connection:
        _all_by_index(connection, "empty")

        connection.execute("ALTER TABLE asyncproc.task_live SET (autovacuum_enabled = off)")
        states = [State.QUEUED, State.QUEUED, State.SCHEDULED, State.RUNNING]
        tasks = [a_task(states[n % 4], queue=f"q{n % 3}") for n in range(20_000)]
        await write(storage, inserts=tasks)
        running = [task for task in tasks if task.state is State.RUNNING]
        await write(storage, succeeded=[(task.id, 1, b"1") for task in running[:2000]])
        await write(storage, failed=[(task.id, 1, "Boom", ERROR) for task in running[2000:3000]])
        _all_by_index(connection, "fresh")

        connection.execute("ANALYZE")
        _all_by_index(connection, "analysed")


async def test_a_batch_on_a_large_table_reads_no_more_than_its_rows(large: str) -> None:
    ids = _sample(large)
    with psycopg.connect(hardened(large, "plans", WRITER_OPTIONS), autocommit=True) as planner:
        async with await open_writer(large) as connection:
            for known in ("nothing known", "analysed"):
                _all_by_index(planner, known)
                for name, statement in _batches(ids).items():
                    plan = await _run(connection, statement)
                    buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                    assert not _detours(_nodes(plan)), (known, name)
                    assert buffers <= BATCH * BUFFERS_A_ROW.get(name, 16), f"{known}: {name} reads {buffers} buffers"
                query(large, "ANALYZE asyncproc.task_live; ANALYZE asyncproc.task_done")


async def test_who_looks_at_a_few_of_many_reads_a_few(large: str) -> None:
    ids = _sample(large)
    with psycopg.connect(hardened(large, "plans", READER_OPTIONS), autocommit=True) as connection:
        for task_id in (ids.failed[0], ids.queued[0]):
            uuid, since = UUID(bytes=task_id), not_ended_before([task_id])
            for text, parameters in (
                (reads.RECORD, [uuid, uuid, since]),
                (pages.FINISHED_TASK, [LARGE_BYTES, uuid, since]),
            ):
                assert _buffers(connection, text, parameters) <= 4 * 3 * DAYS
        # None is over, and none is looked at.
        assert _buffers(connection, reads.OVERDUE, [LARGE_BYTES, NOW, 1_000, NOW, 1_000]) <= 16
        for state in (None, State.FAILED, State.QUEUED):
            asked = inspector.filter_parameters(TaskFilter(state=state)) | {
                "limit": 100,
                "before": UUID(int=2**128 - 1),
            }
            assert _buffers(connection, reads.RECORDS, asked) <= 4 * 3 * (DAYS + 4) + 100 * 16


async def test_who_goes_over_a_queue_reads_it_part_by_part(large: str) -> None:
    queue, none = "q1", UUID(int=0)
    with psycopg.connect(hardened(large, "plans", READER_OPTIONS), autocommit=True) as connection:
        for text, parameters in (
            (steering.READY, [queue, *inspector.FIRST_READY[:5], none, BATCH]),
            (steering.READY, [queue, "send", "", "", "", NOW - 500, none, BATCH]),
            (steering.NOT_READY, [queue, 0.0, none, BATCH]),
            (reads.SOME_COUNTS, [queue, BATCH, queue, BATCH]),
            (overflow.COUNT, [queue, BATCH, queue, BATCH]),
            (reads.SOME_COUNTS, ["no such", BATCH, "no such", BATCH]),
        ):
            assert _buffers(connection, text, parameters) <= BATCH * 16, text


def _sample(database: str) -> Ids:
    def some(text: str) -> list[TaskId]:
        return [row[0].bytes for row in query(database, f"SELECT id FROM asyncproc.{text} ORDER BY random() LIMIT 100")]

    live = {state: some(f"task_live WHERE state = '{state}'") for state in ("queued", "running", "scheduled")}
    today = some("task_done_failed WHERE finished_at > now() - interval '4 hours'")
    return Ids(live["queued"], live["running"], live["scheduled"], some("task_done_failed"), today)


def _batches(ids: Ids) -> dict[str, Statement]:
    """Each hot statement with a batch of rows from all over the tables."""
    writes = Writes(
        notes=[(task_id, 1, 1, b"{}", b"{}", b"{}") for task_id in ids.running],
        succeeded=[(task_id, 1, b"1") for task_id in ids.running],
        failed=[(task_id, 1, "Boom", ERROR) for task_id in ids.running],
        retried=[(task_id, 1, NOW, 0, "Boom", ERROR) for task_id in ids.running],
        requeued=[(task_id, 1, 0) for task_id in ids.running],
        revived=[(task_id, NOW, NOW) for task_id in ids.failed],
        came_due=[(task_id, NOW) for task_id in ids.scheduled],
        inserts=[a_task() for _ in range(BATCH)],
        claims=[(task_id, 1, 1, NOW, "w") for task_id in ids.queued],
    )
    batch = build(writes, NOW)
    statements = {
        **dict(zip(("note", "succeed", "fail", "retry", "requeue", "revive", "come due"), batch.ended, strict=True))
    }
    for name, statement in (
        ("claim", batch.after[0]),
        ("insert", build(Writes(inserts=writes.inserts[: COPY_FROM - 1]), NOW).insert),
        ("insert again", batch.insert_again()),
    ):
        assert statement is not None
        statements[name] = statement
    today = Writes(revived=[(task_id, NOW, NOW) for task_id in ids.failed_today])
    (statements["revive from today"],) = build(today, NOW).ended
    known = [*ids.queued[:50], *ids.failed[:50]]
    leases = [bigints([0] * BATCH), texts(["queued"] * BATCH)]
    reads: dict[str, tuple[LiteralString, list[Any]]] = {
        "existing": (moves.EXISTING, [uuids(known), uuids(known), not_ended_before(known)]),
        "agreeing": (moves.AGREEING, [uuids(ids.queued), *leases]),
        "checkpoints": (pages.CHECKPOINTS, [uuids(ids.queued)]),
        "payloads": (pages.PAYLOADS, [uuids(ids.queued)]),
        "live": (moves.LIVE, [uuids(ids.queued)]),
        "ready pages": (pages.READY_PAGES, [*_lane(float("-inf")), LARGE_BYTES, PAGE_BYTES]),
        "later ready pages": (pages.READY_PAGES, [*_lane(NOW - 500), LARGE_BYTES, PAGE_BYTES]),
        "due page": (pages.DUE_PAGE, [LARGE_BYTES, 0.0, str(UUID(int=0)), BATCH, PAGE_BYTES]),
        "lanes": (pages.LANES, []),
    }
    return statements | {name: Statement(text, parameters, 0) for name, (text, parameters) in reads.items()}


def _lane(after_rank: float) -> list[PgArray]:
    """Where a page of one lane begins, and how many rows it may have."""
    return [
        texts(["q1"]),
        texts(["send"]),
        texts([""]),
        texts([""]),
        texts([""]),
        floats([after_rank]),
        uuids([bytes(16)]),
        ints([BATCH]),
    ]


async def _run(connection: Connection, statement: Statement) -> dict[str, Any]:
    """The generic plan, as it ran; what it changed is taken back."""
    await connection.execute(f"PREPARE hot AS {_numbered(statement.text)}".encode())
    literals = ", ".join([await _literal(connection, value) for value in statement.parameters])
    arguments = f"({literals})" if literals else ""
    await connection.execute("BEGIN")
    rows = await connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot{arguments}".encode())
    found: Any = (await rows.fetchall())[0][0]
    # This makes psycopg forget all that is prepared, and the server too.
    await connection.execute("ROLLBACK")
    plan: dict[str, Any] = found[0]["Plan"]
    return plan


async def _literal(connection: Connection, value: PgArray | float) -> str:
    rows = await connection.execute("SELECT quote_literal(%s::text)", [value])
    return str((await rows.fetchall())[0][0])


def _buffers(connection: psycopg.Connection[tuple[Any, ...]], text: LiteralString, parameters: Any) -> int:
    rows = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}".encode(), parameters).fetchall()
    plan = rows[0][0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _all_by_index(connection: psycopg.Connection[tuple[Any, ...]], table: str) -> None:
    for name, (text, indexes) in BY_INDEX.items():
        rows = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {_numbered(text)}".encode()).fetchall()
        nodes = list(_nodes(rows[0][0][0]["Plan"]))
        used = {re.sub(r"_\d{6,8}_", "_*_", node["Index Name"]) for node in nodes if "Index Name" in node}
        assert (name, _detours(nodes), used) == (name, [], indexes), f"{table}: {json.dumps(nodes, indent=1)}"


def _numbered(text: LiteralString) -> str:
    numbers = count(1)
    first, *rest = text.split("%s")
    return first + "".join(f"${next(numbers)}{part}" for part in rest)


def _detours(nodes: Any) -> list[str]:
    return [kind for node in nodes if (kind := node["Node Type"]).startswith(("Seq", "Bitmap", "Sort", "Incremental"))]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {name: value for name, value in plan.items() if name != "Plans"}
    for child in plan.get("Plans", []):
        yield from _nodes(child)
