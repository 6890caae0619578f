"""The JSON schema of a space file, for editors: from the classes that read it and the table of dimensions.

It knows types, keys and bounds of single values; rules between values are for ``tlsearch check``.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from tlsearch.config.forms import FORMS, keys_of
from tlsearch.config.rules.schema_errors import OPTIONAL_SECTIONS, form_schema
from tlsearch.space.dimensions import PARAMETERS, RATIO_OF, RATIOS, Parameter
from tlsearch.space.libraries.backbones import backbone_names

Schema = dict[str, Any]

SCHEMA_FILE = "space.schema.json"


def space_schema() -> Schema:
    """The schema, in JSON Schema's draft 2020-12; each key with its sentence."""
    schema = form_schema()
    parts = {**schema.get("$defs", {}), FORMS[()].__name__: schema}
    for form in FORMS.values():
        meanings = meanings_of(form)
        properties = parts[form.__name__]["properties"]
        for name, key in keys_of(form).items():
            properties[key]["description"] = meanings[name]
    root = schema["properties"]
    for name in OPTIONAL_SECTIONS:  # they may stand there with no line in them
        root[name] = {"anyOf": [{k: v for k, v in root[name].items() if k != "description"}, {"type": "null"}]} | {
            "description": root[name]["description"]
        }
    root["space"] = {"description": root["space"]["description"], **_space()}
    schema["$defs"] |= {"Backbone": _backbone(), "When": _when()}
    search = schema["$defs"]["SearchSpec"]["properties"]
    search["start_with"]["items"] = _points()
    for form in root["weights"]["anyOf"]:
        if form["type"] == "object":
            form["propertyNames"] = {"$ref": "#/$defs/Backbone"}
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A space file of tlsearch"}
    return {**title, **_without_titles(schema)}


def schema_text() -> str:
    """The schema as a file holds it."""
    return json.dumps(space_schema(), indent=1, ensure_ascii=False) + "\n"


def _without_titles(node: Any) -> Any:
    """pydantic repeats every key as a title, which editors show in place of the description."""
    if isinstance(node, dict):
        return {k: _without_titles(v) for k, v in node.items() if not (k == "title" and isinstance(v, str))}
    return [_without_titles(one) for one in node] if isinstance(node, list) else node


def _space() -> Schema:
    dimensions = {name: {"description": one.meaning, "anyOf": _dimension(one)} for name, one in PARAMETERS.items()}
    return {"type": "object", "properties": dimensions, "required": ["backbone"], "additionalProperties": False}


def _points() -> Schema:
    """An entry of ``start_with``."""
    return _mapping({name: _value(one) for name, one in PARAMETERS.items()}, [])


def _backbone() -> Schema:
    """The names that editors offer, and those that name a version of the weights."""
    return {"anyOf": [{"enum": list(backbone_names())}, {"type": "string", "pattern": r"^[^@]+@.|^timm/[^.]+[.]."}]}


def _value(one: Parameter) -> Schema:
    """One value of a dimension."""
    if one.name == "backbone":
        return {"$ref": "#/$defs/Backbone"}
    if one.kind == "choice":
        return {"enum": list(one.choices)}
    low = {"exclusiveMinimum" if one.above_low else "minimum": one.low}
    return {"type": "integer" if one.kind == "whole" else "number", **low, "maximum": one.high}


def _dimension(one: Parameter) -> list[Schema]:
    """A value, a list, a list or a range beside a condition; for a ratio the same of its factors."""
    value = _value(one)
    when: Mapping[str, Schema] = {} if one.name == "backbone" else {"when": {"$ref": "#/$defs/When"}}
    forms = [value, _list_of(value), *_mappings(one, when)]
    if one.name in RATIO_OF:
        forms += _mappings(RATIOS[one.name], {**when, "ratio_of": {"const": RATIO_OF[one.name]}})
    return forms


def _mappings(one: Parameter, beside: Mapping[str, Schema]) -> list[Schema]:
    required = ["ratio_of"] if "ratio_of" in beside else []
    value = _value(one)
    forms = [_mapping({"choice": _list_of(value), **beside}, ["choice", *required])]
    if one.name == "backbone":
        forms.append(_mapping({"from": _list_of(value), "screen": {"type": "boolean"}}, ["from"]))
    if one.kind == "choice":
        return forms
    ends = {"type": "array", "items": value, "minItems": 2, "maxItems": 2}
    step = {"type": "integer" if one.kind == "whole" else "number", "exclusiveMinimum": 0}
    if one.kind == "whole":
        return [*forms, _mapping({"int": ends, "step": step, **beside}, ["int", *required])]
    forms.append(_mapping({"float": ends, "step": step, **beside}, ["float", *required]))
    return [*forms, _mapping({"log": ends, **beside}, ["log", *required])]


def _when() -> Schema:
    """Conditions on dimensions."""
    conditions = {name: _condition(one) for name, one in PARAMETERS.items()}
    return {**_mapping(conditions, []), "minProperties": 1}


def _condition(one: Parameter) -> Schema:
    forms = [_value(one), _list_of(_value(one))]
    if one.kind != "choice":
        forms.append({**_mapping({"ge": {"type": "number"}, "le": {"type": "number"}}, []), "minProperties": 1})
    return {"anyOf": forms}


def _list_of(value: Schema) -> Schema:
    return {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}


def _mapping(properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def meanings_of(form: type) -> dict[str, str]:
    """The sentences about a class's fields, from the section Attributes of its docstring, by field."""
    text = inspect.getdoc(form) or ""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Attributes:\n")[2].splitlines():
        begun = re.match(r" {4}(\w+): (.*)", line)
        if begun:
            name, found[begun[1]] = begun[1], begun[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {name: sentence.replace("``", "`") for name, sentence in found.items()}
