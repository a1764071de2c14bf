"""A Ray that others can reach asks for a token, or does not start; and workers hold no way into the database."""

import os

import pytest
import ray

from asyncproc.actors.exposure import check_start, check_this_ray
from asyncproc.config import RaySettings
from asyncproc.errors import ConfigError
from tests.actors.conftest import Deploy


def ray_settings(**values: object) -> RaySettings:
    return RaySettings.model_validate(values)


def test_where_nobody_says_it_the_token_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")

    assert check_start(ray_settings()) == []
    assert "RAY_AUTH_MODE" not in os.environ, "Ray has read it long ago"


def test_a_start_without_a_token_is_refused_until_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")

    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE is 'disabled'.*set ray.withoutToken to true to allow it"):
        check_start(ray_settings())
    (warning,) = check_start(ray_settings(withoutToken=True))
    assert warning.endswith("ray.withoutToken allows it")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8", "db.example.org", ""])
def test_a_dashboard_that_others_may_reach_is_refused_until_it_is_allowed(host: str) -> None:
    with pytest.raises(ConfigError, match=r"ray.dashboardHost .*set ray.publicDashboard to true to allow it"):
        check_start(ray_settings(dashboardHost=host))
    assert len(check_start(ray_settings(dashboardHost=host, publicDashboard=True))) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "10.1.2.3", "192.168.0.7", "127.0.0.2"])
def test_a_dashboard_on_loopback_or_a_private_network_is_not(host: str) -> None:
    assert check_start(ray_settings(dashboardHost=host)) == []


def test_a_ray_that_was_started_without_a_token_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_this_ray(ray_settings()) == []
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.5")

    with pytest.raises(ConfigError, match=r"this Ray listens on 10\.0\.0\.5 and asks nobody for a token"):
        check_this_ray(ray_settings())
    assert len(check_this_ray(ray_settings(withoutToken=True))) == 1
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    assert check_this_ray(ray_settings()) == []


def test_a_worker_holds_no_way_into_the_database(deploy: Deploy) -> None:
    system = deploy(queue={"workerPoolSize": 1})
    (worker,) = system.workers().values()
    url = system.deployment.conninfo

    def ask(actor: object) -> tuple[str, dict[str, str]]:
        return repr(vars(actor)), dict(os.environ)

    held, environment = ray.get(worker.__ray_call__.remote(ask))

    assert url not in held
    assert not [name for name in environment if name.startswith("ASYNCPROC_STORAGE_")]
    assert not [name for name, value in environment.items() if url in value]
