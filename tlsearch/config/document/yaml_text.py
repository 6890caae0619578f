"""Safe YAML as nodes: scalars as people read them, syntax errors with a hint, and a text without its secrets.

Plain scalars are resolved as people read them: ``1e-3`` is a number, ``1:30`` and ``2024-01-01`` are text (YAML 1.1 has
it the other way round).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tlsearch.config.document.positions import Position
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.secrets import mask, remember

MAX_NODES = 10_000
MAX_DEPTH = 32

CORE_TAG = "tag:yaml.org,2002:"
INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
BOOL = re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_RESOLVERS: dict[Any, list[tuple[str, re.Pattern[str]]]] = {
    None: [(CORE_TAG + "bool", BOOL), (CORE_TAG + "int", INT), (CORE_TAG + "float", FLOAT), (CORE_TAG + "null", NULL)]
}
_ENTRY = re.compile(r"^(?P<start>\s*(?:- +)?(?P<key>[\w.@/-]+): +)(?P<value>\S.*?)\s*$")
_NO_COLON = re.compile(r"^\s*(?P<key>[A-Za-z_]\w*)(?::(?=[^\s:/\\])| +(?=\w))(?P<value>[^\s:]+)\s*$")
_NO_BLANK = re.compile(r"^\s*(?:- +)?(?P<key>[A-Za-z_]\w*):(?P<value>[^\s:/\\][^\s]*)\s*$")


class Refused(yaml.MarkedYAMLError):
    """A rule of ours, not YAML's."""


