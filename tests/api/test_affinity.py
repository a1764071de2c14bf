"""Affinity keys over HTTP, with two workers that ask for work."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.deployed import Ledger


def test_tasks_of_a_key_run_where_the_first_of_them_ran(api: Api, ledger: Ledger) -> None:
    def run(n: int, key: str) -> str:
        payload = {"ledger": ledger.path, "n": n}
        (task,) = api.enqueue({"taskType": "Note", "payload": payload, "affinityKey": key})
        ended = api.ended(task["id"])
        assert (ended["affinityKey"], ended["status"]) == (key, "succeeded")
        return str(ended["worker"])

    assert len({run(n, "resnet50") for n in range(8)}) == 1


@pytest.mark.parametrize("value", ["x" * 201, "a\x00", 7])
def test_a_key_that_no_row_could_hold_is_refused(api: Api, value: Any) -> None:
    task = {"taskType": "Note", "payload": {"ledger": "x", "n": 1}, "affinityKey": value}
    response = api.http.post("/tasks/enqueue", json={"tasks": [task]})
    assert response.status_code == 400
    assert "tasks[0].affinityKey" in response.json()["error"]


def test_a_task_without_a_key_has_none(api: Api, ledger: Ledger) -> None:
    (task,) = api.enqueue({"taskType": "Note", "payload": {"ledger": ledger.path, "n": 1}})
    assert api.ended(task["id"])["affinityKey"] is None
