"""``status`` and ``stop``: a running search, seen from another terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from tlsearch.cli.root import Json, Search, Storage, app
from tlsearch.cli.session import EXIT_FAILED, err, out, print_json, told_errors


@app.command()
def status(search: Search = None, storage: Storage = None, json: Json = False) -> None:
    """Tell what a search is doing now: whether it runs, trials by state, the best so far, running trials."""
    with told_errors(as_json=json):
        from tlsearch.app.catalog import find
        from tlsearch.app.control import overview
        from tlsearch.cli.status_table import running_table, status_lines

        seen = overview(find(search, storage))
        if json:
            print_json(seen.as_json())
            return
        for line in status_lines(seen):
            out.print(line, markup=False, soft_wrap=True)
        if seen.unfinished:
            out.print(running_table(seen))


@app.command()
def stop(
    search: Search = None,
    storage: Storage = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for its end.")] = 60.0,
    json: Json = False,
) -> None:
    """End a running search from another terminal, as Ctrl-C in its own does; it can be resumed."""
    with told_errors(as_json=json):
        from tlsearch.app.catalog import find
        from tlsearch.app.control import stop_search

        entry = find(search, storage)
        answer = stop_search(entry, timeout_s=timeout)
    name = entry.search_id
    if json:
        print_json({"search_id": name, "was_running": answer.holder is not None, "stopped": answer.stopped})
    elif answer.holder is None:
        out.print(f"the search {name} is not running", markup=False, soft_wrap=True)
    elif answer.stopped:
        out.print(f"the search {name} has stopped; go on with `tlsearch resume {name}`", markup=False, soft_wrap=True)
    if not answer.stopped:
        text = f"the search {name} was asked to stop, but still runs after {timeout:g} s: {answer.holder}"
        err.print(text, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)
