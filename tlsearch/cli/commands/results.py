"""``results``, ``report`` and ``ui``: the results of a search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tlsearch.cli.commands.cluster import Cluster, flags, relay
from tlsearch.cli.root import Json, Search, Storage, app
from tlsearch.cli.session import err, out, print_json, shown_errors
from tlsearch.core.text import plural


@app.command()
def results(
    search: Search = None,
    top: Annotated[int | None, typer.Option(min=1, help="Show only the best N trials.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only trials in this state, such as complete or pruned. May be repeated.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only trials that meet this, such as unfreeze_depth>=2. May be repeated."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the rows to this file, with all columns.")] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Add ranks, standard errors, sizes and times to --json.")
    ] = False,
    storage: Storage = None,
    address: Cluster = None,
    json: Json = False,
) -> None:
    """Show the leaderboard of a search, finished or running."""
    with shown_errors(as_json=json):
        from tlsearch.app.cluster.relay import locate
        from tlsearch.app.cluster.submit import Submitted
        from tlsearch.app.views.outcome import read_leaderboard, write_csv
        from tlsearch.cli.tables.results_table import print_front, print_leaderboard

        entry = locate(search, storage, address)
        if isinstance(entry, Submitted):
            relay(entry, "results", flags(top=top, state=state, where=where, details=details), as_json=json)
            if csv is not None:
                err.print("--csv writes where the search's folder is seen; use --json here")
            return
        run_ids = json or csv is not None
        found = read_leaderboard(entry, run_ids=run_ids, states=state or (), conditions=where or (), top=top)
        if csv is not None:
            write_csv(found, csv)
        if json:
            print_json(found.as_json(details=details))
        else:
            print_leaderboard(out, found.record, found.rows)
            print_front(out, found.record)
            for note in found.notes():
                out.print(note)
        if csv is not None:
            err.print(f"{plural(len(found.rows), 'row')} in {csv}")


@app.command()
def report(
    search: Search = None,
    storage: Storage = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to. Default: report/ in the search's folder.")
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure the latency of every backbone of the search on this CPU.")
    ] = False,
    model: Annotated[bool, typer.Option(help="Evaluate the best model, and look for doubtful labels.")] = True,
    log: Annotated[bool, typer.Option(help="Add the report to the MLflow run of the search.")] = True,
    json: Json = False,
) -> None:
    """Write a report: one HTML page with every plot, readable offline."""
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.catalog import find
        from tlsearch.app.views.report import write_search_report

        made = write_search_report(find(search, storage), directory=to, with_model=model, with_latency=latency, log=log)
    if json:
        files = {name: str(path) for name, path in made.files.items()}
        print_json({"page": str(made.page), "files": files, "skipped": made.skipped, "mlflow_run_id": made.run_id})
        return
    out.print(f"{made.page}")
    for name, reason in made.skipped.items():
        out.print(f"  without {name}: {reason}")
    if made.run_id is not None:
        out.print(f"also among the artifacts of MLflow run {made.run_id} (`tlsearch ui`)")


@app.command()
def ui(
    search: Search = None,
    storage: Storage = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Start the MLflow UI on the runs of a search."""
    with shown_errors():
        from tlsearch.app.catalog.catalog import find
        from tlsearch.app.views.mlflow_ui import serve_ui

        entry = find(search, storage)
        if entry.tracking_uri.startswith(("http://", "https://")):
            out.print(f"the search is recorded on a server: open {entry.tracking_uri}")
            return

        def ready(page: str) -> None:
            out.print(f"experiment {entry.experiment!r} at {page} (Ctrl-C ends it)")
            sys.stdout.flush()

        err.print("the MLflow UI is starting")
        raise typer.Exit(serve_ui(entry, host=host, port=port, ready=ready))
