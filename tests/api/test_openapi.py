"""What the API says of itself."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from pydantic import BaseModel

from asyncproc.api.queue_bodies import PARSED, PurgeAnswer, QueueList, RateList, TypeList
from asyncproc.core.states import State
from asyncproc.wire import CancelAnswer, CancelBody, EnqueueBody, TaskView
from tests.api.conftest import Api

ENDPOINTS: Final = {
    "/healthz": {"get"},
    "/tasks/enqueue": {"post"},
    "/task/{task_id}": {"get", "patch"},
    "/task/{task_id}/explain": {"get"},
    "/task/{task_id}/events": {"get"},
    "/task/{task_id}/retry": {"post"},
    "/task/{task_id}/cancel": {"post"},
    "/tasks": {"get"},
    "/tasks/bulk": {"post"},
    "/operations": {"get"},
    "/operations/{operation_id}": {"get"},
    "/operations/{operation_id}/cancel": {"post"},
    "/dead-letters": {"get"},
    "/dead-letters/groups": {"get"},
    "/dead-letters/redrive": {"post"},
    "/dead-letters/discard": {"post"},
    "/queues": {"get", "post"},
    "/queues/{name}": {"get", "patch", "put", "delete"},
    "/queues/{name}/pause": {"post"},
    "/queues/{name}/resume": {"post"},
    "/queues/{name}/drain": {"post"},
    "/queues/{name}/purge": {"post"},
    "/pause": {"post"},
    "/resume": {"post"},
    "/types": {"get"},
    "/types/{name}": {"get", "patch", "put", "delete"},
    "/types/{name}/pause": {"post"},
    "/types/{name}/resume": {"post"},
    "/schedules": {"get", "post"},
    "/schedules/{name}": {"get", "patch", "delete"},
    "/schedules/{name}/pause": {"post"},
    "/schedules/{name}/resume": {"post"},
    "/schedules/{name}/trigger": {"post"},
    "/schedules/{name}/backfill": {"post"},
    "/pools": {"get", "post"},
    "/pools/{name}": {"get", "patch", "put", "delete"},
    "/rate-limits": {"get"},
    "/rate-limits/{name}": {"get", "put", "delete"},
}


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    response = api.http.get("/openapi.json")
    assert response.status_code == 200
    return dict(response.json())


def test_every_endpoint_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.")
    assert {path: set(methods) for path, methods in document["paths"].items()} == ENDPOINTS


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [value for key, value in _walk(document) if key == "$ref"]

    assert references
    for reference in references:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    bodies = [value for key, value in _walk(document["paths"]) if key == "application/json"]

    assert len(bodies) >= 2 * len(ENDPOINTS)
    for body in bodies:
        schema = body["schema"]
        # Where a body may be left out, it is one of these.
        schema = schema["anyOf"][0] if "anyOf" in schema else schema
        name = schema["$ref"].rpartition("/")[2] if "$ref" in schema else ""
        described = document["components"]["schemas"].get(name, schema)
        assert "examples" in described, name or schema


def test_the_examples_are_valid() -> None:
    for kind in (EnqueueBody, TaskView, CancelBody, CancelAnswer, *PARSED, QueueList, TypeList, RateList, PurgeAnswer):
        for example in _examples(kind):
            kind.model_validate(example)


def test_the_states_are_those_of_the_core(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["State"]["enum"] == [state.value for state in State]


def test_no_body_mentions_the_validation_errors_of_the_framework(document: dict[str, Any]) -> None:
    with_422 = {
        path
        for path, methods in document["paths"].items()
        for method in methods.values()
        if "422" in method["responses"]
    }

    assert with_422 == {"/tasks/enqueue"}, "a key that came with another body"
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_idempotency_key_is_described(document: dict[str, Any]) -> None:
    (parameter,) = document["paths"]["/tasks/enqueue"]["post"]["parameters"]

    assert (parameter["name"], parameter["in"], parameter["required"]) == ("Idempotency-Key", "header", False)
    assert "24 hours" in parameter["description"]


def test_the_answers_are_what_is_described(api: Api) -> None:
    (posted,) = api.enqueue({"taskType": "CPUProcess", "payload": {"processType": "x"}, "backOffDuration": "1ms"})

    TaskView.model_validate(api.ended(posted["id"]))


def test_the_documentation_is_served(api: Api) -> None:
    response = api.http.get("/docs")

    assert response.status_code == 200
    assert "text/html" in response.headers["content-type"]


def _walk(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _examples(model: type[BaseModel]) -> list[Any]:
    return list(model.model_json_schema()["examples"])
