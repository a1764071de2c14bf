import asyncio

import pytest

from asyncproc.actors.inbox import FEWEST_ROWS_A_CYCLE, LONGEST_CYCLE_S, MAX_BYTES_A_CYCLE, MAX_ROWS_A_CYCLE, Inbox
from asyncproc.core.decision import EnqueueReply
from asyncproc.core.events import Draining, Enqueued, Event, Polled, RetryAsked
from asyncproc.core.retry import constant
from asyncproc.core.task import NO_TERMS, NewTask, Options
from asyncproc.errors import Overloaded, StorageUnavailable

OPTIONS = Options("Note", "default", 0, constant(1, 0), "")
AWAY = StorageUnavailable("gone")


def tasks(number: int) -> list[NewTask]:
    return [(n.to_bytes(16), b"{}", OPTIONS, 0.0, NO_TERMS) for n in range(number)]


def an_inbox(max_rows: int = 100, max_bytes: int = 1 << 30) -> Inbox:
    return Inbox(max_rows, max_bytes)


async def asked(inbox: Inbox, number: int = 1) -> "asyncio.Task[object]":
    """A call that waits for its answer."""
    call = asyncio.create_task(_enqueue(inbox, number))
    await asyncio.sleep(0)
    return call


async def _enqueue(inbox: Inbox, number: int) -> object:
    return await inbox.ask(lambda ticket: Enqueued(ticket, tasks(number)))


def tickets(events: list[Event]) -> list[int]:
    return [event.ticket for event in events if isinstance(event, Enqueued | Polled | RetryAsked)]


async def test_each_call_gets_the_answer_to_its_own_ticket() -> None:
    inbox = an_inbox()
    first, second = await asked(inbox), await asked(inbox)
    one, other = tickets(await inbox.gather(None))

    inbox.answer(EnqueueReply(other))
    inbox.answer(EnqueueReply(one))

    assert await first == EnqueueReply(one)
    assert await second == EnqueueReply(other)


async def test_events_are_gathered_in_the_order_they_came() -> None:
    inbox = an_inbox()
    await asked(inbox)
    inbox.post(Draining())
    await asked(inbox)

    assert [type(event) for event in await inbox.gather(None)] == [Enqueued, Draining, Enqueued]


async def test_gathering_waits_until_something_is_there() -> None:
    inbox = an_inbox()
    gathering = asyncio.create_task(inbox.gather(None))
    await asyncio.sleep(0)
    assert not gathering.done()

    inbox.post(Draining())

    assert await gathering == [Draining()]


async def test_gathering_returns_with_nothing_when_the_time_is_over() -> None:
    assert await an_inbox().gather(0.0) == []


async def test_an_answer_for_a_call_that_was_given_up_is_no_error() -> None:
    inbox = an_inbox()
    call = await asked(inbox)
    (ticket,) = tickets(inbox.take())
    call.cancel()
    await asyncio.wait([call])

    inbox.answer(EnqueueReply(ticket))
    inbox.refuse(ticket, AWAY)


async def test_past_its_limit_new_tasks_are_refused_and_reports_are_not() -> None:
    inbox = an_inbox(max_rows=10)
    await asked(inbox, 8)

    with pytest.raises(Overloaded) as refusal:
        await inbox.ask(lambda ticket: Enqueued(ticket, tasks(3)))
    report = asyncio.create_task(inbox.ask(lambda ticket: Polled(ticket, "w", 1, [])))
    promised = asyncio.create_task(inbox.ask(lambda ticket: Enqueued(ticket, tasks(3), requested=True)))
    await asyncio.sleep(0)

    assert refusal.value.waiting == 8
    assert [type(event) for event in inbox.take()] == [Enqueued, Polled, Enqueued]
    report.cancel()
    promised.cancel()


async def test_a_call_larger_than_the_limit_is_taken_when_nothing_waits() -> None:
    inbox = an_inbox(max_rows=10)

    await asked(inbox, 50)

    assert len(inbox.take()) == 1


async def test_what_was_taken_makes_room_again() -> None:
    inbox = an_inbox(max_rows=10)
    await asked(inbox, 10)
    inbox.take()

    await asked(inbox, 10)

    assert len(inbox.take()) == 1


async def test_one_cycle_takes_no_more_than_one_commit_may_carry() -> None:
    inbox = an_inbox(max_rows=10 * MAX_ROWS_A_CYCLE)
    for _ in range(3):
        await asked(inbox, MAX_ROWS_A_CYCLE)

    assert [len(await inbox.gather(None)) for _ in range(3)] == [1, 1, 1]


async def test_what_a_task_enqueued_counts_as_much_as_what_a_client_did() -> None:
    inbox = an_inbox()
    for _ in range(2):
        inbox.post(Polled(0, "w", 1, [(b"1", 1, True, b"null", "", 0.0, 0.0, tasks(MAX_ROWS_A_CYCLE))]))

    assert [len(await inbox.gather(None)) for _ in range(2)] == [1, 1]


async def test_clients_are_turned_away_and_workers_are_kept() -> None:
    inbox = an_inbox(max_rows=10)
    client = await asked(inbox, 10)
    report = asyncio.create_task(inbox.ask(lambda ticket: Polled(ticket, "w", 1, [])))
    await asyncio.sleep(0)

    inbox.refuse_requests(AWAY)

    with pytest.raises(StorageUnavailable):
        await client
    assert [type(event) for event in inbox.take()] == [Polled]
    await asked(inbox, 10)
    report.cancel()


async def test_a_flush_returns_after_all_that_was_posted_before_it() -> None:
    inbox = an_inbox()
    inbox.post(Draining())
    flush = asyncio.create_task(inbox.flush())
    await asyncio.sleep(0)
    events = inbox.take()

    assert isinstance(events[0], Draining)
    assert not flush.done()
    inbox.answer(EnqueueReply(tickets(events)[-1]))
    await flush


async def test_past_its_bytes_new_tasks_are_refused() -> None:
    inbox = an_inbox(max_bytes=10)
    waiting = await asked(inbox, 4)

    with pytest.raises(Overloaded):
        await _enqueue(inbox, 2)

    waiting.cancel()


async def test_one_cycle_takes_no_more_bytes_than_one_commit_may_carry() -> None:
    inbox = an_inbox()
    no_children: list[NewTask] = []
    large = (b"0" * 16, 1, True, b"x" * MAX_BYTES_A_CYCLE, "", 0.0, 0.0, no_children)
    for _ in range(3):
        inbox.post(Polled(0, "w", 1, [large]))

    assert [len(inbox.take()) for _ in range(4)] == [1, 1, 1, 0]


async def test_a_cycle_that_took_long_makes_the_next_one_smaller_but_not_too_small() -> None:
    inbox = an_inbox(max_rows=100 * MAX_ROWS_A_CYCLE)
    calls = [await asked(inbox, 100) for _ in range(400)]
    first = inbox.take()
    inbox.pace(10 * LONGEST_CYCLE_S)

    assert len(first) * 100 == MAX_ROWS_A_CYCLE
    assert len(inbox.take()) * 100 == MAX_ROWS_A_CYCLE // 10
    inbox.pace(1_000 * LONGEST_CYCLE_S)
    assert len(inbox.take()) * 100 == FEWEST_ROWS_A_CYCLE
    for call in calls:
        call.cancel()
