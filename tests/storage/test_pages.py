import itertools

import pytest

from asyncproc.core.decision import Key, PageWanted, Writes
from asyncproc.core.events import Page
from asyncproc.core.states import State
from asyncproc.core.task import Task, TaskId
from asyncproc.storage.batch import build
from asyncproc.storage.cycle import Storage
from tests.storage.table import ERROR, LANE, NOW, START, a_task, claim, page, query, write


def backlog() -> list[Task]:
    """Ready tasks, many of one rank, whose ids stand in another order than their ranks."""
    return [a_task(rank=float(n * 7 % 5) - 2.0) for n in range(60)]


def order(tasks: list[Task]) -> list[TaskId]:
    return [task.id for task in sorted(tasks, key=lambda task: (task.rank, task.id))]


async def pages(storage: Storage, queue: str | None, limit: int) -> list[Page]:
    """All pages, each from where the one before ended."""
    found: list[Page] = []
    after: Key = START
    while not found or not found[-1].complete:
        found += (await storage.commit(None, [PageWanted(queue, LANE, after, limit)], False)).pages
        after = found[-1].last or after
        assert len(found) < 200
    return found


async def test_pages_join_to_the_rank_order(storage: Storage) -> None:
    tasks = backlog()
    await write(storage, inserts=tasks)

    for limit in (1, 7, 59, 60, 61, 1000):
        found = await pages(storage, "mail", limit)

        assert [task.id for page in found for task in page.tasks] == order(tasks), limit
        assert all(len(page.tasks) <= limit for page in found)


async def test_due_pages_join_to_the_order_of_the_instants(storage: Storage) -> None:
    # A microsecond apart, many at one instant.
    instants = [round(NOW + n * 7 % 5 * 1e-6, 6) for n in range(60)]
    tasks = [a_task(State.SCHEDULED, ready_at=at) for at in instants]
    tasks += [a_task(State.RETRYING, ready_at=at) for at in instants]
    await write(storage, inserts=[*tasks, a_task()])
    expected = sorted((task.ready_at, task.id) for task in tasks)

    for limit in (1, 7, 1000):
        found = await pages(storage, None, limit)

        assert [(task.ready_at, task.id) for page in found for task in page.tasks] == expected, limit


async def test_a_page_holds_the_ready_of_its_queue_alone(storage: Storage) -> None:
    ready, running, claimed = a_task(), a_task(State.RUNNING), a_task()
    await write(storage, inserts=[ready, running, claimed, a_task(State.SCHEDULED), a_task(queue="other")])
    await write(storage, claims=[claim(claimed)])

    assert [task.id for task in await page(storage, "mail")] == [ready.id]


async def test_a_page_is_read_after_the_commit(storage: Storage) -> None:
    task = a_task()

    committed = await storage.commit(build(Writes(inserts=[task]), NOW), [PageWanted("mail", LANE, START, 5)], False)

    assert [found.id for found in committed.pages[0].tasks] == [task.id]


@pytest.mark.parametrize("size", [10, 90, 3000])
async def test_pages_are_bounded_in_bytes_and_still_complete(database: str, size: int) -> None:
    bound = 1000
    storage = Storage(database, bound)
    await storage.take_over()
    for queue, state in (("mail", State.QUEUED), (None, State.SCHEDULED)):
        tasks = [a_task(state, payload=b'"%s"' % (b"x" * size)) for _ in range(25)]
        await write(storage, inserts=tasks)

        found = await pages(storage, queue, 1000)

        assert [task.id for page in found for task in page.tasks] == [task.id for task in tasks]
        assert all(sum(len(task.payload) for task in page.tasks[:-1]) < bound for page in found)
    await storage.close()


async def test_an_unknown_queue_has_one_empty_page(storage: Storage) -> None:
    assert await pages(storage, "nowhere", 10) == [Page("nowhere", LANE, [], None, True)]


async def test_an_instant_comes_back_to_the_microsecond(storage: Storage) -> None:
    instants = [round(NOW + seconds, 6) for seconds in (0.0, 1e-6, 0.1, 0.123456, 86_400.000001, 1e9 + 1e-6)]
    retried = [a_task(State.RUNNING) for _ in instants]
    await write(storage, inserts=retried)
    await write(
        storage,
        inserts=[a_task(State.SCHEDULED, ready_at=at) for at in instants],
        retried=[(task.id, 1, at, 0, "Boom", ERROR) for task, at in zip(retried, instants, strict=True)],
    )

    assert [task.ready_at for task in await page(storage, None)] == sorted(instants * 2)


async def test_a_reign_loads_what_runs_and_the_names_of_all_queues(storage: Storage) -> None:
    running, claimed = a_task(State.RUNNING), a_task(queue="b")
    waiting = [a_task(queue=name) for name in ("a", "a", "b", "ü", "z z")]
    await write(storage, inserts=[running, claimed, *waiting, a_task(State.SCHEDULED, queue="later")])
    await write(storage, claims=[claim(claimed, worker="v")])

    loaded = await storage.load({}, 60.0)

    assert {(task.id, task.lease, task.worker) for task in loaded.running} == {
        (running.id, 1, "w"),
        (claimed.id, 1, "v"),
    }
    assert loaded.lanes == [(name, LANE) for name in ("a", "b", "mail", "z z", "ü")]


