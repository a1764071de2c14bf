"""What holds a file against a published schema refuses what an API server refuses, and nothing else."""

import copy
from typing import Any, Final

import pytest
import yaml

from tests.deploy.custom_resource import problems, schema_of
from tests.deploy.rayservice import RAY_SERVICE
from tests.deploy.test_manifests import objects

DEFINITION: Final = yaml.safe_load("""
metadata: {name: ponds.example.org}
spec:
  versions:
    - name: v1alpha1
      schema: {openAPIV3Schema: {type: object}}
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [depth, ducks, kinds]
              properties:
                depth:
                  anyOf: [{type: integer}, {type: string}]
                  pattern: ^[0-9]+(m|cm)?$
                  x-kubernetes-int-or-string: true
                ducks: {type: integer, format: int32, minimum: 0}
                kinds:
                  type: array
                  x-kubernetes-list-type: set
                  items: {type: string, enum: [mallard, teal]}
                frozen: {type: boolean, nullable: true}
                labels: {type: object, additionalProperties: {type: string}}
                plants: {type: object, x-kubernetes-preserve-unknown-fields: true}
                stones: {type: object}
                fish:
                  type: array
                  items:
                    type: object
                    required: [name, size]
                    properties: {name: {type: string}, size: {type: integer, default: 3}}
""")
POND: Final = yaml.safe_load("""
apiVersion: example.org/v1
kind: Pond
metadata: {name: pond, labels: {a: b}}
spec:
  depth: 90cm
  ducks: 4
  kinds: [teal, mallard]
  frozen: null
  labels: {any: thing}
  plants: {reed: {height: 2}}
  stones: {}
  fish: [{name: Moby}]
""")


def with_field(path: str, value: Any) -> dict[str, Any]:
    *ways, last = path.split(".")
    found = pond = copy.deepcopy(POND)
    for way in ways:
        found = found[0] if way == "0" else found[way]
    found[last] = value
    return dict(pond)


def test_what_is_right_passes() -> None:
    schema = schema_of(DEFINITION, "v1")
    assert problems(schema, POND) == []
    assert problems(schema, with_field("spec.depth", 3)) == []
    assert problems(schema, with_field("spec.frozen", True)) == []
    with pytest.raises(LookupError, match=r"ponds\.example\.org has no version v2"):
        schema_of(DEFINITION, "v2")


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("spec.duck", 1, "spec: Additional properties are not allowed ('duck' was unexpected)"),
        ("speck", {}, "$: Additional properties are not allowed ('speck' was unexpected)"),
        ("spec.fish.0.colour", "red", "spec.fish[0]: Additional properties are not allowed ('colour' was unexpected)"),
        ("spec.stones.first", 1, "spec.stones: Additional properties are not allowed ('first' was unexpected)"),
        ("spec.ducks", "4", "spec.ducks: '4' is not of type 'integer'"),
        ("spec.ducks", True, "spec.ducks: True is not of type 'integer'"),
        ("spec.ducks", None, "spec.ducks: None is not of type 'integer'"),
        ("spec.ducks", -1, "spec.ducks: -1 is less than the minimum of 0"),
        ("spec.ducks", 2**31, "spec.ducks: 2147483648 is greater than the maximum of 2147483647"),
        ("spec.depth", "deep", "spec.depth: 'deep' does not match '^[0-9]+(m|cm)?$'"),
        ("spec.depth", 0.5, "spec.depth: 0.5 is not of type 'integer', 'string'"),
        ("spec.kinds", ["teal", "swan"], "spec.kinds[1]: 'swan' is not one of ['mallard', 'teal']"),
        ("spec.kinds", ["teal", "teal"], "spec.kinds: ['teal', 'teal'] has non-unique elements"),
        ("spec.labels.any", 1, "spec.labels.any: 1 is not of type 'string'"),
        ("spec.fish", [{}], "spec.fish[0]: 'name' is a required property"),
        ("spec", {"ducks": 1, "depth": 1}, "spec: 'kinds' is a required property"),
    ],
)
def test_what_is_wrong_is_refused(path: str, value: Any, problem: str) -> None:
    assert problem in problems(schema_of(DEFINITION, "v1"), with_field(path, value))


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("authOptions.mode", "on", "spec.rayClusterConfig.authOptions.mode: 'on' is not one of ['disabled', 'token']"),
        ("headGroupSpec.rayStartParams", {"num-cpus": 0}, "0 is not of type 'string'"),
        ("autoscalerOptions.resources", {"limits": {"memory": "512MiB"}}, "'512MiB' does not match"),
        ("enableInTreeAutoscaling", "true", "'true' is not of type 'boolean'"),
        ("headGroupSpec.template", {"spec": {}}, "'containers' is a required property"),
        ("gcsFaultToleranceOptions", {"redisUrl": "redis:6379"}, "('redisUrl' was unexpected)"),
    ],
)
def test_a_rayservice_that_is_wrong_is_refused(path: str, value: Any, problem: str) -> None:
    service = copy.deepcopy(objects()["RayService"])
    found = service["spec"]["rayClusterConfig"]
    *ways, last = path.split(".")
    for way in ways:
        found = found[way]
    found[last] = value

    (said,) = problems(RAY_SERVICE, service)
    assert problem in said
