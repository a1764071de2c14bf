"""Bad bodies, queries and paths to every endpoint: a 4xx that names the field and what is allowed; nothing is done."""

import json
from typing import Any, Final

from tests.api.conftest import IDLE_QUEUE, Api
from tests.api.test_queues import ask

NO_TASK: Final = "/task/01900000-0000-7000-8000-000000000000"
WORK: Final = {"name": "bad", "taskType": "CPUProcess", "payload": {"processType": "x"}}
HOURLY: Final = {**WORK, "every": "1h"}
SPAN: Final = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
DEEP: Final = "[" * 5_000 + "]" * 5_000
Q: Final = f"/queues/{IDLE_QUEUE}"

# Method, path, body (text as it is), status, field, part of the message.
TABLE: Final[list[tuple[str, str, Any, int, str, str]]] = [
    # one task
    ("GET", "/task/nope", None, 404, "", "there is no task nope"),
    ("GET", "/task/%00", None, 404, "", "there is no task"),
    ("GET", f"{NO_TASK}?wait=soon", None, 400, "wait", "valid number"),
    ("GET", f"{NO_TASK}?wait=-1", None, 400, "wait", "greater than or equal to 0"),
    ("GET", f"{NO_TASK}?wait=61", None, 400, "wait", "less than or equal to 60"),
    ("GET", f"{NO_TASK}?wait=nan", None, 400, "wait", ""),
    ("GET", f"{NO_TASK}/explain", None, 404, "", "there is no task"),
    ("GET", f"{NO_TASK}/events", None, 404, "", "there is no task"),
    ("POST", f"{NO_TASK}/retry", None, 404, "", "there is no task"),
    ("POST", f"{NO_TASK}/cancel", None, 404, "", "there is no task"),
    ("POST", f"{NO_TASK}/cancel", {"grace": "-1s"}, 400, "grace", "must be between 0s and"),
    ("POST", f"{NO_TASK}/cancel", {"grace": 5}, 400, "grace", "valid string"),
    ("POST", f"{NO_TASK}/cancel", {"reason": "a\0"}, 400, "reason", ""),
    ("POST", f"{NO_TASK}/cancel", {"grce": "1s"}, 400, "grce", "allowed are reason, grace"),
    ("POST", f"{NO_TASK}/cancel", "{", 400, "", "JSON"),
    ("POST", f"{NO_TASK}/cancel", [], 400, "", "object"),
    ("PATCH", NO_TASK, {}, 400, "", "name what is to be changed: priority, queue"),
    ("PATCH", NO_TASK, "{", 400, "", "the body is not JSON"),
    ("PATCH", NO_TASK, {"prio": 1}, 400, "prio", "allowed are priority, queue"),
    ("PATCH", NO_TASK, {"priority": 101}, 400, "priority", "less than or equal to 100"),
    ("PATCH", NO_TASK, {"priority": True}, 400, "priority", "valid integer"),
    ("PATCH", NO_TASK, {"queue": "a b"}, 400, "queue", "pattern"),
    ("PATCH", NO_TASK, {"delay": "-1s"}, 400, "delay", "must be between 0s and"),
    ("PATCH", NO_TASK, {"delay": "1s", "runNow": True}, 400, "runNow", "conflicts with delay"),
    ("PATCH", NO_TASK, {"runAt": "9999-12-31T23:59:59-14:00"}, 400, "runAt", "must be within 366 days"),
    ("PATCH", NO_TASK, {"runAt": "tomorrow"}, 400, "runAt", "must be an instant such as"),
    ("PATCH", NO_TASK, {"runNow": False}, 400, "runNow", "True"),
    # lists
    ("GET", "/tasks?queue=no-such", None, 400, "queue", "there is no queue 'no-such': known are"),
    ("GET", "/tasks?type=NoSuch", None, 400, "type", "known are"),
    ("GET", "/tasks?stat=failed", None, 400, "stat", "allowed are state"),
    ("GET", "/tasks?id=7", None, 400, "id", "UUID"),
    ("GET", "/tasks?createdAfter=now", None, 400, "createdAfter", "must be an instant such as"),
    ("GET", "/tasks?fingerprint=x", None, 400, "fingerprint", "pattern"),
    ("GET", "/tasks?payload=[1]", None, 400, "payload", "dictionary"),
    ("GET", "/tasks?payload={", None, 400, "payload", "is not JSON"),
    ("GET", "/tasks?limit=many", None, 400, "limit", "valid integer"),
    ("GET", "/dead-letters?queue=no-such", None, 400, "queue", "known are"),
    ("GET", "/dead-letters?state=queued", None, 400, "state", "must be failed here"),
    ("GET", "/dead-letters/groups?limit=1001", None, 400, "limit", "less than or equal to 1000"),
    ("GET", "/dead-letters/groups?cursor=1", None, 400, "cursor", "allowed are"),
    # what is done to many
    ("POST", "/tasks/bulk", None, 400, "action", "required"),
    ("POST", "/tasks/bulk", {"action": "cancel"}, 400, "filter", 'cancel of all tasks must be said by "all": true'),
    ("POST", "/tasks/bulk", {"action": "delete", "filter": {}}, 400, "filter", '"all": true'),
    ("POST", "/tasks/bulk", {"action": "retry", "filter": {}}, 400, "filter", '"all": true'),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": None}, 400, "filter", ""),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"queue": None}}, 400, "filter", '"all": true'),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"queue": []}}, 400, "filter.queue", "at least 1"),
    ("POST", "/tasks/bulk", {"action": "explode", "filter": {"queue": IDLE_QUEUE}}, 400, "action", "'cancel'"),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"queue": "no-such"}}, 400, "filter.queue", "known are"),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"que": "x"}}, 400, "filter.que", "allowed are state"),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"state": "failed"}}, 400, "filter.state", "cancel is for"),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"state": "lost"}}, 400, "filter.state", "'queued'"),
    (
        "POST",
        "/tasks/bulk",
        {"action": "cancel", "filter": {"createdBy": "nobody-at-all"}},
        404,
        "filter",
        "nothing matches",
    ),
    ("POST", "/tasks/bulk", {"action": "cancel", "all": True, "filter": {"queue": "x"}}, 400, "all", "conflicts"),
    ("POST", "/tasks/bulk", {"action": "move", "filter": {"queue": IDLE_QUEUE}}, 400, "queue", "move wants queue"),
    (
        "POST",
        "/tasks/bulk",
        {"action": "move", "priority": 1, "filter": {"queue": IDLE_QUEUE}},
        400,
        "priority",
        "move",
    ),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"queue": IDLE_QUEUE}, "rate": "0/s"}, 400, "rate", "100/s"),
    ("POST", "/tasks/bulk", {"action": "cancel", "filter": {"payload": "x"}}, 400, "filter.payload", ""),
    ("POST", "/tasks/bulk", '{"action": "cancel", "filter": {"payload": {"a": ' + DEEP + "}}}", 400, "", ""),
    ("POST", "/tasks/bulk", [], 400, "", "object"),
    ("POST", "/dead-letters/redrive", None, 400, "filter", '"all": true'),
    ("POST", "/dead-letters/discard", {}, 400, "filter", '"all": true'),
    ("POST", "/dead-letters/discard", {"filter": {"state": "queued"}}, 400, "filter.state", "must be failed"),
    ("POST", "/dead-letters/discard", {"filter": {"state": "failed"}}, 400, "filter", '"all": true'),
    ("POST", "/dead-letters/redrive", {"filter": {"type": "NoSuch"}}, 400, "filter.type", "known are"),
    ("POST", "/dead-letters/redrive", {"filter": {"type": "Note"}, "rate": 5}, 400, "rate", "string"),
    ("GET", "/operations/nope", None, 404, "", "there is no operation nope"),
    ("POST", "/operations/nope/cancel", None, 404, "", "there is no operation nope"),
    # queues
    ("POST", "/queues", None, 400, "name", "required"),
    ("POST", "/queues", {"name": "a b"}, 400, "name", "pattern"),
    ("POST", "/queues", {"name": "x", "weight": 10**400}, 400, "weight", ""),
    ("POST", "/queues", {"name": "x", "wieght": 1}, 400, "wieght", "allowed are priority"),
    ("GET", "/queues/a%20b", None, 400, "name", "pattern"),
    ("GET", "/queues/%00", None, 400, "name", "pattern"),
    ("PATCH", Q, {"weight": 0}, 400, "weight", "greater than or equal to 1"),
    ("PATCH", Q, {"weight": 1.5}, 400, "weight", "integer"),
    ("PATCH", Q, {"backOff": {"bse": "1s"}}, 400, "backOff.bse", "allowed are base"),
    ("PATCH", Q, {"fairnessWeights": {"a": 0}}, 400, "fairnessWeights.a", "greater than or equal to 0.001"),
    ("PATCH", Q, {"retentionFailed": "1s"}, 400, "retentionFailed", "greater than or equal to 3600"),
    ("PATCH", Q, "[]", 400, "", "object"),
    ("PUT", Q, "{", 400, "", "JSON"),
    ("DELETE", "/queues/no-such", None, 404, "", "there is no queue no-such"),
    ("POST", f"{Q}/pause", {"until": "2020-01-01T00:00:00Z"}, 400, "until", "is over already"),
    ("POST", f"{Q}/pause", {"until": "2027-01-01T00:00:00Z", "for": "1h"}, 400, "until", "conflicts with for"),
    ("POST", f"{Q}/pause", {"for": "-1h"}, 400, "for", "longer than 0s"),
    ("POST", f"{Q}/pause", {"until": "2020-01-01T00:00:00"}, 400, "until", "timezone"),
    ("POST", f"{Q}/purge", {"dryrun": True}, 400, "dryrun", "allowed are dryRun"),
    ("POST", f"{Q}/purge", {"dryRun": "perhaps"}, 400, "dryRun", "boolean"),
    ("POST", "/queues/no-such/purge", None, 404, "", "there is no queue"),
    ("POST", "/pause", {"reason": 5}, 400, "reason", "string"),
    ("POST", "/pause", {"untill": 5}, 400, "untill", "allowed are reason"),
    # types and rates
    ("GET", "/types/NoSuch", None, 404, "", "NoSuch"),
    ("GET", "/types/%00", None, 404, "", ""),
    ("PATCH", "/types/NoSuch", {"maxRunning": 1}, 404, "", "NoSuch"),
    ("PATCH", "/types/Note", {"maxRunning": 0}, 400, "maxRunning", "1 or more, or off"),
    ("PATCH", "/types/Note", {"rateLimits": {"no-such": 1}}, 400, "rateLimits.no-such", "known are"),
    ("PATCH", "/types/Note", {"weight": 1}, 400, "weight", "allowed are priority"),
    ("PUT", "/rate-limits/x", {}, 400, "rate", "required"),
    ("PUT", "/rate-limits/x", {"rate": "fast"}, 400, "rate", "such as 100/s"),
    ("PUT", "/rate-limits/x", {"rate": "0/s"}, 400, "rate", "such as 100/s"),
    ("PUT", "/rate-limits/x", {"rate": "1/s", "burst": 0}, 400, "burst", "greater than or equal to 1"),
    ("PUT", "/rate-limits/a%20b", {"rate": "1/s"}, 400, "name", "pattern"),
    ("DELETE", "/rate-limits/no-such", None, 404, "", "no-such"),
    # schedules
    ("POST", "/schedules", None, 400, "name", "required"),
    ("POST", "/schedules", WORK, 400, "cron", "name one of the two"),
    ("POST", "/schedules", {**HOURLY, "cron": "@daily"}, 400, "cron", "name one of the two"),
    ("POST", "/schedules", {**WORK, "cron": "61 * * * *"}, 400, "cron", ""),
    ("POST", "/schedules", {**WORK, "cron": "0 0 30 2 *"}, 400, "cron", ""),
    ("POST", "/schedules", {**WORK, "cron": "x"}, 400, "cron", ""),
    ("POST", "/schedules", {**WORK, "every": "1ms"}, 400, "every", "greater than or equal to 1"),
    ("POST", "/schedules", {**HOURLY, "timeZone": "Mars/Base"}, 400, "timeZone", ""),
    ("POST", "/schedules", {**HOURLY, "overlap": "maybe"}, 400, "overlap", "'allow', 'skip' or 'queue'"),
    ("POST", "/schedules", {**HOURLY, "taskType": "NoSuch"}, 400, "taskType", "known are"),
    ("POST", "/schedules", {**HOURLY, "payload": {}}, 400, "payload.processType", "required"),
    ("POST", "/schedules", {**HOURLY, "payload": {"processType": "a\0"}}, 400, "payload.processType", "NUL"),
    ("POST", "/schedules", {**HOURLY, "resources": {"GPU": 1}}, 400, "resources", "known are num_cpus"),
    ("POST", "/schedules", {**HOURLY, "$keys": ["a", "b"]}, 400, "$keys", "allowed are"),
    ("POST", "/schedules", {**HOURLY, "priority": 101}, 400, "priority", "less than or equal to 100"),
    ("POST", "/schedules", "[]", 400, "", "object"),
    ("POST", "/schedules", "{", 400, "", "JSON"),
    ("PATCH", "/schedules/configured", {"evry": "1h"}, 400, "evry", "allowed are"),
    ("PATCH", "/schedules/configured", "[]", 400, "", "object"),
    ("PATCH", "/schedules/no-such", {}, 404, "", "there is no schedule no-such"),
    ("POST", "/schedules/no-such/trigger", None, 404, "", "there is no schedule no-such"),
    ("POST", "/schedules/configured/pause", {"for": "0s"}, 400, "for", "longer than 0s"),
    ("POST", "/schedules/configured/backfill", {}, 400, "from", "required"),
    ("POST", "/schedules/configured/backfill", {"from": SPAN["to"], "to": SPAN["from"]}, 400, "to", "after from"),
    ("POST", "/schedules/configured/backfill", {**SPAN, "to": "2099-01-01T00:00:00Z"}, 400, "to", "not in the future"),
    ("POST", "/schedules/configured/backfill", {**SPAN, "dry": True}, 400, "dry", "allowed are from, to, dryRun"),
    # pools
    ("POST", "/pools", None, 400, "name", "required"),
    ("POST", "/pools", {"name": "p", "workers": -1}, 400, "workers", "greater than or equal to 0"),
    ("POST", "/pools", {"name": "p", "workers": {"min": 3, "max": 1}}, 400, "workers", "more than max"),
    ("POST", "/pools", {"name": "p", "numGpus": 1.5}, 400, "numGpus", "whole number"),
    ("POST", "/pools", {"name": "p", "memory": "much"}, 400, "memory", "must be bytes such as 2GiB"),
    ("POST", "/pools", {"name": "p", "queues": [IDLE_QUEUE]}, 400, "queues", "nobody"),
    ("POST", "/pools", {"name": "p", "worker": 1}, 400, "worker", "allowed are"),
    ("PATCH", "/pools/no-such", {"workers": 1}, 404, "", "no-such"),
    ("GET", "/pools/a%20b", None, 404, "", "there is no pool a b: known are default"),
]


def test_whatever_is_wrong_is_said_by_field_and_with_what_is_allowed(api: Api) -> None:
    before = [ask(api, "GET", path) for path in ("/rate-limits", "/schedules", "/operations")]
    found: list[str] = []
    for method, path, body, status, field, message in TABLE:
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        response = api.http.request(method, path, content=text, headers={"Content-Type": "application/json"})
        answer = response.json() if "json" in response.headers.get("content-type", "") else {}
        fields = [problem["field"] for problem in answer.get("errors", ())]
        is_said = message in answer.get("error", "") and (not field or field in fields)
        if response.status_code != status or not is_said or "error" not in answer:
            found.append(
                f"{method} {path} {(text or '')[:100]}\n    {response.status_code} {fields} {response.text[:300]}"
            )
    assert not found, "\n".join(found)
    assert [ask(api, "GET", path) for path in ("/rate-limits", "/schedules", "/operations")] == before
