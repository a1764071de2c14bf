"""What a task may note of itself, and what it is told where it may not."""

import json
from collections import deque
from typing import Any

import pytest

from asyncproc import NoteRefused, TaskContext
from asyncproc.core.events import Lease, Note
from asyncproc.core.task import NO_LIMITS
from asyncproc.notes import MAX_LINE, MAX_PROGRESS_NOTE, Notebook, NoteLimits, Notes

LIMITS = NoteLimits(checkpoint_bytes=100, log_lines=3, log_bytes=400)
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


def context(*left: bytes, told: list[Notes] | None = None) -> tuple[TaskContext, Notebook]:
    lease: Any = (b"x" * 16, 7, 2, "Work", "default", b"{}", 0.0, NO_LIMITS, False, *left)
    granted: Lease = lease
    notebook = Notebook(LIMITS)
    if told is not None:
        notebook.changed = told.append
    return TaskContext("id", 2, "default", "w", _lease=granted, _notebook=notebook), notebook


def taken(notebook: Notebook) -> Note:
    (notes,) = notebook.open.values()
    note = notes.take()
    assert note is not None
    return note


def test_a_note_has_what_is_newest() -> None:
    told: list[Notes] = []
    ctx, notebook = context(told=told)
    assert notebook.open == {}
    for done in range(100_000):
        ctx.progress(done, 100_000)
    ctx.progress(0.5, note="again\0")
    ctx.log("%d of %s", 3, "ten")
    ctx.log(ValueError("100 %"))
    ctx.checkpoint({"n": [1, None, "é"]})

    task_id, lease, number, progress, checkpoint, log = taken(notebook)
    shown = json.loads(progress or b"")
    assert (task_id, lease, number, checkpoint) == (b"x" * 16, 7, 1, '{"n":[1,null,"é"]}'.encode())
    assert (shown["done"], shown["total"], shown["note"]) == (0.5, None, "again\ufffd")
    lines = json.loads(b"[%s]" % log)
    assert [(line["attempt"], line["message"]) for line in lines] == [(2, "3 of ten"), (2, "100 %")]
    assert shown["at"].endswith("Z")
    assert len(told) == 1, "whoever sends is told once, until it has taken what there is"


def test_what_is_on_record_is_not_sent_again_and_all_else_is() -> None:
    ctx, notebook = context()
    ctx.checkpoint(1)
    first = taken(notebook)
    ctx.progress(1)
    second = taken(notebook)
    assert (first[2], second[2], second[4]) == (1, 2, b"1")
    (notes,) = notebook.open.values()
    notes.confirm(2)
    assert notes.take() is None
    ctx.progress(2)
    notes.confirm(1)
    assert taken(notebook)[4] is None


def test_the_last_checkpoint_is_this_attempts_or_that_of_one_before() -> None:
    assert context()[0].last_checkpoint is None
    ctx, _ = context(b'{"at": 5}')
    assert ctx.last_checkpoint == {"at": 5}
    ctx.progress(1)
    assert ctx.last_checkpoint == {"at": 5}
    ctx.checkpoint([6])
    assert ctx.last_checkpoint == [6]
    bare = TaskContext("id", 1, "default", "w")
    bare.checkpoint(1)
    assert bare.last_checkpoint == 1


def test_of_the_log_the_newest_lines_stay() -> None:
    ctx, notebook = context()
    for number in range(5):
        ctx.log(str(number))
    assert [line["message"] for line in json.loads(b"[%s]" % taken(notebook)[5])] == ["2", "3", "4"]
    ctx.log("y" * 300)
    assert len(json.loads(b"[%s]" % taken(notebook)[5])) == 1
    ctx.log("z" * (MAX_LINE + 1))
    (line,) = json.loads(b"[%s]" % taken(notebook)[5])
    assert (len(line["message"]), line["message"][-1]) == (MAX_LINE, "…")


@pytest.mark.parametrize(
    "value", [object(), float("nan"), {"a": {1, 2}}, CIRCLE, "\ud800", "x" * 99], ids=lambda value: type(value).__name__
)
def test_what_is_no_checkpoint_is_refused_at_once_and_changes_nothing(value: object) -> None:
    ctx, notebook = context(b"1")
    with pytest.raises(NoteRefused, match=r"a checkpoint (must be a JSON value|is 101 bytes: at most 100)"):
        ctx.checkpoint(value)
    assert ctx.last_checkpoint == 1
    assert all(notes.take() is None for notes in notebook.open.values())


@pytest.mark.parametrize("done", [-1, float("inf"), float("nan"), "3", None, True, 10**400, 2**54, object()])
def test_what_is_no_progress_is_refused(done: Any) -> None:
    ctx, _ = context()
    with pytest.raises(NoteRefused, match="done"):
        ctx.progress(done)
    if done is not None:
        with pytest.raises(NoteRefused, match="total"):
            ctx.progress(1, done)


def test_a_note_that_is_too_long_is_refused() -> None:
    ctx, _ = context()
    ctx.progress(1, note="x" * MAX_PROGRESS_NOTE)
    with pytest.raises(NoteRefused, match="at most 1000 characters"):
        ctx.progress(1, note="x" * (MAX_PROGRESS_NOTE + 1))


def test_what_is_noted_after_the_end_goes_nowhere() -> None:
    told: deque[Notes] = deque()
    ctx, notebook = context()
    ctx.progress(1)
    notebook.changed = told.append
    notebook.close((b"x" * 16, 7))
    ctx.progress(2)
    assert not told
    assert notebook.open == {}
