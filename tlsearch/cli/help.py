"""How ``--help`` looks: commands in the order of work, names of values that say what they are, flags without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

# Panel of the root's help -> its commands, in the order of work.
PANELS: Mapping[str, tuple[str, ...]] = {
    "Search": ("init", "check", "plan", "run", "status", "stop", "resume"),
    "Results": ("results", "report", "ui"),
    "Models": ("confirm", "promote", "predict", "export"),
    "Other commands": ("compare", "rerun", "sync", "submit", "doctor", "cache", "list", "remove", "schema"),
}
_ORDER = [name for names in PANELS.values() for name in names]
_VALUES = {"str": "TEXT", "path": "PATH", "int": "N", "float": "NUMBER", "int range": "N", "float range": "NUMBER"}


class WorkOrder(TyperGroup):
    """The root command."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of work; a command without a place there comes last."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, in its panel, with plain names of values."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            panel = next((panel for panel, names in PANELS.items() if cmd_name in names), "Other commands")
            command.rich_help_panel = panel  # type: ignore[attr-defined]
            _name_values(command, ctx)
        return command

    def get_params(self, ctx: Any) -> list[Any]:
        """The root's own options."""
        return [_named(param, ctx) for param in super().get_params(ctx)]


def _name_values(command: Any, ctx: Any) -> None:
    for param in command.get_params(ctx):
        _named(param, ctx)


def _named(param: Any, ctx: Any) -> Any:
    """The parameter with a word for its value, unless it has one; a flag takes no value."""
    if getattr(param, "is_flag", False):
        param.metavar = ""
    elif param.metavar is None and param.param_type_name == "argument":
        param.metavar = param.name.upper()
    elif param.metavar is None:
        kind = str(param.display_type(ctx) if hasattr(param, "display_type") else "").strip("<>")
        kind = kind.removeprefix("list[").removesuffix("]")
        param.metavar = _VALUES.get(kind, kind) or None
    if param.param_type_name == "argument" and hasattr(param, "display_type_rich"):
        param.display_type_rich = _nothing  # its name says it
    return param


def _nothing(ctx: Any) -> None:
    """No type beside an argument."""
