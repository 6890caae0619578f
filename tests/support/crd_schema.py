"""A Kubernetes CRD as a strict JSON schema: unknown keys are faults, fields with a default need not be given."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

Schema = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a CRD has a megabyte


def strict_schema(path: Path, version: str = "v1") -> Schema:
    """The schema of one version of the CRD in a file, made strict."""
    crd = yaml.load(path.read_text(), Loader=_LOADER)
    (found,) = [one for one in crd["spec"]["versions"] if one["name"] == version]
    schema = copy.deepcopy(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return _strict(schema)


def _strict(schema: Schema) -> Schema:
    properties = schema.get("properties")
    if properties is not None:
        for one in properties.values():
            _strict(one)
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
        if "required" in schema:
            schema["required"] = [one for one in schema["required"] if "default" not in properties.get(one, {})]
    elif isinstance(schema.get("additionalProperties"), dict):
        _strict(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        _strict(schema["items"])
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return schema


def faults(schema: Schema, document: Any) -> list[str]:
    """What the document breaks, with the place."""
    found = Draft7Validator(schema).iter_errors(document)
    return [f"{'.'.join(str(part) for part in one.absolute_path)}: {one.message[:200]}" for one in found]
