"""The writes of one cycle as statements and columns, built before the first byte is sent.

A replay sends the very same bytes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, LiteralString

from asyncproc.core.decision import Replaced, Writes
from asyncproc.core.states import State
from asyncproc.core.task import NO_TERMS, Options, Task, TaskId
from asyncproc.storage.arrays import PgArray, bigints, byteas, floats, ints, texts, uuids
from asyncproc.storage.dependents import Family, family_of
from asyncproc.storage.rows import not_ended_before
from asyncproc.storage.statements import idempotency, moves, pages, requests, schedules, unique

COPY_FROM: Final = 50
"""From this many new rows on, COPY's extra round trips cost less than what INSERT ... unnest does per row."""

_EPOCH_2000_S: Final = 946_684_800
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + b"\x00" * 8
_COPY_TAIL: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_NO_INSTANTS: Final = 2 * _NULL
_FIXED_BEFORE: Final = Struct(">hi16s")
_FLOAT: Final = Struct(">id")
_STAMP: Final = Struct(">iq")
_NUMBERS: Final = Struct(">iqiiiiiiidididididid")


_RANKED: Final = frozenset({State.QUEUED, State.RUNNING})
_ELSEWHERE: Final = frozenset({State.RUNNING, State.BLOCKED})
"""States of new rows that do not wait for the core: a blocked one may be released in the commit that brings it."""
_PLACE: Final = (texts, ints, texts, floats)
"""State, priority, queue, instant."""


@dataclass(slots=True)
class Statement:
    text: LiteralString
    parameters: list[PgArray | float]
    expected: int
    """Rows that change where memory and table agree."""


@dataclass(slots=True)
class Batch:
    ended: list[Statement]
    """What goes before the new rows."""
    insert: Statement | None
    """New rows, where they are few."""
    copy: bytes | None
    """New rows for COPY, where they are many."""
    after: list[Statement]
    """What goes behind them."""
    started: list[tuple[TaskId, int]]
    """Id and lease of all that starts with this commit, new rows included."""
    waiting: list[tuple[TaskId, int, State]]
    """Id, lease and state of the new rows that do not start."""
    revived: list[TaskId]
    family: Family | None
    writes: Writes
    """What it was made of. Its tasks must not change before the commit is known: that is, no step before that."""
    now: float

    def insert_again(self) -> Statement | None:
        """The same new rows for a replay, which leaves alone what has been finished meanwhile."""
        inserts = self.writes.inserts
        if not inserts:
            return None
        insert = self.insert or _insert(inserts)
        since = not_ended_before(task.id for task in inserts)
        return Statement(moves.INSERT_AGAIN, [*insert.parameters, since], insert.expected)


def build(writes: Writes, now: float) -> Batch:
    inserts = writes.inserts
    started = [(task_id, lease) for task_id, lease, *_ in writes.claims]
    claim = _claim(writes, now) if writes.claims else None
    overflown = _statement(moves.CANCEL, writes.overflown, (uuids, bigints, texts), after=(now,))
    ended = {row[0] for row in writes.overflown}
    started.extend((task.id, task.lease) for task in inserts if task.state is State.RUNNING)
    copy = _copy(inserts) if len(inserts) >= COPY_FROM else None
    return Batch(
        ended=_ended(writes, now),
        insert=_insert(inserts) if inserts and copy is None else None,
        copy=copy,
        after=[statement for statement in (claim, overflown) if statement is not None],
        started=started,
        waiting=[
            (task.id, task.lease, task.state)
            for task in inserts
            if task.state not in _ELSEWHERE and task.id not in ended
        ],
        revived=[row[0] for row in writes.revived],
        family=family_of(writes, now),
        writes=writes,
        now=now,
    )


