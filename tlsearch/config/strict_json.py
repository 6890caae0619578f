"""A JSON file of a model folder, read as a stranger's: bounded, without repeated keys, held to the rules of a shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tlsearch.config.document.wording import show
from tlsearch.config.rules.schema_errors import error_text
from tlsearch.core import __version__
from tlsearch.core.errors import SpaceProblem, StorageError
from tlsearch.core.files import read_regular

STRICT_FORM = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_MAX_BYTES = 16_000_000
_SHOWN = 5


def read_strictly(path: Path, form: int, shape: TypeAdapter[Any]) -> Any:
    """A model's JSON file of the format ``form``, held to the rules of a shape.

    Raises:
        StorageError: There is none, or it breaks a rule; names the file, the key and the rule.
    """
    content = _read_object(path)
    if content.get("format") != form or isinstance(content["format"], bool):
        raise StorageError(
            f"a model checkpoint must have the format {form} that tlsearch {__version__} reads, "
            f"not {show(content.get('format'))}: {path}"
        )
    try:
        return shape.validate_python(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        texts = [str(SpaceProblem(path=tuple(one["loc"]), message=_text(one))) for one in found[:_SHOWN]]
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise StorageError(f"a model checkpoint breaks rules: {path}: {'; '.join(texts)}{more}") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise StorageError(f"a model checkpoint must be readable: {path}: {error.strerror}") from error
    if data.startswith(b"version https://git-lfs"):
        raise StorageError(
            f"{path} is a Git LFS pointer, not the file that it stands for: `git lfs pull` in its repository "
            "fetches that"
        )
    try:
        content = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise StorageError(f"a model checkpoint must be JSON, not nested this deep: {path}") from None
    except ValueError as error:
        raise StorageError(f"a model checkpoint must be JSON: {path}: {error}") from None
    if not isinstance(content, dict):
        raise StorageError(f"a model checkpoint must be a JSON object: {path}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {show(twice)} stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"a number must be finite, not {name}")


def _text(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "is a key that this version does not know; a newer tlsearch may have written it"
    if item["type"] == "missing":
        return "is required"
    return error_text(item)
