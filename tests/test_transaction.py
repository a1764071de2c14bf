"""Enqueueing with a connection of the caller's, as far as it needs no system: what is sent, and what is refused."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row, scalar_row
from pydantic import Field, ValidationError

from asyncproc import Processable, TaskContext, enqueue, enqueue_async, task
from asyncproc.storage import requests
from asyncproc.storage.cycle import Storage
from tests.storage.table import PAGE_BYTES, query


class Greet(Processable):
    first_name: str = Field(min_length=1)


@task(name="Add")
def add(a: int, b: int, ctx: TaskContext) -> int:
    return a + b


@pytest.fixture
async def known(database: str) -> None:
    storage = Storage(database, PAGE_BYTES)
    await storage.take_over()
    await storage.between(requests.know_types, {"Greet": "default", "Add": "default"}, 1_000)
    await storage.close()


@pytest.mark.usefixtures("known")
def test_every_way_to_say_a_task_comes_to_the_same(database: str) -> None:
    with psycopg.connect(database) as connection:
        ids = [
            enqueue(connection, Greet(first_name="Ada"), queue="q", delay=60, timeout=timedelta(seconds=2)),
            enqueue(connection, Greet, {"firstName": "Ada"}, priority=None),
            enqueue(connection.cursor(), "Greet", {"firstName": "Ada"}, priority=3, created_by="me"),
            enqueue(connection, add, {"a": 1, "b": 2}),
        ]
    rows = query(
        database,
        "SELECT id::text, type, payload::text, queue, timeout_s, priority, created_by, ready_at > now()"
        " FROM asyncproc.task_request ORDER BY id",
    )
    ada = '{"firstName":"Ada"}'
    assert rows == [
        (ids[0], "Greet", ada, "q", 2.0, None, "", True),
        (ids[1], "Greet", ada, None, None, None, "", None),
        (ids[2], "Greet", ada, None, None, 3, "me", None),
        (ids[3], "Add", '{"a":1,"b":2}', None, None, None, "", None),
    ]


@pytest.mark.usefixtures("known")
async def test_an_asynchronous_connection_is_awaited(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        with pytest.raises(TypeError, match="await asyncproc"):
            enqueue(connection, Greet(first_name="Ada"))
        first = await enqueue_async(connection, Greet(first_name="Ada"))
        await connection.rollback()
        second = await enqueue_async(connection, Greet(first_name="Bob"))
        assert first < second
    assert query(database, "SELECT id::text FROM asyncproc.task_request") == [(second,)]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("factory", [dict_row, namedtuple_row, scalar_row])
def test_whatever_a_connection_makes_of_rows_there_is_an_id(database: str, factory: Any) -> None:
    with psycopg.connect(database, row_factory=factory) as connection:
        made = enqueue(connection, Greet(first_name="Ada"))
    assert query(database, "SELECT id::text FROM asyncproc.task_request") == [(made,)]


class _NoDatabase:
    def execute(self, *_: object) -> object:
        raise AssertionError("it was sent")


CONNECTION = _NoDatabase()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: enqueue(CONNECTION, Greet, {"firstName": ""}), ValidationError, "firstName"),
        (lambda: enqueue(CONNECTION, Greet.model_construct(first_name="")), ValidationError, "firstName"),
        (lambda: enqueue(CONNECTION, add, {"a": 1}), ValidationError, "b\n"),
        (lambda: enqueue(CONNECTION, Greet(first_name="Ada"), {}), TypeError, "its own payload"),
        (lambda: enqueue(CONNECTION, print), TypeError, "is no task"),
        (lambda: enqueue(CONNECTION, "Greet", queue="no queue"), ValueError, "queue is 'no queue'"),
        (lambda: enqueue(CONNECTION, "Greet", priority=101), ValueError, "from -100 to 100"),
        (lambda: enqueue(CONNECTION, "Greet", run_at=datetime(2026, 1, 1)), ValueError, "time zone"),  # noqa: DTZ001
        (lambda: enqueue(CONNECTION, "Greet", resources={"GPU": 1}), ValueError, "'GPU' is no resource"),
        (
            lambda: enqueue(CONNECTION, "Greet", depends_on=["x"]),
            ValueError,
            "depends_on is .*: it must be ids of tasks",
        ),
        (lambda: enqueue(CONNECTION, "Greet", retries=3), TypeError, "retries is no option"),  # type: ignore[call-arg]
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
