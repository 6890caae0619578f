"""``results`` and ``ui``: what a search has found."""

from __future__ import annotations

from typing import Annotated

import typer

from tlsearch.cli.root import Json, Search, Storage, app
from tlsearch.cli.session import out, print_json, told_errors


@app.command()
def results(
    search: Search = None,
    top: Annotated[int | None, typer.Option(help="Show the best N trials only.")] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Show the leaderboard of a search, finished or running."""
    with told_errors(as_json=json):
        from tlsearch.app.catalog import find
        from tlsearch.app.outcome import read_results
        from tlsearch.cli.tables import leaderboard_table

        found = read_results(find(search, storage))
        if json:
            print_json({**found, "trials": found["trials"][:top]})
        else:
            out.print(leaderboard_table(found, top=top))


@app.command()
def ui(
    search: Search = None,
    storage: Storage = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Open the MLflow UI on the store of a search."""
    with told_errors():
        from tlsearch.app.catalog import find
        from tlsearch.app.outcome import serve_ui

        entry = find(search, storage)
        if entry.tracking_uri.startswith(("http://", "https://")):
            out.print(f"the search is recorded on a server: open {entry.tracking_uri}", markup=False)
            return
        out.print(f"experiment {entry.experiment!r} at http://{host}:{port} (Ctrl-C ends it)", markup=False)
        raise typer.Exit(serve_ui(entry, host=host, port=port))
