"""A space file as a document: plain values, and the place of every key and value.

Tags, merge keys and nesting without end are refused.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tlsearch.config.document.positions import Document, Keys, Position
from tlsearch.config.document.wording import nearest, show
from tlsearch.config.document.yaml_text import (
    BOOL,
    CORE_TAG,
    FLOAT,
    INT,
    MAX_DEPTH,
    MAX_NODES,
    NULL,
    Refused,
    compose,
    position_of,
    syntax_problem,
)
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.files import open_regular

MAX_BYTES = 1_000_000
MAX_ENTRIES = 1000  # of one list or mapping: each may be an error that is compared with all right names
_LARGEST = 2**63


@dataclass(kw_only=True)
class _Builder:
    """Turns nodes into plain values, noting places and errors as it goes."""

    file: str
    keys: dict[Keys, Position] = field(default_factory=dict)
    values: dict[Keys, Position] = field(default_factory=dict)
    problems: list[SpaceProblem] = field(default_factory=list)
    doubts: set[Keys] = field(default_factory=set)
    active: set[int] = field(default_factory=set)
    num_nodes: int = 0

    def build(self, node: yaml.Node, path: Keys) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise Refused(None, None, "aliases may not multiply the file without end", node.start_mark)
        if isinstance(node, yaml.CollectionNode) and len(node.value) > MAX_ENTRIES:
            rule = f"a list or mapping may have at most {MAX_ENTRIES} entries, not {len(node.value)}"
            raise Refused(None, None, rule, node.start_mark)
        if id(node) in self.active:
            raise Refused(None, None, "an alias may not contain itself", node.start_mark)
        self.active.add(id(node))
        self.values[path] = position_of(node.start_mark)
        value: Any
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, path, "map")
            value = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, "seq")
            value = [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            assert isinstance(node, yaml.ScalarNode)
            value = self._scalar(node, path)
        self.active.discard(id(node))
        return value

    def _mapping(self, node: yaml.MappingNode, path: Keys) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                shown = show(key) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self._problem(path, f"a key must be text, not {shown}: put it in quotes", key_node.start_mark)
                continue
            inner = (*path, key)
            if key == "<<":
                self._problem(inner, "merge keys (<<) are not read: write the keys out", key_node.start_mark)
                continue
            if key in result:
                first = self.keys[inner].line
                self._problem(
                    inner, f"a key may stand only once; {key!r} stands in line {first} too", key_node.start_mark
                )
                continue
            self.keys[inner] = position_of(key_node.start_mark)
            result[key] = self.build(value_node, inner)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Keys) -> Any:
        kind = node.tag.removeprefix(CORE_TAG)
        text: str = node.value
        if kind == "str":
            if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
                self._problem(path, f"text may hold no NUL and no half characters: {text!r}", node.start_mark)
                return ""
            return text
        if kind == "null" and NULL.match(text):
            return None
        if kind == "bool" and BOOL.match(text):
            return text.lower() in ("yes", "true", "on")
        if kind == "int" and INT.match(text):
            return self._whole(text, node, path)
        if kind in ("float", "int") and (FLOAT.match(text) or INT.match(text)):
            plain = text.replace("_", "").lower()
            return float(plain.replace(".", "") if plain.endswith(("inf", "nan")) else plain)
        self._problem(path, f"tags are not allowed; {node.tag!r} is one", node.start_mark)
        return None

    def _whole(self, text: str, node: yaml.Node, path: Keys) -> int:
        number = int(text.replace("_", "")) if len(text) < 30 else _LARGEST
        if abs(number) >= _LARGEST:
            self._problem(path, f"a whole number must lie within +-2^63; {show(text)} does not", node.start_mark)
            return 0
        return number

    def _check_tag(self, node: yaml.Node, path: Keys, kind: str) -> None:
        if node.tag != CORE_TAG + kind:
            self._problem(path, f"tags are not allowed; {node.tag!r} is one", node.start_mark)

    def _problem(self, path: Keys, message: str, mark: yaml.Mark) -> None:
        place = position_of(mark)
        self.doubts.add(path)
        self.problems.append(
            SpaceProblem(path=path, message=message, file=self.file, line=place.line, column=place.column)
        )


def read_document(path: Path) -> tuple[Document | None, list[SpaceProblem]]:
    """Reads a space file.

    Returns:
        The document and its errors so far; None where there is nothing that could be read further.
    """
    text, problem = _read_text(path)
    if problem is not None:
        return None, [problem]
    return parse_document(text, path)


def parse_document(text: str, path: Path) -> tuple[Document | None, list[SpaceProblem]]:
    """As ``read_document``, from text; ``path`` only names it."""
    node, problem = compose(text, str(path))
    if problem is not None:
        return None, [problem]
    builder = _Builder(file=str(path))
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return None, [_root_problem(path, "the file is empty; a space file has at least name, data and space")]
    if not isinstance(node, yaml.MappingNode):
        return None, [_root_problem(path, "the file must be a mapping, with keys such as name, data and space")]
    try:
        tree = builder.build(node, ())
    except Refused as error:
        return None, [syntax_problem(error, str(path), text)]
    document = Document(path=path, tree=tree, keys=builder.keys, values=builder.values)
    return document.with_doubts(builder.doubts - {()}), builder.problems


def parse_value(text: str) -> Any:
    """One value as it would stand in a space file, for ``--set``.

    Raises:
        ValueError: The text is not a YAML value, or has errors of its own.
    """
    node, problem = compose(text, "")
    if problem is not None:
        raise ValueError(problem.message)
    if node is None:
        return None
    builder = _Builder(file="")
    try:
        value = builder.build(node, ())
    except Refused as error:
        raise ValueError(str(error.problem)) from None
    if builder.problems:
        raise ValueError(builder.problems[0].message)
    return value


def _read_text(path: Path) -> tuple[str, SpaceProblem | None]:
    try:
        with open_regular(path, MAX_BYTES) as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"{path}: the space file cannot be read: {reason}{_remedy(path)}"
        return "", SpaceProblem(path=(), message=message, file=str(path))
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"the file must be UTF-8 text; byte 0x{data[error.start]:02x} is not"
        return "", SpaceProblem(path=(), message=message, file=str(path), line=line, column=column)


def _remedy(path: Path) -> str:
    """What to give in place of a path that names no file; empty where it names one."""
    try:
        if path.is_dir():
            return f"; for a folder of images, `tlsearch init {shlex.quote(str(path))}` writes a space file"
        if path.exists():
            return ""
        near = nearest(path.name, (one.name for one in path.parent.glob("*.y*ml")))
    except (OSError, ValueError):
        return ""
    return f"; did you mean {path.with_name(near)}?" if near else "; `tlsearch init IMAGES` writes one"


def _root_problem(path: Path, message: str) -> SpaceProblem:
    return SpaceProblem(path=(), message=message, file=str(path), line=1, column=1)
