"""Pools as resources, and tasks that ask for what their workers are to have."""

from typing import Any

import click
import pytest

from asyncproc.commands.client import ApiRefused
from tests.api.conftest import Api
from tests.api.test_commands import Terminal
from tests.api.test_queues import NOOP, ask
from tests.eventually import eventually


def setting(pool: Any, key: str) -> tuple[Any, str]:
    found = pool["settings"][key]
    return found["value"], found["from"]


def test_a_pool_is_made_changed_and_deleted(api: Api) -> None:
    body = {"queues": ["made"], "workers": {"min": 0, "max": 2}, "memory": "256MiB", "environment": {"A": "b"}}
    made = ask(api, "POST", "/pools", {"name": "made", **body}, 201)
    ask(api, "POST", "/pools", {"name": "made", **body}, 201)  # sent again: its answer may have been lost
    assert setting(made, "workers") == ({"min": 0, "max": 2}, "stored")
    assert setting(made, "memory") == ("256MiB", "stored")
    assert setting(made, "targetWait") == ("5s", "code")
    assert made["problem"] is None
    assert ask(api, "GET", "/queues/made")["settings"]["pool"] == {"value": "made", "from": "stored"}

    changed = ask(api, "PATCH", "/pools/made", {"workers": 0, "memory": None, "idleAfter": "10s"})
    assert setting(changed, "workers") == (0, "stored")
    assert setting(changed, "memory") == (None, "code")
    workers = eventually(lambda: found if (found := ask(api, "GET", "/pools/made")["workers"])["since"] else None)
    assert {workers[key] for key in ("present", "starting", "leaving", "wanted")} == {0}
    assert workers["reason"] == "as many as are set, whatever waits"
    assert setting(ask(api, "PUT", "/pools/made", {"workers": 0}), "queues") == ([], "code")
    assert ask(api, "PUT", "/queues/made", {"pool": "made"})["settings"]["pool"]["value"] == "made"
    assert "pool made serves made" in ask(api, "DELETE", "/pools/made", status=409)["error"]
    ask(api, "DELETE", "/queues/made", status=204)
    ask(api, "DELETE", "/pools/made", status=204)
    assert "there is no pool made: known are default, nobody" in ask(api, "GET", "/pools/made", status=404)["error"]


def test_what_the_configuration_says_of_a_pool_is_overlaid(api: Api) -> None:
    pools = {pool["name"]: pool for pool in ask(api, "GET", "/pools")["pools"]}
    assert setting(pools["default"], "workers") == (2, "config")
    assert pools["default"]["workers"]["present"] == 2
    assert setting(pools["nobody"], "queues") == (["idle"], "config")
    assert "PATCH changes it" in ask(api, "POST", "/pools", {"name": "nobody"}, 409)["error"]
    assert setting(ask(api, "PATCH", "/pools/nobody", {"concurrency": 3}), "concurrency") == (3, "stored")
    ask(api, "DELETE", "/pools/nobody", status=204)
    assert setting(ask(api, "GET", "/pools/nobody"), "concurrency") == (1, "code")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"workers": -1}, "workers"),
        ({"workers": {"min": 3, "max": 2}}, "min is 3, which is more than max, 2"),
        ({"workers": {"min": 1}}, "max: Field required"),
        ({"wrokers": 1}, "wrokers: is not known: allowed are"),
        ({"numGpus": 1.5}, "numGpus: numGpus is 1.5: above 1 it must be a whole number"),
        ({"memory": "much"}, "memory: must be bytes such as 2GiB"),
        ({"memory": "1MiB"}, "memory: Input should be greater than or equal to 67108864"),
        ({"resources": {"GPU": 1}}, "'GPU' is no resource"),
        ({"environment": {"A=": "b"}}, "'A=' is no name of an environment variable"),
        ({"runtimeEnv": {"pip": ["x" * 70_000]}}, "at most 65536 are allowed"),
        ({"runtimeEnv": {"pip": 7}}, "Ray does not take workers of this kind: TypeError"),
        ({"runtimeEnv": {"working_dir": "/tmp"}}, "/tmp is not a valid URI"),
        ({"targetWait": "soon"}, "targetWait: must be a duration"),
        ({"queues": ["default"]}, "queues: default is served by pool default: take it from there first"),
        ({"queues": ["a b"]}, "queues[0]: String should match pattern"),
    ],
)
def test_settings_that_no_pool_can_have_are_named(api: Api, body: Any, problem: str) -> None:
    assert problem in ask(api, "PATCH", "/pools/nobody", body, 400)["error"]


