"""What callers ask for in transactions of their own: checked at once, kept by their commit, made a task once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from asyncproc.clock import wall_now
from asyncproc.core.decision import Writes
from asyncproc.core.rank import MAX_PRIORITY, MIN_PRIORITY
from asyncproc.core.retry import MAX_BACKOFF_S
from asyncproc.core.shape import shape_text
from asyncproc.core.task import MAX_DELAY_S, MAX_KEY, MAX_PARENTS, MAX_TIMEOUT_S, QUEUE_NAME, TaskId
from asyncproc.errors import StorageUnavailable
from asyncproc.storage import migrate as migrations
from asyncproc.storage import requests
from asyncproc.storage.batch import COPY_FROM, build
from asyncproc.storage.connection import READER_OPTIONS, hardened
from asyncproc.storage.cycle import Committed, Storage
from asyncproc.storage.inspector import Inspector
from asyncproc.storage.requests import Bell
from asyncproc.storage.statements.requests import REFUSE, WAITING
from asyncproc.transaction import Options
from tests.storage.table import a_task, done, live, query, write, write_again

MOST_BYTES: Final = 1_000


@pytest.fixture
async def inspector(database: str) -> AsyncIterator[Inspector]:
    inspector = Inspector(database)
    await inspector.open()
    yield inspector
    await inspector.close()


@pytest.fixture
async def known(storage: Storage) -> None:
    await storage.between(requests.know_types, {"greet": "default", "send": "mail"}, MOST_BYTES)


def ask(database: str, arguments: str = "'greet'", *parameters: object) -> TaskId:
    made: UUID = query(database, f"SELECT asyncproc.enqueue({arguments})", *parameters)[0][0]
    return made.bytes


def asked(database: str) -> list[TaskId]:
    return [row[0].bytes for row in query(database, "SELECT id FROM asyncproc.task_request ORDER BY id")]


@pytest.mark.usefixtures("known")
async def test_what_is_asked_for_is_read_as_it_was_said(database: str, inspector: Inspector) -> None:
    arguments = (
        "'send', '{\"a\": 1e5000}', queue => 'q', priority => 3, delay => '1 hour', start_by => now() + '2 hours',"
        " deadline => now() + '3 hours', timeout => '5s', soft_timeout => '4s', back_off => '1s',"
        " concurrency_key => 'c', fairness_key => 'f', created_by => 'me', affinity_key => 'a',"
        ' resources => \'{"num_gpus": 0.5, "memory": "2GiB"}\', depends_on => ARRAY[%s, %s]::uuid[],'
        " on_parent_failure => 'run'"
    )
    plain = ask(database)
    full = ask(database, arguments, UUID(bytes=plain), UUID(bytes=plain))

    one, two = await requests.waiting(inspector, 10, MOST_BYTES)

    now = wall_now()
    assert list(one) == [plain, b"{}", "greet", *[None] * 5, "", "", "", "", None, 0, 0, 0, None, None]
    assert list(two)[:11] == [full, b'{"a": 1e5000}', "send", "q", 3, 1.0, 5.0, 4.0, "c", "f", "me"]
    assert (two.affinity_key, two.resources) == ("a", "gpu0.5-mem2GiB")
    assert (two.depends_on, two.on_parent_failure) == ([UUID(bytes=plain)] * 2, "run")
    assert [at - now for at in two[13:16]] == [pytest.approx(hours * 3600, abs=60) for hours in (1, 2, 3)]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("placeholder", "payload"),
    [
        ("'{\"n\": 1}'", None),
        ("'{\"n\": 1}'::text", None),
        ("json_build_object('n', 1)", None),
        ("jsonb_build_object('n', 1)", None),
        ("%s", '{"n": 1}'),
        ("%s", Jsonb({"n": 1})),
    ],
)
async def test_a_payload_is_json_in_whatever_type(
    database: str, inspector: Inspector, placeholder: str, payload: object
) -> None:
    ask(database, f"'greet', {placeholder}", *([] if payload is None else [payload]))
    (request,) = await requests.waiting(inspector, 10, MOST_BYTES)
    assert request.payload.replace(b" ", b"") == b'{"n":1}'


@pytest.mark.usefixtures("known")
async def test_ids_are_of_their_time_and_in_the_order_of_the_calls(database: str) -> None:
    rows = query(database, "SELECT asyncproc.enqueue('greet') FROM generate_series(1, 500)")
    ids = [row[0] for row in rows]

    assert ids == sorted(set(ids))
    assert {(made.version, made.variant) for made in ids} == {(7, "specified in RFC 4122")}
    assert int.from_bytes(ids[0].bytes[:6]) / 1000 == pytest.approx(wall_now(), abs=60)


BAD: Final[dict[str, tuple[str, str]]] = {
    "no type": ("NULL", "task_type is null: known are greet, send"),
    "unknown type": ("'nope'", "task_type is 'nope': known are greet, send"),
    "not JSON": ("'greet', '{'", "payload: invalid input syntax"),
    "not an object": ("'greet', '[]'", "payload is array: it must be a JSON object"),
    "null": ("'greet', NULL", "payload is null: it must be a JSON object"),
    "another type": ("'greet', 1", "payload is of type integer: it must be json, jsonb or text"),
    "a NUL": (r"""'greet', '{"a": "\u0000"}'""", "payload: unsupported Unicode escape"),
    "half a character": (r"""'greet', '{"a": "\ud800"}'""", "payload: invalid input syntax"),
    "too large": (f"'greet', json_build_object('a', repeat('x', {MOST_BYTES}))", "payload is 1010 bytes: at most 1000"),
    "queue": ("'greet', queue => 'no queue'", "queue is 'no queue': it must match"),
    "priority": (f"'greet', priority => {MAX_PRIORITY + 1}", "priority is 101: it must be from -100 to 100"),
    "low priority": (f"'greet', priority => {MIN_PRIORITY - 1}", "priority is -101: it must be from -100 to 100"),
    "negative delay": ("'greet', delay => '-1s'", "delay is -00:00:01: it must be between 0 and"),
    "endless delay": ("'greet', delay => 'infinity'", "delay is infinity: it must be between 0 and"),
    "delay and run_at": ("'greet', delay => '1s', run_at => now()", "run_at stands beside delay"),
    "far run_at": ("'greet', run_at => 'infinity'", "run_at is more than a year ahead"),
    "early start_by": ("'greet', delay => '1h', start_by => now()", "start_by must not be before"),
    "early deadline": ("'greet', start_by => now() + '1h', deadline => now() + '1s'", "deadline must not be before"),
    "timeout": ("'greet', timeout => '400 days'", "timeout is 400 days: it must be between 0 and 3"),
    "soft timeout": ("'greet', soft_timeout => '-1s'", "soft_timeout is"),
    "back-off": ("'greet', back_off => '2 days'", "back_off is 2 days: it must be between 0 and 86400"),
    "key": (f"'greet', concurrency_key => repeat('x', {MAX_KEY + 1})", "concurrency_key is 201 characters"),
    "fairness key": (f"'greet', fairness_key => repeat('x', {MAX_KEY + 1})", "fairness_key is 201 characters"),
    "draining": ("'greet', queue => 'closed'", "queue closed drains"),
    "affinity key": (f"'greet', affinity_key => repeat('x', {MAX_KEY + 1})", "affinity_key is 201 characters"),
    "resources": ("'greet', resources => '[]'", "resources is array: it must be a JSON object"),
    "no parent": (
        "'greet', depends_on => ARRAY['01900000-0000-7000-8000-000000000000']::uuid[]",
        "depends_on: there is no task 01900000-0000-7000-8000-000000000000",
    ),
    "null parent": ("'greet', depends_on => ARRAY[NULL]::uuid[]", "depends_on has a null: it must be ids of tasks"),
    "many parents": (
        f"'greet', depends_on => array_fill(gen_random_uuid(), ARRAY[{MAX_PARENTS + 1}])",
        f"depends_on has {MAX_PARENTS + 1} ids: at most {MAX_PARENTS} are allowed",
    ),
    "parent failure": (
        "'greet', on_parent_failure => 'stop'",
        "on_parent_failure is 'stop': it must be fail, skip or run",
    ),
    "no parents": ("'greet', on_parent_failure => 'run'", "on_parent_failure is for tasks with depends_on"),
}


@pytest.mark.usefixtures("known")
def test_what_cannot_become_a_task_fails_the_callers_transaction_and_says_why(database: str) -> None:
    query(database, "INSERT INTO asyncproc.draining VALUES ('closed', now())")
    for case, (arguments, message) in BAD.items():
        with pytest.raises(psycopg.Error) as refusal:
            ask(database, arguments)
        assert f"asyncproc.enqueue: {message}" in str(refusal.value), case
    assert asked(database) == []


@pytest.mark.usefixtures("known")
def test_the_bounds_are_those_of_all_other_tasks(database: str) -> None:
    for priority in (MIN_PRIORITY, MAX_PRIORITY):
        ask(database, f"'greet', priority => {priority}, concurrency_key => repeat('x', {MAX_KEY})")
    bounds = {"delay": MAX_DELAY_S, "timeout": MAX_TIMEOUT_S, "soft_timeout": MAX_TIMEOUT_S, "back_off": MAX_BACKOFF_S}
    for name, most in bounds.items():
        ask(database, f"'greet', {name} => make_interval(secs => {most})")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"{name} is"):
            ask(database, f"'greet', {name} => make_interval(secs => {most + 1})")
    assert f"'{QUEUE_NAME}'" in query(database, "SELECT prosrc FROM pg_proc WHERE proname = 'enqueue'")[0][0]


SHAPES: Final[tuple[dict[str, object], ...]] = (
    {}, {"num_cpus": 0}, {"numCpus": 2, "num_gpus": 0.25}, {"num_gpus": 1.5}, {"numGpus": 4}, {"num_cpus": -1},
    {"num_cpus": 100_001}, {"num_cpus": 0.00001}, {"num_cpus": "2"}, {"num_cpus": True}, {"num_cpus": None},
    {"memory": 1}, {"memory": "1.5GiB"}, {"memory": "1024 MiB"}, {"memory": "2 tib"}, {"memory": "2XB"}, {"memory": -1},
    {"memory": "1TB"}, {"memory": "2000TiB"}, {"memory": 1.5}, {"memory": 0}, {"memory": [1]}, {"GPU": 1}, {"a b": 1},
    {"license": 1, "Z": 0.5, "a": 2, "z": 0}, {f"r{n}": 1 for n in range(8)}, {f"r{n}": 1 for n in range(9)},
    {f"{n}" * 50: 1 for n in "abcdefg"}, {"license": {}}, {"license": "1"},
)  # fmt: skip


def test_resources_come_to_the_same_text_in_sql(database: str) -> None:
    for asked in SHAPES:
        try:
            expected = shape_text(asked)
        except ValueError:
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="resources: "):
                query(database, "SELECT asyncproc.shape_text(%s)", Jsonb(asked))
        else:
            assert query(database, "SELECT asyncproc.shape_text(%s)", Jsonb(asked)) == [(expected,)], asked


def test_sql_takes_what_python_takes(database: str) -> None:
    (names,) = query(database, "SELECT proargnames FROM pg_proc WHERE oid = 'asyncproc.enqueue'::regproc")[0]
    assert set(names) == {"task_type", "payload", *Options.__annotations__}


async def test_callers_of_the_release_before_go_on(empty_database: str) -> None:
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
        await migrations._apply(connection, {n: text for n, text in migrations._files().items() if n < 19})
    database = empty_database
    know = "INSERT INTO asyncproc.task_type VALUES ('greet', 'default', 1000);"
    query(database, f"{know} CREATE ROLE clerk; GRANT EXECUTE ON FUNCTION asyncproc.enqueue TO clerk WITH GRANT OPTION")
    try:
        query(database, "CREATE VIEW made AS SELECT asyncproc.enqueue('greet', queue => 'q') AS id")
        await migrations.migrate(database)
        granted = "SELECT has_function_privilege('clerk', oid, 'EXECUTE WITH GRANT OPTION'), has_function_privilege("
        rows = query(
            database, f"{granted}'public', oid, 'EXECUTE') FROM pg_proc WHERE oid = 'asyncproc.enqueue'::regproc"
        )
        assert rows == [(True, False)]
        made = query(database, "SELECT id FROM made")[0][0].bytes
        assert asked(database) == [made]
        query(database, REFUSE, [UUID(bytes=made)], ["why"])
        assert query(database, "SELECT queue, cause FROM asyncproc.task_refused") == [("q", "why")]
    finally:
        query(database, "DROP OWNED BY clerk; DROP ROLE clerk")


@pytest.mark.usefixtures("known")
def test_a_caller_needs_the_function_and_no_table(database: str) -> None:
    query(database, "CREATE ROLE shop LOGIN; GRANT USAGE ON SCHEMA asyncproc TO shop")
    theirs = make_conninfo(database, user="shop")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(theirs)
        query(database, "GRANT EXECUTE ON FUNCTION asyncproc.enqueue TO shop")
        # What they may make themselves must not stand in the place of what we mean.
        query(database, "CREATE SCHEMA shop AUTHORIZATION shop")
        query(theirs, "CREATE FUNCTION shop.json_typeof(json) RETURNS text LANGUAGE sql AS $$SELECT 'theirs'$$")
        made = ask(make_conninfo(theirs, options="-c search_path=shop,pg_catalog"))
        assert asked(database) == [made]
        query(
            theirs,
            "CREATE TYPE shop.note AS (a int);"
            " CREATE FUNCTION shop.cast_it(shop.note) RETURNS text LANGUAGE sql AS $$SELECT current_user::text$$;"
            " CREATE CAST (shop.note AS text) WITH FUNCTION shop.cast_it AS ASSIGNMENT",
        )
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"payload is of type shop\.note"):
            ask(theirs, "'greet', ROW(1)::shop.note")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(theirs, "SELECT * FROM asyncproc.task_request")
    finally:
        query(database, "DROP OWNED BY shop CASCADE; DROP ROLE shop")


@pytest.mark.usefixtures("known")
async def test_a_commit_rings_and_a_rollback_leaves_nothing(database: str, inspector: Inspector) -> None:
    bell = Bell(database)
    listening = asyncio.create_task(bell.listen())
    await bell.wait(10)  # it listens
    with psycopg.connect(database) as caller:
        caller.execute("SELECT asyncproc.enqueue('greet')")
        assert await requests.waiting(inspector, 10, MOST_BYTES) == []
        caller.rollback()
        caller.execute("SELECT asyncproc.enqueue('greet'), asyncproc.enqueue('send')")
        caller.commit()
    async with asyncio.timeout(10):
        await bell._rung.wait()
    assert [request.type for request in await requests.waiting(inspector, 10, MOST_BYTES)] == ["greet", "send"]

    await bell.wait(10)
    query(database, "SET asyncproc.notify = off; SELECT asyncproc.enqueue('greet')")
    assert not bell._rung.is_set()
    # It is heard again on a new connection, and what came meanwhile is not overlooked.
    query(
        database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asyncproc-listen'"
    )
    async with asyncio.timeout(10):
        await bell._rung.wait()
    listening.cancel()


@pytest.mark.usefixtures("known")
async def test_a_page_is_bounded_by_rows_and_bytes_and_never_empty(database: str, inspector: Inspector) -> None:
    ids = [ask(database, f"'greet', json_build_object('n', repeat('x', {size}))") for size in (500, 500, 1)]

    async def page(most: int, most_bytes: int) -> list[TaskId]:
        return [request.id for request in await requests.waiting(inspector, most, most_bytes)]

    assert await page(2, 10_000) == ids[:2]
    assert await page(10, 600) == ids[:2]
    assert await page(10, 1) == ids[:1]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("size", [3, COPY_FROM])
async def test_the_task_and_the_end_of_its_request_are_one_commit(storage: Storage, database: str, size: int) -> None:
    tasks = [a_task() for _ in range(size)]
    for task, made in zip(tasks, [ask(database) for _ in range(size)], strict=True):
        task.id = made
    writes: dict[str, Any] = {"requests": [(task.id,) for task in tasks], "inserts": tasks}
    other = ask(database)

    assert await write(storage, **writes) == Committed()
    assert live(database).keys() == {task.id for task in tasks}
    assert asked(database) == [other]

    # The answer was lost, and a task has ended by the time of the replay: it is not made again.
    await write(storage, claims=[(tasks[0].id, 1, 1, tasks[0].rank, "w")])
    await write(storage, succeeded=[(tasks[0].id, 1, b"1")])
    again = await write_again(storage, **writes)
    assert again.refused == [tasks[0].id]
    assert live(database).keys() == {task.id for task in tasks[1:]}
    assert done(database).keys() == {tasks[0].id}


@pytest.mark.usefixtures("known")
async def test_wherever_the_commit_breaks_there_is_a_request_or_a_task(storage: Storage, database: str) -> None:
    broken = 0
    for number in range(25):
        task = a_task()
        task.id = ask(database)
        batch = build(Writes(requests=[(task.id,)], inserts=[task]), task.created_at)

        async def cut_off(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            with suppress(psycopg.Error):
                query(
                    database,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asyncproc-queue'"
                    " AND datname = current_database()",
                )

        cutting = asyncio.create_task(cut_off(number))
        replay = False
        while True:
            try:
                committed = await storage.commit(batch, [], replay)
                break
            except StorageUnavailable:
                broken, replay = broken + 1, True
                # Never both, never neither.
                assert len({*asked(database), *live(database)} & {task.id}) == 1
                assert (task.id in asked(database)) != (task.id in live(database))
        await cutting
        await storage.close()
        assert committed == Committed()
        assert asked(database) == []
        assert task.id in live(database)
    assert broken > 3


@pytest.mark.usefixtures("known")
async def test_a_request_of_which_no_task_can_be_kept_stays_and_hinders_nobody(
    storage: Storage, database: str, inspector: Inspector
) -> None:
    bad, good = a_task(payload=b"{"), a_task()
    bad.id, good.id = ask(database), ask(database)

    committed = await write(storage, requests=[(bad.id,), (good.id,)], inserts=[bad, good])

    assert committed.rejected.keys() == {bad.id}
    assert (asked(database), [*live(database)]) == ([bad.id], [good.id])
    await storage.between(requests.refuse, committed.rejected)
    assert await requests.waiting(inspector, 10, MOST_BYTES) == []
    ((refused, cause),) = query(database, "SELECT id, cause FROM asyncproc.task_refused")
    assert refused.bytes == bad.id
    assert "json" in cause


@pytest.mark.usefixtures("known")
def test_the_first_requests_are_found_without_reading_the_others(database: str) -> None:
    query(database, "SELECT count(asyncproc.enqueue('greet')) FROM generate_series(1, 40000)")
    with psycopg.connect(hardened(database, "reader", READER_OPTIONS)) as reader:
        for analysed in (False, True):
            if analysed:
                query(database, "ANALYZE asyncproc.task_request")
            plan = str(reader.execute(f"EXPLAIN {WAITING}".encode(), [2_000, 1 << 24]).fetchall())
            assert "Index Scan using task_request_pkey" in plan
            assert "Seq Scan" not in plan


async def test_types_are_those_of_the_reign(storage: Storage, database: str) -> None:
    await storage.between(requests.know_types, {"old": "a", "same": "b"}, 10)
    await storage.between(requests.know_types, {"same": "c", "new": "d"}, 20)
    assert query(database, "SELECT * FROM asyncproc.task_type ORDER BY 1") == [("new", "d", 20), ("same", "c", 20)]