async def test_ranks_follow_the_aging_that_is_configured(database: str) -> None:
    """Whatever reigns follow each other: a queue of its own aging, one of the default, one that came later."""
    tasks: list[Task] = []
    reigns = [({}, 60.0), ({"mail": 5.0}, 60.0), ({"mail": 5.0}, 7.0), ({}, 7.0), ({"new": 1e10}, 60.0), ({}, 60.0)]
    for (aging_s, default), priority in zip(reigns, itertools.count(-2), strict=False):
        storage = Storage(database, 1 << 20)
        await storage.take_over()
        await storage.load(aging_s, default)
        for task in tasks:
            task.rank = task.ready_at - priority_of(task) * aging_s.get(task.queue, default)
        for queue in ("mail", "other", "new"):
            task = a_task(queue=queue, priority=priority)
            task.rank = task.ready_at - priority * aging_s.get(queue, default)
            tasks.append(task)
            await write(storage, inserts=[task])

        for queue in ("mail", "other", "new"):
            found = [(task.id, task.rank) for task in await page(storage, queue)]
            mine = [task for task in tasks if task.queue == queue]
            assert found == [(task.id, task.rank) for task in sorted(mine, key=lambda task: (task.rank, task.id))]
        await storage.close()


async def test_a_reign_of_the_same_aging_ranks_nothing_anew(storage: Storage, database: str) -> None:
    await storage.load({"other": 1.0}, 60.0)
    await write(storage, inserts=[a_task(rank=123.0), a_task(queue="other", rank=321.0)])

    await storage.load({"other": 1.0}, 60.0)

    assert query(database, "SELECT rank FROM asyncproc.task_live ORDER BY rank") == [(123.0,), (321.0,)]


def priority_of(task: Task) -> int:
    return task.options.priority


LARGE = b'"%s"' % (b"x" * 70_000)


async def test_a_large_payload_does_not_come_with_its_row_and_is_read_by_its_id(storage: Storage) -> None:
    small, large = b'"%s"' % (b"y" * 60_000), LARGE
    tasks = [a_task(payload=payload) for payload in (small, large, small, large)]
    due, running = a_task(State.SCHEDULED, payload=large), a_task(State.RUNNING, payload=large)
    await write(storage, inserts=[*tasks, due, running])

    ready, coming = await page(storage, "mail"), await page(storage, None)
    loaded = (await storage.load({}, 60.0)).running
    ids = [task.id for task in (*tasks, due, running)]
    read = (await storage.commit(None, [], False, [*ids, b"\x01" * 16])).payloads

    assert [task.payload for task in ready] == [small, b"", small, b""]
    assert [task.left_out > 65_536 for task in (*ready, *coming, *loaded)] == [False, True, False, True, True, True]
    assert [task.payload for task in (*coming, *loaded)] == [b"", b""]
    assert read == {task.id: task.payload for task in (*tasks, due, running)}


async def test_what_is_not_read_does_not_bound_a_page(database: str) -> None:
    storage = Storage(database, page_bytes=1000)
    await storage.take_over()
    tasks = [a_task(payload=LARGE) for _ in range(20)]
    await write(storage, inserts=tasks)

    found = await pages(storage, "mail", 7)

    assert [task.id for page in found for task in page.tasks] == [task.id for task in tasks]
    assert [len(page.tasks) for page in found[:2]] == [7, 7]
    await storage.close()


async def test_each_lane_has_pages_of_its_own(storage: Storage) -> None:
    lanes = [("send", "", "", ""), ("send", "", "", "gpu1"), ("send", "ada", "k", ""), ("resize", "", "k", "")]
    tasks = {
        lane: [
            a_task(type=lane[0], fairness_key=lane[1], concurrency_key=lane[2], resources=lane[3], rank=float(n))
            for n in range(5)
        ]
        for lane in lanes
    }
    await write(storage, inserts=[task for some in tasks.values() for task in some])
    wanted = [PageWanted("mail", lane, (1.0, tasks[lane][1].id), 2 + at) for at, lane in enumerate(lanes)]

    found = (await storage.commit(None, [*wanted, PageWanted(None, LANE, START, 10)], False)).pages

    assert [[task.id for task in page.tasks] for page in found[:4]] == [
        [task.id for task in tasks[lane][2 : 4 + at]] for at, lane in enumerate(lanes)
    ]
    assert [(page.queue, page.lane, page.complete) for page in found] == [
        ("mail", lanes[0], False),
        ("mail", lanes[1], False),
        ("mail", lanes[2], True),
        ("mail", lanes[3], True),
        (None, LANE, True),
    ]
    assert {lane for _, lane in (await storage.load({}, 60.0)).lanes} == set(lanes)
    assert {task.options for page in found[:3] for task in page.tasks if task.id == tasks[lanes[2]][2].id} == {
        tasks[lanes[2]][0].options
    }


async def test_the_levels_of_token_buckets_are_kept(storage: Storage) -> None:
    await write(storage, levels=[("api", 2.5, NOW), ("mail", 0.0, NOW)])
    await write(storage, levels=[("api", -1.0, NOW + 1)])

    assert (await storage.load({}, 60.0)).levels == {"api": (-1.0, NOW + 1), "mail": (0.0, NOW)}
