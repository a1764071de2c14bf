"""A task of a type that no worker knows waits, says so, and fails nothing."""

from uuid import UUID

from tests.api.conftest import Api
from tests.eventually import eventually


def test_a_type_that_no_worker_knows_is_listed_until_its_tasks_are_gone(api: Api) -> None:
    (note,) = api.system.make("Note", {"ledger": "/dev/null", "n": 1})
    # As a release that knows it would enqueue it, which the workers do not run yet.
    (sent,) = api.system.send([(*note[:2], note[2]._replace(type="Ghost"), *note[3:])])
    task_id = str(UUID(bytes=sent))

    eventually(lambda: api.http.get("/healthz").json().get("unknownTypes") == ["Ghost"])
    assert api.http.get("/types").json()["unknown"] == ["Ghost"]
    assert api.http.get("/healthz").json()["status"] == "healthy"
    (reason,) = api.http.get(f"/task/{task_id}/explain").json()["reasons"]
    assert (reason["kind"], reason["name"]) == ("unknown", "Ghost")
    assert reason["text"] == "no worker knows type Ghost, or not all of its pool do yet"
    assert (api.task(task_id)["status"], api.task(task_id)["attempt"]) == ("queued", 0)

    assert api.http.post(f"/task/{task_id}/cancel").status_code == 200
    assert api.http.get("/types").json()["unknown"] == []
    assert "unknownTypes" not in api.http.get("/healthz").json()
