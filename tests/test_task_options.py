"""What can be said of a task is the same whichever way it is enqueued, but for what a way has no use for."""

import inspect
from collections.abc import Set
from typing import Final

import pytest

from asyncproc.plans import ScheduleSettings
from asyncproc.task_context import TaskContext
from asyncproc.transaction import Options
from asyncproc.wire import TaskBody

REST: Final = {*TaskBody.model_fields} - {"task_type", "payload"}
_IN_CODE: Final = {"back_off_duration": "back_off"}
"""Names that are longer over REST."""


@pytest.mark.parametrize(
    ("known", "has_no"),
    [
        # `unique` is answered with the task that is there already, which nobody knows before the commit; ids are known
        # at once, so that no `ref` is needed.
        pytest.param({*Options.__annotations__}, {"unique", "ref"}, id="transaction"),
        # Its creator is its parent.
        pytest.param(
            {*inspect.signature(TaskContext.enqueue).parameters} - {"self", "task"},
            {"unique", "ref", "created_by"},
            id="ctx.enqueue",
        ),
        # Its instants are those of its ticks, and it has a word of its own for those that meet: `overlap`.
        pytest.param(
            {_IN_CODE.get(name, name) for name in ScheduleSettings.model_fields}
            - {"task_type", "payload", "cron", "every", "time_zone", "overlap", "catch_up", "catch_up_within"}
            - {"instant_field"},
            {
                "unique",
                "ref",
                "created_by",
                "delay",
                "run_at",
                "start_by",
                "deadline",
                "depends_on",
                "on_parent_failure",
            },
            id="schedule",
        ),
    ],
)
def test_every_way_to_enqueue_takes_what_rest_takes(known: Set[str], has_no: Set[str]) -> None:
    assert known == {_IN_CODE.get(name, name) for name in REST} - has_no