def _ended(writes: Writes, now: float) -> list[Statement]:
    """In the order in which they are applied."""
    of_lease = (uuids, bigints)
    notes = [(task_id, lease, lease << 32 | number, *parts) for task_id, lease, number, *parts in writes.notes]
    statements = [
        _statement(moves.NOTE, notes, (*of_lease, bigints, texts, texts, texts)),
        _statement(moves.SUCCEED, writes.succeeded, (*of_lease, texts), after=(now,)),
        _statement(moves.FAIL, writes.failed, (*of_lease, texts, texts), after=(now, now)),
        _statement(moves.FAIL_WAITING, writes.overdue, (*of_lease, texts, texts), after=(now, now)),
        _statement(moves.RETRY, writes.retried, (*of_lease, floats, ints, texts, texts), before=(now,)),
        _statement(moves.REQUEUE, writes.requeued, (*of_lease, ints)),
        _statement(moves.SNOOZE, writes.snoozed, (*of_lease, floats)),
        _statement(moves.ASK_TO_STOP, writes.stopping, (*of_lease, texts), before=(now,)),
        _statement(moves.CANCEL, writes.cancelled, (*of_lease, texts), after=(now,)),
        _statement(
            moves.REVIVE,
            writes.revived,
            (uuids, floats, floats),
            after=(not_ended_before(row[0] for row in writes.revived),),
        ),
        _statement(moves.CHANGE, writes.changed, (*of_lease, *_PLACE, *_PLACE, floats)),
        _replace(writes.replaced) if writes.replaced else None,
        _statement(moves.COME_DUE, writes.came_due, (uuids, floats)),
        _statement(pages.SET_LEVELS, writes.levels, (texts, floats, floats)),
        _statement(schedules.DECIDE, writes.ticks, (uuids, texts, floats, texts, texts, floats)),
        _statement(schedules.FORGET, [(name,) for name in writes.positions_over], (texts,)),
        _statement(
            schedules.MOVE,
            [(*row, task_id and task_id.hex()) for *row, task_id in writes.positions],
            (texts, texts, floats, texts),
        ),
        _statement(
            idempotency.USE_KEYS,
            [(key, body_hash, answer, now + kept_s) for key, body_hash, answer, kept_s, _ in writes.keys],
            (texts, byteas, texts, floats),
            after=(now,),
        ),
        _statement(requests.TAKE, writes.requests, (uuids,)),
    ]
    return [statement for statement in statements if statement is not None]


def _statement(
    text: LiteralString,
    rows: Sequence[tuple[Any, ...]],
    kinds: Sequence[Callable[[Iterable[Any]], PgArray]],
    before: tuple[float, ...] = (),
    after: tuple[float, ...] = (),
) -> Statement | None:
    """None where there is nothing to write."""
    if not rows:
        return None
    columns = [kind(column) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)]
    return Statement(text, [*before, *columns, *after], len(rows))


def _replace(rows: Sequence[Replaced]) -> Statement:
    kinds: tuple[Callable[[Iterable[Any]], PgArray], ...] = (uuids, bigints, *_PLACE, texts, floats, floats)
    places = zip(*(row[:-1] for row in rows), strict=True)
    options, terms = [row[-1][2] for row in rows], [row[-1][4] for row in rows]
    columns: list[PgArray | float] = [
        *(kind(column) for kind, column in zip(kinds, places, strict=True)),
        ints(each.priority for each in options),
        ints(each.retry.max_attempts for each in options),
        *(floats(each.retry[part] for each in options) for part in range(1, 5)),
        *(floats(each.limits[part] for each in options) for part in range(2)),
        floats(each.start_by or None for each in terms),
        floats(each.deadline or None for each in terms),
        texts(each.queue for each in options),
        texts(each.concurrency_key for each in options),
        texts(each.fairness_key for each in options),
        texts(each.origins for each in options),
        texts(each.affinity_key for each in options),
        texts(each.resources for each in options),
        texts(each.created_by for each in options),
        texts(row[-1][1] for row in rows),
    ]
    return Statement(unique.REPLACE, columns, len(rows))


def _claim(writes: Writes, now: float) -> Statement:
    ids, leases, attempts, ranks, workers = zip(*writes.claims, strict=True)
    columns: list[PgArray | float] = [now, uuids(ids), bigints(leases), ints(attempts), floats(ranks), texts(workers)]
    return Statement(moves.CLAIM, columns, len(ids))