def test_a_pool_that_is_not_there_is_not_changed_by_a_typing_error(api: Api) -> None:
    for method in ("PATCH", "DELETE", "GET"):
        assert "there is no pool no-such" in ask(api, method, "/pools/no-such", {}, 404)["error"]
    assert "name" in ask(api, "POST", "/pools", {"name": "a~gpu1"}, 400)["error"]
    assert "name" in ask(api, "PUT", "/pools/default~gpu1", {}, 400)["error"]


def test_a_task_says_what_its_worker_is_to_have_and_why_it_waits(api: Api) -> None:
    asked = {"num_gpus": 64, "memory": "2GiB"}
    (task,) = api.enqueue({**NOOP, "resources": asked})
    try:
        assert api.task(task["id"])["resources"] == asked
        name = "default~gpu64-mem2GiB"
        eventually(
            lambda: [each for each in ask(api, "GET", "/pools")["pools"] if each["name"] == name and each["problem"]]
        )
        pool = ask(api, "GET", f"/pools/{name}")
        assert (pool["problem"], pool["shape"]) == ("no node offers 64 GPU", asked)
        assert (pool["workers"]["present"], pool["workers"]["wanted"]) == (0, 1)
        assert setting(pool, "workers") == ({"min": 0, "max": 8}, "config")
        health = ask(api, "GET", "/healthz")
        assert (health["status"], health["warnings"]) == ("healthy", [f"pool {name}: no node offers 64 GPU"])
        explained = ask(api, "GET", f"/task/{task['id']}/explain")
        assert explained["pool"] == name
        assert "no node offers 64 GPU" in explained["reasons"][0]["text"]
        (plain,) = api.enqueue(NOOP)
        assert api.ended(plain["id"])["resources"] is None
    finally:
        ask(api, "POST", f"/task/{task['id']}/cancel", {})


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ({"num_gpus": 1.5}, "tasks[0].resources: num_gpus is 1.5: above 1 it must be a whole number"),
        ({"memory": "2 potatoes"}, "tasks[0].resources: must be bytes such as 2GiB"),
        ({"GPU": 1}, "'GPU' is no resource: known are num_cpus, num_gpus and memory"),
        ([1], "tasks[0].resources: Input should be a valid dictionary"),
        ({"num_cpus": True}, "tasks[0].resources.num_cpus"),
    ],
)
def test_resources_that_cannot_be_are_named(api: Api, resources: Any, problem: str) -> None:
    answer = ask(api, "POST", "/tasks/enqueue", {"tasks": [{**NOOP, "resources": resources}]}, 400)
    assert problem in answer["error"]


def test_pools_are_steered_by_command(api: Api) -> None:
    terminal = Terminal(api.url)
    made = terminal.words("pools", "create", "typed", "workers.min=0", "workers.max=2", 'queues=["typed"]')
    assert made["workers"] == '{"min": 0, "max": 2} (stored)'
    assert terminal.words("pools", "set", "typed", "workers=0", "memory=1GiB")["memory"] == "1GiB (stored)"
    assert "typed" in terminal.text("pools", "list")
    assert terminal.json("pools", "show", "typed")["settings"]["workers"] == {"value": 0, "from": "stored"}
    assert terminal.json("pools", "delete", "typed") == {"name": "typed", "deleted": True}
    with pytest.raises((ApiRefused, click.ClickException), match="there is no pool typed"):
        terminal.text("pools", "show", "typed")
