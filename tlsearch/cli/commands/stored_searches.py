"""``list`` and ``remove``: the searches that this user knows, and getting rid of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlsearch.cli.root import Json, Storage, app
from tlsearch.cli.session import err, out, print_json, shown_errors
from tlsearch.display.console import Table

if TYPE_CHECKING:
    from tlsearch.app.catalog.remove_search import Removal, Removed
    from tlsearch.app.catalog.search_list import ListedSearch

_EXPENDABLE = ("storage", "MB", "started")  # left out in this order where the terminal is too narrow


@app.command("list")
def list_(
    storage: Annotated[Path | None, typer.Option("--storage", help="List the searches of this storage folder.")] = None,
    json: Json = False,
) -> None:
    """List the searches that were started here, the latest first."""
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.search_list import list_searches
        from tlsearch.core.errors import UsageError

        if storage is not None and not storage.is_dir():
            raise UsageError(f"--storage names a folder that holds searches; {storage} is not a folder")
        found = list_searches(storage)
    if json:
        print_json([one.as_json() for one in found])
        return
    if not found:
        place = f"in {storage}" if storage else "in the catalogue of this user"
        out.print(f"no search was found {place}; start one with `tlsearch run FILE`")
        return
    storages = sorted({one.entry.storage for one in found})
    rows = [_cells(one) for one in found]
    for head in _EXPENDABLE:
        fits = out.measure(_table(rows), options=out.options.update(max_width=100_000)).minimum <= out.width
        if not fits and not (head == "storage" and len(storages) > 1):
            rows = [{name: cell for name, cell in row.items() if name != head} for row in rows]
    out.print(_table(rows))
    if "storage" not in rows[0]:
        out.print(f"in {storages[0]}")
    for one in found:
        if one.problem:
            out.print(f"{one.entry.search_id}: {one.problem}")


def _cells(one: ListedSearch) -> dict[str, str]:
    best = "-" if one.best is None else f"{one.entry.metric} {one.best.best_value:.4f} (trial {one.best.number})"
    return {
        "search": one.entry.search_id,
        "started": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.started)),
        "state": one.state,
        "trials": "-" if one.num_trials is None else str(one.num_trials),
        "best": best,
        "MB": f"{one.num_bytes / 1e6:,.1f}",
        "storage": one.entry.storage,
    }


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Names, the best and the storage fold where the terminal is narrow, between words while that is enough."""
    table = Table()
    for head in rows[0]:
        folds = head in ("search", "best", "storage")
        table.add_column(
            head,
            justify="right" if head in ("trials", "MB") else "left",
            no_wrap=not folds,
            min_width=None if folds else max(len(row[head]) for row in rows),
            overflow="fold" if folds else "ellipsis",
        )
    for row in rows:
        table.add_row(*row.values())
    return table


@app.command()
def remove(
    search: Annotated[str, typer.Argument(metavar="ID", help="The search.")],
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Delete its runs and models in MLflow too. Registered versions stay.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Remove a search that is not running.

    Its folder goes, with study and checkpoints. The command asks first.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.catalog import find
        from tlsearch.app.catalog.remove_search import plan_removal, remove_search
        from tlsearch.core.errors import UsageError

        removal = plan_removal(find(search, storage))
        if not yes:
            if json or not sys.stdin.isatty():
                raise UsageError("removing a search cannot be undone: give --yes to remove it without a question")
            for line in _plan_lines(removal, with_runs=mlflow):
                out.print(line)
            if not typer.confirm("Remove it?"):
                raise typer.Exit(1)
        removed = remove_search(removal, with_runs=mlflow)
    if json:
        print_json(removed.as_json())
        return
    for line in _removed_lines(removed):
        out.print(line)
    if not mlflow and removal.num_runs and not removal.shared_with:
        err.print(f"MLflow at {removal.entry.tracking_uri} keeps its runs and models")


def _plan_lines(removal: Removal, *, with_runs: bool) -> Iterator[str]:
    from tlsearch.core.text import plural

    yield f"{removal.entry.search_id} in {removal.entry.directory}, {removal.num_bytes / 1e6:,.1f} MB in all"
    for one in removal.repeats:
        yield f"  with {one.search_id}, which repeats its best trials"
    if removal.num_runs:
        what = f"the runs of its {plural(removal.num_runs, 'trial')} and its models"
        yield f"  MLflow: {what} {'are deleted too' if with_runs else 'stay; --mlflow deletes them too'}"
    yield "  what was promoted stays in the registry"


def _removed_lines(removed: Removed) -> Iterator[str]:
    from tlsearch.core.text import plural

    names = ", ".join(one.search_id for one in removed.removal.all)
    yield f"removed {names}: {removed.removal.num_bytes / 1e6:,.1f} MB"
    gone = removed.deleted
    if gone is not None:
        runs, models = plural(gone.num_runs, "run"), plural(gone.num_models, "model")
        yield f"deleted in MLflow: {runs} and {models}; `mlflow gc` removes the runs for good"
        if gone.num_registered:
            yield f"kept for registered versions: {plural(gone.num_registered, 'model')}"