def _insert(tasks: list[Task]) -> Statement:
    columns: list[PgArray | float] = [
        uuids(task.id for task in tasks),
        floats(_rank(task) for task in tasks),
        floats(task.ready_at for task in tasks),
        floats(task.created_at for task in tasks),
        floats(task.created_at if task.state is State.RUNNING else None for task in tasks),
        bigints(task.lease for task in tasks),
        ints(task.options.priority for task in tasks),
        ints(task.attempt for task in tasks),
        ints(task.options.retry.max_attempts for task in tasks),
        floats(task.options.retry.base_s for task in tasks),
        floats(task.options.retry.factor for task in tasks),
        floats(task.options.retry.cap_s for task in tasks),
        floats(task.options.retry.jitter for task in tasks),
        floats(task.options.limits.timeout_s for task in tasks),
        floats(task.options.limits.soft_timeout_s for task in tasks),
        floats(task.terms.start_by or None for task in tasks),
        floats(task.terms.deadline or None for task in tasks),
        texts(task.state for task in tasks),
        texts(task.options.type for task in tasks),
        texts(task.options.queue for task in tasks),
        texts(task.options.concurrency_key for task in tasks),
        texts(task.options.fairness_key for task in tasks),
        texts(task.options.origins for task in tasks),
        texts(task.options.affinity_key for task in tasks),
        texts(task.options.resources for task in tasks),
        texts(task.options.created_by for task in tasks),
        texts(task.terms.unique_key or None for task in tasks),
        texts(task.worker or None for task in tasks),
        texts(task.payload for task in tasks),
    ]
    return Statement(moves.INSERT, columns, len(tasks))


def _rank(task: Task) -> float | None:
    return task.rank if task.state in _RANKED else None


def _copy(tasks: list[Task]) -> bytes:
    """Rows in COPY's binary format; the columns stand in the order of `INSERT_COLUMNS`."""
    parts = [_COPY_HEAD]
    constants: dict[int, bytes] = {}
    for task in tasks:
        # By identity: tasks that share their options share the object, and to compare the contents costs more.
        constant = constants.get(id(task.options))
        if constant is None:
            constant = constants[id(task.options)] = _constant(task.options)
        retry, limits, terms = task.options.retry, task.options.limits, task.terms
        rank = _rank(task)
        created = _STAMP.pack(8, _micros(task.created_at))
        parts += (
            _FIXED_BEFORE.pack(29, 16, task.id),
            _NULL if rank is None else _FLOAT.pack(8, rank),
            created if task.ready_at == task.created_at else _STAMP.pack(8, _micros(task.ready_at)),
            created,
            created if task.state is State.RUNNING else _NULL,
            _NUMBERS.pack(
                8, task.lease, 4, task.options.priority, 4, task.attempt, 4, retry.max_attempts,
                8, retry.base_s, 8, retry.factor, 8, retry.cap_s, 8, retry.jitter,
                8, limits.timeout_s, 8, limits.soft_timeout_s,
            ),
            _NO_INSTANTS if terms is NO_TERMS else _instant(terms.start_by) + _instant(terms.deadline),
            _sized(task.state),
            constant,
            _sized(terms.unique_key) if terms.unique_key else _NULL,
            _sized(task.worker) if task.worker else _NULL,
            len(task.payload).to_bytes(4),
            task.payload,
        )  # fmt: skip
    parts.append(_COPY_TAIL)
    return b"".join(parts)


def _constant(options: Options) -> bytes:
    return b"".join(
        _sized(text)
        for text in (
            options.type, options.queue, options.concurrency_key, options.fairness_key, options.origins,
            options.affinity_key, options.resources, options.created_by,
        )
    )  # fmt: skip


def _instant(seconds: float) -> bytes:
    return _STAMP.pack(8, _micros(seconds)) if seconds else _NULL


def _micros(instant: float) -> int:
    return round((instant - _EPOCH_2000_S) * 1_000_000)


def _sized(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return len(data).to_bytes(4) + data
