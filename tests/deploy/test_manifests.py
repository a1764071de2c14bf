"""What is handed to others to start a cluster with is well-formed, closed, and keeps the database from workers.

The files for `ray up` are held against the schema that Ray ships. KubeRay's is in no package: its file is held against
what rayservice.py says of it, and with KUBERAY_CRD=FILE against all of a published one.
"""

import os
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from asyncproc.config import Settings
from tests.deploy.custom_resource import problems, schema_of
from tests.deploy.rayservice import RAY_SERVICE

ROOT: Final = Path(__file__).resolve().parents[2]
FOR_RAY_UP: Final = ("cluster.yaml", "deploy/cluster.aws.yaml", "deploy/cluster.gcp.yaml")


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / name).read_text()))


@pytest.mark.parametrize("name", FOR_RAY_UP)
def test_a_file_for_ray_up_is_one(name: str) -> None:
    config = load(name)
    validate_config(prepare_config(config))
    if name != "cluster.yaml":
        types = config["available_node_types"]
        assert set(types) == {"head", "cpu", "gpu"}
        assert types["head"]["resources"] == {"CPU": 0}
        assert all(types[group]["max_workers"] <= config["max_workers"] for group in ("cpu", "gpu"))
        assert "FILL IN" in (ROOT / name).read_text()
    for source in config["file_mounts"].values():
        # The token and asyncproc.yaml are the user's own.
        assert source.startswith("~") or source == "asyncproc.yaml" or (ROOT / source).exists(), source


@pytest.mark.parametrize("name", FOR_RAY_UP)
def test_a_cluster_of_ray_up_is_closed(name: str) -> None:
    config = load(name)
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in starts:
        if "ray start" in command or "asyncproc deploy" in command:
            assert "RAY_AUTH_MODE=token" in command, command
    (head,) = [command for command in starts if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head
    for key in ("worker_start_ray_commands", "setup_commands", "worker_setup_commands"):
        assert not re.search("STORAGE|asyncproc.env", " ".join(config.get(key, []))), "workers need no database"


def test_the_cloud_variants_differ_from_the_plain_one_where_they_must() -> None:
    plain, *clouds = map(load, FOR_RAY_UP)
    for cloud in clouds:
        for key in ("file_mounts", "head_start_ray_commands", "worker_start_ray_commands"):
            assert cloud[key] == plain[key]


def test_compose_publishes_to_this_machine_alone() -> None:
    for name, service in load("docker-compose.yml")["services"].items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name}: {port}"
    assert "RAY_AUTH_MODE=token" in (ROOT / "Dockerfile").read_text()


# ---- Kubernetes


def objects() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text())}


def both_ways() -> list[dict[str, Any]]:
    """The RayService as it stands, and with the lines for a Redis."""
    text = (ROOT / "deploy" / "kuberay.yaml").read_text()
    with_redis = re.sub(r"^    # (gcs|  )", r"    \1", text, flags=re.MULTILINE)
    found = [each for one in (text, with_redis) for each in yaml.safe_load_all(one) if each["kind"] == "RayService"]
    assert ["gcsFaultToleranceOptions" in each["spec"]["rayClusterConfig"] for each in found] == [False, True]
    return found


def test_the_rayservice_uses_fields_that_there_are() -> None:
    for service in both_ways():
        assert (service["apiVersion"], service["spec"]["rayClusterConfig"]["rayVersion"]) == ("ray.io/v1", "2.60.0")
        assert problems(RAY_SERVICE, service) == []
        for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.skipif("KUBERAY_CRD" not in os.environ, reason="KUBERAY_CRD names no ray.io_rayservices.yaml")
def test_the_rayservice_fits_a_published_schema() -> None:
    schema = schema_of(yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text()), "v1")
    for service in both_ways():
        assert problems(schema, service) == []


def test_what_serve_is_given_on_kubernetes_is_a_serve_config() -> None:
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(yaml.safe_load(objects()["RayService"]["spec"]["serveConfigV2"]))

    (app,) = config.applications
    module, name = str(app.import_path).split(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name))
    assert app.args == {"startDir": "/app"}
    Settings.model_validate(yaml.safe_load(objects()["ConfigMap"]["data"]["asyncproc.yaml"]))


def test_on_kubernetes_only_the_head_is_told_of_the_database_and_all_pods_are_probed() -> None:
    cluster = objects()["RayService"]["spec"]["rayClusterConfig"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    told = []
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] in ("/api/gcs_healthz", "/api/local_raylet_healthz")
        assert container["resources"]["requests"]["cpu"]
        assert container["resources"]["limits"]["memory"]
        told.append([variable["name"] for variable in container.get("env", [])])
        assert "password" not in str(container.get("env")).lower()
    assert told == [["ASYNCPROC_STORAGE_URL"], [], []]
