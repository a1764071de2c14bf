"""Tasks that depend on tasks, as a client sees them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.api.conftest import IDLE_QUEUE, Api
from tests.deployed import Ledger
from tests.eventually import eventually

GATHER: dict[str, Any] = {"taskType": "Gather"}
FAILS: dict[str, Any] = {"taskType": "Explode", "payload": {"how": "plain"}}
IDLE: dict[str, Any] = {"taskType": "CPUProcess", "payload": {"processType": "x"}, "queue": IDLE_QUEUE}


def test_a_task_runs_with_the_results_of_those_that_it_depends_on(api: Api, ledger: Ledger, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gated = {"ledger": ledger.path, "n": 1, "gate": str(gate)}
    held, first, gathers, gathers_too = api.enqueue(
        {"taskType": "HoldAsync", "payload": gated, "ref": "held"},
        {"taskType": "Note", "payload": {"ledger": ledger.path, "n": 2}, "ref": "a"},
        GATHER | {"dependsOn": ["a", "b", "held", "a"], "onParentFailure": "run"},
        {"taskType": "Note", "payload": {"ledger": ledger.path, "n": 3}, "ref": "b", "dependsOn": ["a"]},
    )
    assert (gathers["status"], gathers_too["status"]) == ("blocked", "blocked")
    waiting = api.task(gathers["id"])
    assert waiting["dependsOn"] == [first["id"], gathers_too["id"], held["id"]]
    assert (waiting["dependsOnCount"], waiting["onParentFailure"], waiting["readyAt"]) == (3, "run", None)

    def explained() -> list[str]:
        return [reason["text"] for reason in api.http.get(f"/task/{gathers['id']}/explain").json()["reasons"]]

    eventually(lambda: explained() == [f"it waits for task {held['id']}, which is running"])
    assert gathers["id"] in {task["id"] for task in api.listed(state="blocked")}
    gate.touch()

    ended = api.ended(gathers["id"])
    assert ended["result"] == {"sum": 5, "parents": 3, "states": {"a": "succeeded", "b": "succeeded"}}
    (late,) = api.enqueue({"taskType": "GatherAsync", "dependsOn": [first["id"], gathers_too["id"]]})
    assert api.ended(late["id"])["result"] == {"sum": 5, "parents": 2, "states": {}}


def test_a_parent_that_fails_does_to_each_child_what_that_one_asked_for(api: Api) -> None:
    parent, fails, skips, runs, after = api.enqueue(
        FAILS | {"ref": "a"},
        GATHER | {"dependsOn": ["a"], "ref": "b"},
        GATHER | {"dependsOn": ["a"], "onParentFailure": "skip"},
        GATHER | {"dependsOn": ["a"], "onParentFailure": "run"},
        GATHER | {"dependsOn": ["b"], "onParentFailure": "run"},
    )

    cause = f"task {parent['id']}, which it depends on, did not succeed"
    assert api.ended(runs["id"])["result"] == {"sum": 0, "parents": 1, "states": {"a": "failed"}}
    assert api.ended(after["id"])["result"] == {"sum": 0, "parents": 1, "states": {"b": "failed"}}
    failed, skipped = api.ended(fails["id"]), api.ended(skips["id"])
    assert (failed["status"], failed["error"]) == ("failed", f"ParentFailed: {cause}")
    assert failed["errors"][0]["type"] == "ParentFailed"
    assert (skipped["status"], skipped["error"]) == ("cancelled", cause)
    (late,) = api.enqueue(GATHER | {"dependsOn": [parent["id"]]})
    assert api.ended(late["id"])["error"] == f"ParentFailed: {cause}"


def test_a_running_task_enqueues_tasks_that_depend_on_each_other_and_on_itself(api: Api, ledger: Ledger) -> None:
    (task,) = api.enqueue({"taskType": "Spread", "payload": {"ledger": ledger.path}})

    gathered = api.ended(api.ended(task["id"])["result"])

    assert gathered["result"] == {"sum": 42, "parents": 3, "states": {}}


def test_what_is_blocked_can_be_cancelled_and_not_changed(api: Api, creator: str) -> None:
    parent, child, grandchild, other = api.enqueue(
        IDLE | {"ref": "a"},
        GATHER | {"dependsOn": ["a"], "ref": "b"},
        GATHER | {"dependsOn": ["b"], "onParentFailure": "skip"},
        GATHER | {"dependsOn": ["a"], "createdBy": creator},
    )
    response = api.http.patch(f"/task/{child['id']}", json={"priority": 5})
    assert (response.status_code, "blocked" in response.json()["error"]) == (409, True)

    assert api.http.post(f"/task/{child['id']}/cancel").json()["cancelled"] == "ended"
    assert api.ended(grandchild["id"])["status"] == "cancelled"
    bulk = {"action": "cancel", "filter": {"createdBy": creator, "state": "blocked"}}
    assert api.http.post("/tasks/bulk", json=bulk).status_code == 202
    assert api.ended(other["id"])["status"] == "cancelled"
    api.http.post(f"/task/{parent['id']}/cancel")


NOBODY = "019a5b7e-2f6a-7c11-9d3e-3f0a4be2c1d7"


@pytest.mark.parametrize(
    ("tasks", "index", "field", "message"),
    [
        ([{"dependsOn": ["a"]}], 0, "dependsOn[0]", "a is neither the ref of a task of this request nor the id of a"),
        ([{}, {"dependsOn": [NOBODY]}], 1, "dependsOn[0]", f"there is no task {NOBODY}"),
        ([{"ref": "a"}, {"ref": "a"}], 1, "ref", "is the ref of tasks[0] already"),
        ([{}, {"ref": "1"}], 1, "ref", "should match pattern"),
        ([{"ref": "a" * 32}], 0, "ref", "must not look like the id of a task"),
        ([{"ref": "a", "dependsOn": ["a"]}], 0, "dependsOn", "it would wait for itself: a -> a"),
        (
            [{"ref": "x"}, *({"ref": a, "dependsOn": [b]} for a, b in ("ab", "bc", "ca")), {"dependsOn": ["c"]}],
            1,
            "dependsOn",
            "it would wait for itself: a -> b -> c -> a",
        ),
        ([{"onParentFailure": "skip"}], 0, "onParentFailure", "is for tasks with dependsOn"),
        (
            [{"ref": "a"}, {"dependsOn": ["a"], "onParentFailure": "no"}],
            1,
            "onParentFailure",
            "'fail', 'skip' or 'run'",
        ),
        ([{"ref": "a"}, {"dependsOn": "a"}], 1, "dependsOn", "valid list"),
        ([{"ref": "a"}, {"dependsOn": [7]}], 1, "dependsOn[0]", "valid string"),
        ([{"ref": "a"}, {"dependsOn": ["a"] * 10_001}], 1, "dependsOn", "at most 10000"),
    ],
)
def test_what_cannot_be_is_refused_by_index_and_field(
    api: Api, creator: str, tasks: list[dict[str, Any]], index: int, field: str, message: str
) -> None:
    response = api.http.post(
        "/tasks/enqueue", json={"tasks": [GATHER | {"createdBy": creator} | task for task in tasks]}
    )

    assert response.status_code == 400
    (problem,) = response.json()["errors"]
    assert (problem["index"], problem["field"]) == (index, field)
    assert message in problem["message"]
    assert api.listed(createdBy=creator) == []


def test_who_asks_for_parents_that_postgres_is_slow_to_find_keeps_nobody_else_waiting(api: Api) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(api.system.deployment.conninfo, autocommit=True) as somebody,
        psycopg.connect(api.system.deployment.conninfo) as locking,
    ):
        locking.execute("LOCK TABLE asyncproc.task_done IN ACCESS EXCLUSIVE MODE")
        late = pool.submit(api.http.post, "/tasks/enqueue", json={"tasks": [IDLE | {"dependsOn": [str(uuid4())]}]})
        eventually(lambda: somebody.execute(_WAITS_FOR_THE_LOCK).fetchone())

        assert [task["status"] for task in api.enqueue(IDLE)] == ["queued"]
        assert not late.done()
        locking.rollback()
        assert late.result().status_code == 400


_WAITS_FOR_THE_LOCK = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%task_live WHERE id%'"
)
