"""Lists of tasks: each filter alone and together, newest first, page by page."""

from typing import Any

import pytest

from tests.api.conftest import Api


@pytest.fixture(scope="module")
def posted(api: Api) -> list[dict[str, Any]]:
    """Tasks that differ in all that can be asked for; the oldest first."""
    fields: list[dict[str, Any]] = [
        {"taskType": "CPUProcess", "payload": {"processType": "x"}, "backOffDuration": "1ms"},
        {"taskType": "SendEmail", "payload": {"sendTo": ["a@b"], "sendFrom": "c@d"}, "priority": 3},
        {"taskType": "SendEmail", "payload": {"sendTo": ["a@b"], "sendFrom": "c@d"}, "queue": "letters"},
        {"taskType": "SendEmail", "payload": {"sendTo": ["a@b"], "sendFrom": "c@d"}, "delay": "1h"},
    ]
    posted = api.enqueue(*(task | {"createdBy": "lister"} for task in fields))
    for task in posted[:3]:
        api.ended(task["id"])
    return posted


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [3, 2, 1, 0]),
        ({"type": "SendEmail"}, [3, 2, 1]),
        ({"type": "GenerateReport"}, []),
        ({"priority": 3}, [1]),
        ({"queue": "letters"}, [2]),
        ({"payload": '{"processType": "x"}'}, [0]),
        ({"payload": '{"sendTo": ["a@b"]}', "queue": "letters"}, [2]),
        ({"state": "scheduled"}, [3]),
        ({"state": "failed"}, [0]),
        ({"state": "succeeded"}, [2, 1]),
        ({"state": "succeeded", "priority": 0, "type": "SendEmail", "queue": "letters"}, [2]),
    ],
)
def test_a_list_holds_what_all_filters_let_through_newest_first(
    api: Api, posted: list[dict[str, Any]], query: dict[str, str | int], found: list[int]
) -> None:
    listed = api.listed(createdBy="lister", **query)

    assert [task["id"] for task in listed] == [posted[index]["id"] for index in found]


def test_a_listed_task_is_the_task_but_for_its_log_and_checkpoint(api: Api, posted: list[dict[str, Any]]) -> None:
    (listed,) = api.listed(createdBy="lister", state="failed")

    task = api.task(posted[0]["id"])
    assert listed == {name: value for name, value in task.items() if name not in ("log", "checkpoint")}
    assert {"log", "checkpoint"} <= task.keys()


def test_several_values_of_one_field_match_any_of_them(api: Api, posted: list[dict[str, Any]]) -> None:
    response = api.http.get("/tasks?createdBy=lister&state=failed&state=scheduled")

    assert [task["id"] for task in response.json()["tasks"]] == [posted[3]["id"], posted[0]["id"]]


def test_a_list_is_narrowed_by_when_its_tasks_were_made_and_by_ids(api: Api, posted: list[dict[str, Any]]) -> None:
    made = api.task(posted[1]["id"])["createdAt"]
    ids = [task["id"] for task in posted]

    assert {task["id"] for task in api.listed(createdBy="lister", createdAfter=made)} == set(ids)
    assert api.listed(createdBy="lister", createdBefore=made) == []
    assert [task["id"] for task in api.listed(id=ids[2])] == [ids[2]]


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("queue=nowhere", "queue", "there is no queue 'nowhere': known are default, "),
        ("type=Unheard", "type", "there is no task type 'Unheard': known are "),
        ("stat=failed", "stat", "is not known: allowed are state, type, queue, priority, createdBy, "),
        ("state=gone", "state", "Input should be 'blocked', 'scheduled', "),
        ("createdAfter=yesterday", "createdAfter", "must be an instant such as "),
        ("fingerprint=xyz", "fingerprint", "String should match pattern"),
        ("payload=%7B", "payload", "is not JSON: "),
        ("payload=[1]", "payload", "Input should be a valid dictionary"),
        ("payload=%7B%7D", "payload", "Dictionary should have at least 1 item"),
        ('payload={"a":"%5Cu0000"}', "payload", "contains NUL"),
        ("id=7", "id", "Input should be a valid UUID"),
    ],
)
def test_what_a_filter_cannot_mean_is_refused_by_field(api: Api, query: str, field: str, message: str) -> None:
    response = api.http.get(f"/tasks?{query}")

    assert response.status_code == 400
    (problem,) = response.json()["errors"]
    assert problem["field"] == field
    assert problem["message"].startswith(message)


def test_pages_follow_one_another_without_gap_or_overlap(api: Api, creator: str) -> None:
    posted = api.enqueue(
        *(
            {"taskType": "CPUProcess", "payload": {"processType": "x"}, "createdBy": creator, "delay": "1h"}
            for _ in range(7)
        )
    )

    pages: list[list[str]] = []
    query: dict[str, str | int] = {"createdBy": creator, "limit": 3}
    while True:
        answer = api.http.get("/tasks", params=query).json()
        pages.append([task["id"] for task in answer["tasks"]])
        if answer["next"] is None:
            break
        query["cursor"] = answer["next"]

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [task_id for page in pages for task_id in page] == [task["id"] for task in reversed(posted)]


def test_a_page_that_ends_with_the_last_task_has_no_next(api: Api, posted: list[dict[str, Any]]) -> None:
    answer = api.http.get("/tasks", params={"createdBy": "lister", "limit": len(posted)}).json()

    assert (len(answer["tasks"]), answer["next"]) == (len(posted), None)
