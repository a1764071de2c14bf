"""What cannot be taken is refused with index and field; nothing of its request is enqueued, and nothing restarts."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.api.conftest import MAX_BODY_BYTES, MAX_TASK_BYTES, MAX_TASKS, Api
from tests.deployed import pid_of

GOOD: Final[dict[str, Any]] = {"taskType": "CPUProcess", "payload": {"processType": "good"}}


def _second(**changes: Any) -> str:
    """A request whose first task is good, and whose second is not."""
    return json.dumps({"tasks": [GOOD, GOOD | changes]})


def _payload(text: str) -> str:
    """The same with a payload as raw JSON."""
    return _second(payload={"processType": "x", "more": 0}).replace('"more": 0', f'"more": {text}')


def _nested(levels: int) -> str:
    """A value with which the payload is nested so deep."""
    return "[" * (levels - 1) + "]" * (levels - 1)


# Body, status, index, field, part of the message.
REFUSED: Final[dict[str, tuple[str | bytes, int, int | None, str, str]]] = {
    "nothing": ("", 400, None, "", "the body is not JSON"),
    "no JSON": ('{"tasks": [', 400, None, "", "the body is not JSON"),
    "not UTF-8": (b'{"tasks": [{"taskType": "\xff\xfe"}]}', 400, None, "", "the body is not JSON"),
    "two documents": ('{"tasks": []} {}', 400, None, "", "the body is not JSON"),
    "an array": ("[]", 400, None, "", "the body must be an object with tasks"),
    "null": ("null", 400, None, "", "the body must be an object with tasks"),
    "no tasks": ("{}", 400, None, "tasks", "Field required"),
    "empty tasks": ('{"tasks": []}', 400, None, "tasks", "at least 1 item"),
    "tasks of the wrong type": ('{"tasks": {}}', 400, None, "tasks", "valid list"),
    "a task of the wrong type": (json.dumps({"tasks": [GOOD, 7]}), 400, 1, "", "valid dictionary"),
    "no type": (json.dumps({"tasks": [GOOD, {"payload": {}}]}), 400, 1, "taskType", "Field required"),
    "type of the wrong type": (_second(taskType=7), 400, 1, "taskType", "valid string"),
    "unknown type": (_second(taskType="Nothing"), 400, 1, "taskType", "unknown task type 'Nothing': known are Answer"),
    "payload of the wrong type": (_second(payload=[1]), 400, 1, "payload", "valid dictionary"),
    "no key of its type": (_second(taskType="Keyed", payload={"customer": {}}), 400, 1, "concurrencyKey", "KeyError"),
    "payload without a field": (_second(payload={}), 400, 1, "payload.processType", "Field required"),
    "payload with a wrong field": (_second(payload={"processType": 7}), 400, 1, "payload.processType", "valid string"),
    "no payload": (_second(payload=None), 400, 1, "payload.processType", "Field required"),
    "bad duration": (_second(backOffDuration="5 s"), 400, 1, "backOffDuration", "must be a duration such as 5s"),
    "duration without unit": (_second(backOffDuration="5"), 400, 1, "backOffDuration", "must be a duration"),
    "duration of the wrong type": (_second(backOffDuration=5), 400, 1, "backOffDuration", "valid string"),
    "negative duration": (_second(backOffDuration="-5s"), 400, 1, "backOffDuration", "must be between 0s and 24h"),
    "long duration": (_second(backOffDuration="25h"), 400, 1, "backOffDuration", "must be between 0s and 24h"),
    "negative delay": (_second(delay="-1s"), 400, 1, "delay", "must be between 0s and 8784h"),
    "endless delay": (_second(delay="9" * 30 + "h"), 400, 1, "delay", "must be between"),
    "priority too high": (_second(priority=101), 400, 1, "priority", "less than or equal to 100"),
    "priority too low": (_second(priority=-101), 400, 1, "priority", "greater than or equal to -100"),
    "priority beyond 64 bits": (_second(priority=10**30), 400, 1, "priority", "100"),
    "priority as text": (_second(priority="1"), 400, 1, "priority", "valid integer"),
    "priority with a fraction": (_second(priority=1.5), 400, 1, "priority", "valid integer"),
    "priority as a boolean": (_second(priority=True), 400, 1, "priority", "valid integer"),
    "bad queue": (_second(queue="a b"), 400, 1, "queue", "pattern"),
    "long queue": (_second(queue="q" * 101), 400, 1, "queue", "pattern"),
    "long creator": (_second(createdBy="c" * 201), 400, 1, "createdBy", "at most 200"),
    "NUL in a value": (_payload(r'"a\u0000b"'), 400, 1, "payload.more", "contains NUL"),
    "NUL in a key": (_payload(r'{"a\u0000b": 1}'), 400, 1, "payload.more", "a key contains NUL"),
    "NUL in a creator": (_second(createdBy="\x00"), 400, 1, "createdBy", "contains NUL"),
    "half a pair in a value": (_payload(r'["\ud800"]'), 400, 1, "payload.more[0]", "half of a surrogate pair"),
    "half a pair in a key": (_payload(r'{"\udfff": 1}'), 400, 1, "payload.more", "a key contains half of a surrogate"),
    "1e400": (_payload("1e400"), 400, 1, "payload.more", "is not a finite number"),
    "-1e400 deep inside": (_payload('{"a": [0, -1e400]}'), 400, 1, "payload.more.a[1]", "is not a finite number"),
    "NaN": (_payload("NaN"), 400, 1, "payload.more", "is not a finite number"),
    "Infinity": (_payload("-Infinity"), 400, 1, "payload.more", "is not a finite number"),
    "nested over 32": (_payload(_nested(33)), 400, 1, "payload.more" + "[0]" * 31, "nested deeper than 32 levels"),
    "nested without end": (_payload("[" * 20_000 + "]" * 20_000), 400, 1, "payload", "nested deeper than 32 levels"),
    "over the bytes of a task": (
        _payload(json.dumps("x" * MAX_TASK_BYTES)), 413, 1, "payload", f"at most {MAX_TASK_BYTES} are allowed"
    ),
    "over the bytes of a request": (
        _payload(json.dumps("x" * MAX_BODY_BYTES)), 413, None, "", f"at most {MAX_BODY_BYTES} are allowed"
    ),
    "over the tasks of a request": (
        json.dumps({"tasks": [GOOD] * (MAX_TASKS + 1)}), 413, None, "",
        f"tasks: {MAX_TASKS + 1} in one request, at most {MAX_TASKS} are allowed"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_enqueued_and_nothing_restarts(api: Api) -> Iterator[None]:
    before = _state(api)
    yield
    assert _state(api) == before


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_index_and_field(api: Api, name: str) -> None:
    body, status, index, field, message = REFUSED[name]

    response = api.http.post("/tasks/enqueue", content=body, headers={"Content-Type": "application/json"})

    answer = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert message in answer["error"]
    assert ("errors" in answer) == bool(index is not None or field)
    for problem in answer.get("errors", []):
        assert (problem["index"], problem["field"]) == (index, field)
        assert message in problem["message"]
    if index is not None:
        assert answer["error"].startswith(f"tasks[{index}]{f'.{field}' if field else ''}: ")


def test_a_body_whose_length_nobody_declared_is_cut_off_at_the_limit(api: Api) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(2 * MAX_BODY_BYTES // 1024):
            yield b" " * 1024

    response = api.http.post("/tasks/enqueue", content=chunks())

    assert response.status_code == 413
    assert f"over {MAX_BODY_BYTES} bytes" in response.json()["error"]


def test_a_hundred_bad_tasks_are_told_in_a_bounded_answer(api: Api) -> None:
    response = api.http.post("/tasks/enqueue", json={"tasks": [{"taskType": "x" * 150}] * MAX_TASKS})

    answer = response.json()
    assert response.status_code == 400
    assert [problem["index"] for problem in answer["errors"]] == list(range(MAX_TASKS))
    assert answer["error"].endswith("; and 90 more")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=lost", "state"),
        ("priority=high", "priority"),
        ("priority=101", "priority"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=7", "cursor"),
        ("createdBy=%00", "createdBy"),
        (f"type={'x' * 201}", "type"),
    ],
)
def test_a_bad_query_is_refused_by_its_field(api: Api, query: str, field: str) -> None:
    response = api.http.get(f"/tasks?{query}")

    assert response.status_code == 400
    assert [problem["field"] for problem in response.json()["errors"]] == [field]
    assert response.json()["error"].startswith(f"{field}: ")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/tasks/enqueue", 405)])
def test_what_is_not_there_is_refused_in_the_same_style(api: Api, method: str, path: str, status: int) -> None:
    response = api.http.request(method, path)

    assert response.status_code == status
    assert response.json().keys() == {"error"}


def test_what_is_just_within_the_limits_is_taken_for_valid(api: Api) -> None:
    body = _payload(_nested(32)).replace('"CPUProcess"', '"Nothing"')

    response = api.http.post("/tasks/enqueue", content=body)

    # Refused for its type alone, so that nothing is enqueued here.
    assert {problem["field"] for problem in response.json()["errors"]} == {"taskType"}


def _state(api: Api) -> tuple[int, int, int, list[str]]:
    queue = api.system.queue()
    newest = api.listed(type="CPUProcess", limit=1)
    return len(api.system.tasks(type="CPUProcess")), pid_of(queue), api.system.health().epoch, [t["id"] for t in newest]
