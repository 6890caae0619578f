"""``ensemble`` and ``soup``: one model made of several trials of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tlsearch.cli.root import Address, Json, Search, Storage, app
from tlsearch.cli.session import out, print_json, shown_errors
from tlsearch.cli.tables.results_table import alternatives_table
from tlsearch.core.codec import to_plain

if TYPE_CHECKING:
    from tlsearch.app.catalog.catalog import SearchEntry
    from tlsearch.results.combine.combination import Combination


@app.command()
def ensemble(
    search: Search = None,
    max_models: Annotated[
        int, typer.Option("--max-models", min=1, max=100, help="Most trials that the ensemble may have.")
    ] = 5,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(min=0.0, help="Limit of the time for one image on this CPU, in ms."),
    ] = None,
    max_params: Annotated[int | None, typer.Option(min=1, help="Limit of the number of parameters.")] = None,
    storage: Storage = None,
    address: Address = "local",
    json: Json = False,
) -> None:
    """Average the predictions of several trials, as one model.

    The trials are selected by their kept validation logits, in seconds. Those whose models were not kept are trained
    again. The ensemble is kept only if it is better than the best trial.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.catalog import find

        entry = find(search, storage)
        from tlsearch.app.combined.make_ensemble import make_ensemble

        made = make_ensemble(
            entry, max_models=max_models, max_latency_ms=max_latency_ms, max_params=max_params, address=address
        )
        _show(made, entry, as_json=json)


@app.command()
def soup(
    search: Search = None,
    max_models: Annotated[
        int, typer.Option("--max-models", min=2, max=100, help="Number of trials to try, best first.")
    ] = 8,
    runs: Annotated[
        int, typer.Option(min=0, max=100, help="Number of further seeds for the best trial that was fine-tuned.")
    ] = 4,
    storage: Storage = None,
    address: Address = "local",
    json: Json = False,
) -> None:
    """Average the weights of the best trials into one model.

    It is as large and as fast as one trial. Trials join as long as the average does not get worse on validation. The
    best one that was fine-tuned is trained with further seeds too; trials whose models were not kept are trained
    again. The soup is kept only if it is better than the best trial.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.catalog import find

        entry = find(search, storage)
        from tlsearch.app.combined.make_soup import make_soup

        _show(make_soup(entry, max_models=max_models, runs=runs, address=address), entry, as_json=json)


def _show(result: Combination, entry: SearchEntry, *, as_json: bool) -> None:
    """What was made beside the best single trial, and the verdict."""
    if as_json:
        print_json(to_plain(result))
        return
    from tlsearch.results.combine.alternatives import beside_best

    title = f"{entry.search_id}: {result.metric} on {result.num_val} validation images"
    out.print(alternatives_table(beside_best(result), title))
    out.print(verdict(result, entry.search_id))


def verdict(result: Combination, search_id: str) -> str:
    """Whether it helps, and what to do with it."""
    if not result.helps:
        return (
            f"the {result.kind} is not better than trial {result.best_trial} on images that it was not chosen on: "
            "the model is that of the trial alone"
        )
    return (
        f"the {result.kind} is better than trial {result.best_trial} by {result.gain:.4f}, chosen on one half of the "
        f"images and scored on the other; `tlsearch promote {search_id} --{result.kind}` takes it"
    )
