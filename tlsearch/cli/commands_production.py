"""``confirm`` and ``promote``: from the winner of a search to production."""

from __future__ import annotations

from typing import Annotated

import typer

from tlsearch.cli.root import Address, Json, Search, Storage, app
from tlsearch.cli.session import EXIT_INTERRUPTED, err, interruptible, out, print_json, told_errors


@app.command()
def confirm(
    search: Search = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best configurations to train again.")] = 3,
    seeds: Annotated[int, typer.Option(min=2, help="With how many seeds each.")] = 3,
    storage: Storage = None,
    address: Address = "local",
    json: Json = False,
) -> None:
    """Train the best configurations again with several seeds: is rank 1 really better than rank 2?"""
    with told_errors(as_json=json):
        from tlsearch.app.catalog import find
        from tlsearch.app.conclude import conclude
        from tlsearch.app.confirm import prepare_confirm
        from tlsearch.app.run import execute, read_record
        from tlsearch.cli.production_tables import confirm_table
        from tlsearch.cli.progress import Progress

        confirmed = prepare_confirm(find(search, storage), top=top, seeds=seeds, address=address)
        prepared, console = confirmed.prepared, err if json else out
        settings = prepared.file.search
        console.print(f"search {prepared.entry.search_id} in {prepared.entry.directory}", markup=False, soft_wrap=True)
        progress = Progress(
            console,
            metric=settings.metric,
            trials=settings.trials,
            max_epochs=settings.max_epochs,
            time_budget_s=None,
        )
        if prepared.resumed:
            progress.restore(read_record(prepared.entry))
        with interruptible(lambda: progress.note("stopping; confirm can be called again to go on")) as stop, progress:
            end = execute(prepared, observers=(progress,), stop=stop)
        if end.reason == "interrupted":
            err.print("interrupted; the same `tlsearch confirm` goes on", markup=False)
            raise typer.Exit(EXIT_INTERRUPTED)
        result = conclude(confirmed)
        if json:
            print_json(result)
        else:
            out.print(confirm_table(result))
            out.print(result["verdict"], markup=False, soft_wrap=True)
            out.print(f"recommended: trial {result['recommended']} (tlsearch promote takes it)", markup=False)
