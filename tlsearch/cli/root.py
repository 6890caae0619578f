"""The command's root: its options, and what several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlsearch.cli.help import WorkOrder
from tlsearch.cli.session import out

app = typer.Typer(
    cls=WorkOrder,
    help="Find the best way to fine-tune a pretrained image classifier.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _search_ids(incomplete: str) -> list[str]:
    """IDs for the shell's completion, the latest first; none where they cannot be read."""
    from tlsearch.app.catalog.catalog import searches
    from tlsearch.core.errors import TlsearchError

    try:
        return [entry.search_id for _, entry in searches() if entry.search_id.startswith(incomplete)]
    except (OSError, TlsearchError):
        return []


File = Annotated[Path, typer.Argument(help="The space.yaml that describes the search.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder or table of the images. Replaces data.path.")]
MovedData = Annotated[
    Path | None,
    typer.Option("--data", help="New place of the images, if they have moved. They must be the same images."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the file: search.trials=8. May be repeated."),
]
Trials = Annotated[int | None, typer.Option(help="Number of trials. Replaces search.trials.")]
TimeBudget = Annotated[str | None, typer.Option(help="Time budget, such as 2h or 30m. Replaces search.time_budget.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]
Search = Annotated[
    str | None,
    typer.Argument(metavar="ID", help="The search. Default: the latest one.", autocompletion=_search_ids),
]
Storage = Annotated[
    Path | None, typer.Option("--storage", help="Storage folder of the search, if it was not started here.")
]
Address = Annotated[
    str,
    typer.Option("--address", help="Ray cluster: local (start one here), auto (this machine's own), or HOST:PORT."),
]


def replacements(set_: list[str] | None, trials: int | None, time_budget: str | None) -> list[str]:
    """What ``--set`` replaces, and the options that stand for a key of the file."""
    named = {"search.trials": trials, "search.time_budget": time_budget}
    return [*(set_ or ()), *(f"{key}={value}" for key, value in named.items() if value is not None)]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from tlsearch.core import __version__

        out.print(__version__)
        raise typer.Exit
