"""Holds an object against the schema of a CustomResourceDefinition as `kubectl apply` does: what it does not name is
refused. The expressions in `x-kubernetes-validations` are not evaluated.
"""

from typing import Any, Final, TypeAlias

from jsonschema import Draft202012Validator

Schema: TypeAlias = dict[str, Any]

_PASSED_ON: Final = (
    "type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties",
    "maxProperties", "allOf", "anyOf", "oneOf", "not",
)  # fmt: skip
"""What means the same in both; inside of the last four there are only further conditions, no fields."""
_WIDTHS: Final = {"int32": 31, "int64": 63}


def schema_of(definition: Schema, version: str) -> Schema:
    """Raises `LookupError` where the definition has no such version."""
    for each in definition["spec"]["versions"]:
        if each["name"] == version:
            found: Schema = each["schema"]["openAPIV3Schema"]
            return found
    raise LookupError(f"{definition['metadata']['name']} has no version {version}")


def problems(schema: Schema, resource: Any) -> list[str]:
    """Where and what, in the order of the fields; empty for an object that an API server takes."""
    found = Draft202012Validator(_object(schema)).iter_errors(resource)
    return sorted(f"{error.json_path.removeprefix('$.')}: {error.message}" for error in found)


def _object(schema: Schema) -> Schema:
    """An API server sees to `metadata` itself, whatever the schema says."""
    root = _strict(schema)
    if "metadata" in root.get("properties", {}):
        root["properties"]["metadata"] = {"type": "object"}
    return root


def _strict(schema: Schema) -> Schema:
    strict: Schema = {key: schema[key] for key in _PASSED_ON if key in schema}
    fields: dict[str, Schema] = schema.get("properties", {})
    if schema.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
    if fields:
        strict["properties"] = {name: _strict(field) for name, field in fields.items()}
    # Defaults are filled in before anything is held against the schema.
    strict["required"] = [name for name in schema.get("required", ()) if "default" not in fields.get(name, {})]
    if schema.get("type") == "object":
        strict["additionalProperties"] = _further(schema)
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if schema.get("x-kubernetes-list-type") == "set":
        strict["uniqueItems"] = True
    if (bits := _WIDTHS.get(schema.get("format", ""))) is not None:
        strict["minimum"] = max(strict.get("minimum", -(2**bits)), -(2**bits))
        strict["maximum"] = min(strict.get("maximum", 2**bits - 1), 2**bits - 1)
    return {"anyOf": [strict, {"type": "null"}]} if schema.get("nullable") else strict


def _further(schema: Schema) -> Schema | bool:
    """What may stand beside the fields that have names."""
    further = schema.get("additionalProperties", False)
    if isinstance(further, dict):
        return _strict(further)
    return bool(further) or schema.get("x-kubernetes-preserve-unknown-fields", False)