class SpaceLoader(yaml.SafeLoader):
    """SafeLoader with our scalars, a limit of nodes and of depth; used to compose nodes only."""

    yaml_implicit_resolvers = _RESOLVERS

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._num_nodes += 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._num_nodes > MAX_NODES:
            raise Refused(None, None, f"the file must hold at most {MAX_NODES} keys and values", mark)
        if self._depth >= MAX_DEPTH:
            raise Refused(None, None, f"lists and mappings may be nested at most {MAX_DEPTH} deep", mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class SpaceDumper(yaml.SafeDumper):
    """SafeDumper that quotes exactly what SpaceLoader would not read back as text."""

    yaml_implicit_resolvers = _RESOLVERS


def compose(text: str, file: str) -> tuple[yaml.Node | None, SpaceProblem | None]:
    """The nodes of a text, or its first error."""
    loader: SpaceLoader | None = None
    try:
        loader = SpaceLoader(text)
        return loader.get_single_node(), None
    except yaml.reader.ReaderError as error:
        start = text.rfind("\n", 0, error.position) + 1
        message = f"the file holds a character that YAML forbids: {text[error.position]!r}"
        line = text.count("\n", 0, error.position) + 1
        return None, SpaceProblem(path=(), message=message, file=file, line=line, column=error.position - start + 1)
    except yaml.MarkedYAMLError as error:
        return None, syntax_problem(error, file, text)
    except (ValueError, OverflowError):  # PyYAML lets chr() fail on \U escapes beyond Unicode
        assert loader is not None
        place = position_of(loader.get_mark())
        message = "an escape in a quoted text is not a character"
        return None, SpaceProblem(path=(), message=message, file=file, line=place.line, column=place.column)
    finally:
        if loader is not None:
            loader.dispose()


def syntax_problem(error: yaml.MarkedYAMLError, file: str, text: str) -> SpaceProblem:
    """Places an unclosed bracket or quote where it was opened, since YAML notices it lines later."""
    mark, message = error.problem_mark, error.problem or "this is not YAML"
    opened = error.context_mark is not None and re.search(r"flow|quoted|simple key", error.context or "")
    if "'\\t'" in message:
        message = "a tab may not indent: use spaces"
    elif "expected a single document" in (error.context or ""):
        message = "the file must be one document, without a second '---'"
    elif opened:
        assert error.context_mark is not None
        noticed = f", noticed in line {mark.line + 1}" if mark and mark.line != error.context_mark.line else ""
        mark, message = error.context_mark, f"{error.context}: {message}{noticed}"
    elif not isinstance(error, Refused):
        message = f"{error.context}: {message}" if error.context else message
    if not isinstance(error, Refused):
        tells = mark is not None and "a tab may not" not in message
        hint = yaml_hint(f"{error.context} {error.problem}", text.splitlines(), mark.line) if tells and mark else ""
        message = f"this is not valid YAML: {message}{hint}"
    place = position_of(mark) if mark is not None else Position(line=1, column=1)
    return SpaceProblem(path=(), message=message, file=file, line=place.line, column=place.column)


def yaml_hint(problem: str, lines: list[str], number: int) -> str:
    """How to write the line that YAML stumbled over; empty where that is not clear.

    Args:
        problem: In YAML's words.
        lines: Of the file.
        number: Of the line in question, from 0.
    """
    line = lines[number] if number < len(lines) else ""
    entry = _ENTRY.match(line.partition(" #")[0])
    if "unknown escape character" in problem:
        return r"; in double quotes a backslash begins an escape: use single quotes, as in 'C:\images', or slashes"
    if "mapping values are not allowed" in problem:
        before = _NO_COLON.match(lines[number - 1]) if number else None
        if before:
            return f"; in line {number}, a colon and a blank follow the key: {before['key']}: {before['value']}"
        if entry and re.search(r":(\s|$)", entry["value"]):
            return f"; a text with a colon is put in quotes: {entry['key']}: {_quoted(entry['value'])}"
        return "; keys of one section begin in the same column, and a key that has keys below it has no value"
    if "cannot start any token" in problem or "scanning an a" in problem or "undefined alias" in problem:
        return f"; a text that begins so is put in quotes: {entry['key']}: {_quoted(entry['value'])}" if entry else ""
    if "could not find expected ':'" in problem:
        for one in lines[max(0, number - 1) : number + 2]:
            if written := _NO_BLANK.match(one):
                return f"; a blank follows the colon: {written['key']}: {written['value']}"
    if "expected <block end>" in problem:
        if entry and entry["value"][0] in "[{\"'":
            return f"; such a text is put in quotes as a whole: {entry['key']}: {_quoted(entry['value'])}"
        if "'-'" in problem:
            return "; an entry of a list ('- ') stands below the key that it belongs to"
        return "; keys of one section begin in the same column"
    if "expected ',' or" in problem and "got ':'" in problem:
        return "; a text with a colon is put in quotes, and every bracket is closed"
    return ""


def _quoted(text: str) -> str:
    if text[0] == text[-1] == "'" and len(text) > 1:
        text = text[1:-1]
    return "'" + text.replace("'", "''") + "'"


def position_of(mark: yaml.Mark) -> Position:
    return Position(line=mark.line + 1, column=mark.column + 1)


def masked_yaml(text: str) -> str:
    """The text with secrets masked, and all else, comments too, as it was written.

    A value is masked as YAML reads it: it may be folded over lines, or hold escapes.
    """
    node, _ = compose(text, "")
    scalars = list(_scalars(node)) if node is not None else []
    remember(*(one.value for one in scalars))
    parts, at = [], 0
    for scalar in scalars:
        begin, end = scalar.start_mark.index, scalar.end_mark.index
        if begin >= at and (shown := mask(scalar.value)) != scalar.value:
            gap = text[begin:end][len(text[begin:end].rstrip()) :]  # what ends a block
            parts += [text[at:begin], json.dumps(shown, ensure_ascii=False), gap]
            at = end
    return mask("".join([*parts, text[at:]]))


def _scalars(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Each once, in the order of the text."""
    seen: set[int] = set()
    waiting, found = [root], []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            found.append(node)
        elif isinstance(node, yaml.MappingNode):
            waiting += [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return iter(sorted(found, key=lambda one: int(one.start_mark.index)))
