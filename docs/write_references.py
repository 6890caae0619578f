"""Writes the references: of the space file from the classes that read it, of the commands from what ``--help`` shows.

    python docs/write_references.py docs

writes ``space_file.md`` and ``commands.md`` there; tests hold that they are up to date.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.views.space_schema import meanings_of
from tlsearch.cli.help import EXAMPLES
from tlsearch.cli.root import app
from tlsearch.config import schema, search_section
from tlsearch.config import values as rules
from tlsearch.config.forms import FORMS, hints_of, keys_of
from tlsearch.core.metrics import METRICS
from tlsearch.space.dimensions import PARAMETERS, RATIOS, Parameter

_HEAD = """# The space file

Every key of a space file (`space.yaml`), written from the classes that read it (`make reference`).
[dimensions.md](dimensions.md) says what the dimensions of `space` were worth, [data.md](data.md) how images are read.
A key that is left out has its default. Unknown keys are errors. Relative paths start at the folder of the space file.
"""
_SPACE = """## `space`

Each dimension is one value, a list of values, or a range: `{int: [low, high]}`, `{float: [low, high]}`, or
`{log: [low, high]}`, both ends included, with `step: S` where a grid is wanted. `when: {unfreeze_depth: {ge: 2}}` in a
mapping limits a dimension to trials that meet the condition: a value (equal), a list (any of), `ge` or `le`.
`backbone: {from: [...], screen: true}` takes one pass over the images for each listed backbone before the first
trial, and leaves out those that are far off ([search.md](search.md#many-backbones)).
A dimension that is left out has its default.
"""
_EXAMPLE = {"ratio": "`{ratio_of: head_lr, log: [0.001, 1]}`"}
# Rules that a type does not show -> the values that they allow.
_RULES: Mapping[Any, str] = {
    rules._duration: "a duration such as 2h, 30m, 90s or 1h30m, or a number of seconds; none",
    rules._pattern: "a regular expression",
    rules._scalar: "one value",
    search_section._metric: ", ".join(f"`{name}`" for name in METRICS),
    search_section._scheduler: "`none`, `asha`, or `{asha: {...}}`",
    search_section._or_empty: "a mapping",
}
_AUTO = (rules._auto, schema._auto)


def space_reference() -> str:
    """The page of the space file, in Markdown."""
    parts = [_HEAD]
    for path, form in FORMS.items():
        parts.append(_section(path, form))
        if path == ("data", "split"):
            parts.append(_space())
    return "\n".join(parts).replace("``", "`")


def _section(path: tuple[str, ...], form: type) -> str:
    title = "The file" if not path else f"`{'.'.join('KEY' if part == '*' else part for part in path)}`"
    meanings, hints, keys = meanings_of(form), hints_of(form), keys_of(form)
    rows = []
    for one in dataclasses.fields(form):
        if one.name in keys:
            values = _values(hints[one.name])
            rows.append((f"`{keys[one.name]}`", meanings[one.name], values, _default(one, hints[one.name])))
    return f"## {title}\n\n{_table(('key', 'meaning', 'values', 'default'), rows)}"


def _space() -> str:
    rows = []
    for name, one in PARAMETERS.items():
        values = _parameter_values(one)
        if name in RATIOS:
            values += f"; or {_EXAMPLE['ratio']}"
        default = "required" if name == "backbone" else _text(one.default)
        default = "auto, see `defaults`" if name in keys_of(schema.DefaultsSpec) else default
        rows.append((f"`{name}`", one.meaning, values, default, one.where or "everywhere"))
    return f"{_SPACE}\n{_table(('dimension', 'meaning', 'values', 'default', 'has an effect where'), rows)}"


def _parameter_values(one: Parameter) -> str:
    if one.name == "backbone":
        return "a name"
    if one.kind == "choice":
        return ", ".join(f"`{value}`" for value in one.choices)
    kind = "a whole number" if one.kind == "whole" else "a number"
    return f"{kind}, {'above' if one.above_low else 'from'} {one.low:g} to {one.high:g}"


def _values(hint: Any) -> str:
    """The allowed values of a field, from its annotation."""
    base, notes = hint, list[Any]()
    while get_origin(base) is Annotated:
        notes += get_args(base)[1:]
        base = get_args(base)[0]
    rules = [one.func for one in notes if isinstance(one, BeforeValidator)]
    for rule in rules:
        if rule in _RULES:
            return _RULES[rule]
    text = _of_type(base)
    limits = " and ".join(_limits(notes))
    text = f"{text}, {limits}" if limits else text
    return f"auto, or {text.removesuffix('; none')}" if any(rule in _AUTO for rule in rules) else text


def _of_type(base: Any) -> str:
    origin, arguments = get_origin(base), get_args(base)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return f"{_values(next(one for one in arguments if one is not type(None)))}; none"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if base in names:
        return names[base]
    if dataclasses.is_dataclass(base) or origin is not None and issubclass(origin, Mapping):
        return "a mapping"
    if origin is not tuple:
        return "one value"
    each = _values(arguments[0])
    return "a list of mappings" if each == "a mapping" else f"a list, each {each}"


def _limits(notes: list[Any]) -> Iterator[str]:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    for note in notes:
        for rule in note.metadata if isinstance(note, FieldInfo) else ():
            for name, word in words.items():
                if hasattr(rule, name):
                    yield f"{word} {_text(getattr(rule, name))}"


def _default(one: dataclasses.Field[Any], hint: Any) -> str:
    if one.default_factory is not dataclasses.MISSING:
        made = one.default_factory()
        return "its own defaults" if dataclasses.is_dataclass(made) else "empty"
    if one.default is dataclasses.MISSING:
        return "required"
    if one.default is None:
        return "auto" if _values(hint).startswith("auto") else "none"
    return "empty" if one.default == () else _text(one.default)


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def command_reference() -> str:
    """The page of all commands, in Markdown."""
    root: Any = typer.main.get_command(app)
    context = root.make_context("tlsearch", [], resilient_parsing=True)
    parts = [
        "# Commands",
        "",
        "Written from the commands themselves (`make reference`); `tlsearch COMMAND --help` shows the same.",
        "",
        "`tlsearch --install-completion` adds completion of commands, options, files and the IDs of searches",
        "to the shell that calls it: bash, zsh or fish. It takes effect in the next terminal. `--show-completion`",
        "prints the script.",
        "",
    ]
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
        usage = " ".join(["tlsearch", name, "[OPTIONS]", *map(_argument, arguments)])
        parts += [f"## {name}", "", command.help or "", "", f"    {usage}", ""]
        if name in EXAMPLES:
            parts += ["For example:", "", f"    {EXAMPLES[name]}", ""]
        parts += ["| | |", "| --- | --- |"]
        parts += [f"| `{_argument(param)}` | {_cell(param.help)} |" for param in arguments]
        parts += [f"| `{_switch(param)}` | {_cell(param.help)}{_if_left_out(param)} |" for param in options]
        parts += [""]
    return "\n".join(parts)


def _argument(param: Any) -> str:
    name = f"{param.metavar}{'...' if param.nargs < 0 else ''}"
    return name if param.required else f"[{name}]"


def _switch(param: Any) -> str:
    names = ", ".join([*param.opts, *param.secondary_opts])
    return f"{names} {param.metavar}" if param.metavar else names


def _if_left_out(param: Any) -> str:
    """What an option is where it is left out, as ``--help`` shows it; nothing where its text says it."""
    value = param.default
    if param.secondary_opts:
        return f" Default: `{(param.opts if value else param.secondary_opts)[0]}`."
    if param.required or value in (None, False, "", ()) or "Default:" in (param.help or ""):
        return ""
    return f" Default: `{int(value) if isinstance(value, float) and value.is_integer() else value}`."


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "space_file.md").write_text(space_reference(), encoding="utf-8")
    (folder / "commands.md").write_text(command_reference(), encoding="utf-8")
