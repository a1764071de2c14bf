"""Of the schema of a RayService what deploy/kuberay.yaml uses, written down by hand.

Read from v1 in helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml of ray-project/kuberay, commit
02a80a6f2abf691f2f4e89e4b7c47672bc259b5c, which is later than 1.6. The youngest of these fields,
`authOptions.secretName`, came with 1.6.0.
"""

from typing import Final

from tests.deploy.custom_resource import Schema


def fields(required: str = "", **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required.split()}


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def named(values: Schema) -> Schema:
    """Fields of any name."""
    return {"type": "object", "additionalProperties": values}


def one_of(*words: str) -> Schema:
    return {"type": "string", "enum": [*words]}


TEXT: Final[Schema] = {"type": "string"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
INT32: Final[Schema] = {"type": "integer", "format": "int32"}
INT64: Final[Schema] = {"type": "integer", "format": "int64"}
PORT: Final[Schema] = {"x-kubernetes-int-or-string": True}
QUANTITY: Final[Schema] = {
    "x-kubernetes-int-or-string": True,
    "pattern": r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?(\d+(\.\d*)?|\.\d+))?$",
}

RESOURCES: Final = fields(requests=named(QUANTITY), limits=named(QUANTITY))
SOURCE: Final = fields(secretKeyRef=fields("key", name=TEXT, key=TEXT))
PROBE: Final = fields(
    httpGet=fields("port", path=TEXT, port=PORT),
    periodSeconds=INT32,
    timeoutSeconds=INT32,
    failureThreshold=INT32,
)
CONTAINER: Final = fields(
    "name",
    name=TEXT,
    image=TEXT,
    env=many(fields("name", name=TEXT, valueFrom=SOURCE)),
    ports=many(fields("containerPort", containerPort=INT32, name=TEXT)),
    resources=RESOURCES,
    startupProbe=PROBE,
    readinessProbe=PROBE,
    livenessProbe=PROBE,
    volumeMounts=many(fields("name mountPath", name=TEXT, mountPath=TEXT, subPath=TEXT)),
)
TEMPLATE: Final = fields(
    spec=fields(
        "containers",
        terminationGracePeriodSeconds=INT64,
        containers=many(CONTAINER),
        volumes=many(fields("name", name=TEXT, configMap=fields(name=TEXT))),
    )
)
CLUSTER: Final = fields(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=fields(mode=one_of("disabled", "token"), secretName=TEXT),
    enableInTreeAutoscaling=BOOLEAN,
    autoscalerOptions=fields(
        idleTimeoutSeconds=INT32,
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        resources=RESOURCES,
    ),
    gcsFaultToleranceOptions=fields(redisAddress=TEXT, redisPassword=fields(valueFrom=SOURCE)),
    headGroupSpec=fields("template", rayStartParams=named(TEXT), template=TEMPLATE),
    workerGroupSpecs=many(
        fields(
            "groupName template",  # minReplicas and maxReplicas too, but these have defaults
            groupName=TEXT,
            replicas=INT32,
            minReplicas=INT32,
            maxReplicas=INT32,
            rayStartParams=named(TEXT),
            template=TEMPLATE,
        )
    ),
)
RAY_SERVICE: Final = fields(
    apiVersion=TEXT,
    kind=TEXT,
    metadata=fields(),
    spec=fields(
        "rayClusterConfig",
        # To the schema any word is right: it is the operator that refuses others.
        upgradeStrategy=fields(type=one_of("NewClusterWithIncrementalUpgrade", "NewCluster", "None")),
        serveConfigV2=TEXT,
        rayClusterConfig=CLUSTER,
    ),
)
