"""How ``--help`` looks: commands in the order of work, names of values that say what they are, flags without one.

Wrong values of options are refused in the words of a space file's errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

# Panel of the root's help -> its commands in the order of work, and a call of each.
PANELS: Mapping[str, Mapping[str, str]] = {
    "Search": {
        "demo": "tlsearch demo --folder ./demo",
        "init": "tlsearch init ./flowers --minutes 20",
        "check": "tlsearch check space.yaml --no-model",
        "plan": "tlsearch plan space.yaml --set search.trials=24",
        "run": "tlsearch run space.yaml --trials 16 --time-budget 30m",
        "status": "tlsearch status flowers-1",
        "stop": "tlsearch stop flowers-1",
        "resume": "tlsearch resume flowers-1 --trials +8",
    },
    "Results": {
        "results": "tlsearch results flowers-1 --top 5 --where unfreeze_depth>=1",
        "report": "tlsearch report flowers-1 --out ./report",
        "ui": "tlsearch ui flowers-1 --port 5001",
    },
    "Models": {
        "confirm": "tlsearch confirm flowers-1 --top 3 --seeds 5",
        "ensemble": "tlsearch ensemble flowers-1 --max-latency-ms 50",
        "soup": "tlsearch soup flowers-1 --max-models 5",
        "promote": "tlsearch promote flowers-1 --max-latency-ms 30",
        "predict": "tlsearch predict flowers-1 photo.jpg more-photos/",
        "export": "tlsearch export flowers-1 --format onnx --output flowers.onnx",
    },
    "Other commands": {
        "compare": "tlsearch compare flowers-1 flowers-2",
        "rerun": "tlsearch rerun flowers-1 --trial 7",
        "sync": "tlsearch sync flowers-1",
        "submit": "tlsearch submit space.yaml --address http://HEAD:8265",
        "doctor": "tlsearch doctor space.yaml --address HOST:6379",
        "cache": "tlsearch cache --clear",
        "list": "tlsearch list --json",
        "remove": "tlsearch remove flowers-1 --yes",
        "schema": "tlsearch schema -o space.schema.json",
    },
}
EXAMPLES: Mapping[str, str] = {name: call for commands in PANELS.values() for name, call in commands.items()}
_ORDER = list(EXAMPLES)
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
            command.epilog = f"Example: {EXAMPLES[cmd_name]}" if cmd_name in EXAMPLES else None
            _name_values(command, ctx)
        return command

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; the rule that an option's value breaks is worded as in a space file, with the value."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from tlsearch.config.rules.schema_errors import broken_rule

            error.message = broken_rule(error.__cause__) or error.message
            raise

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
