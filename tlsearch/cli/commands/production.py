"""``confirm`` and ``promote``: from the winner of a search to production."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tlsearch.cli.root import Address, Json, Search, Storage, app
from tlsearch.cli.session import err, out, print_json, shown_errors
from tlsearch.cli.streams import GOES_ON, when_output_ends
from tlsearch.cli.tables.results_table import alternatives_advice, alternatives_table
from tlsearch.core.codec import to_plain
from tlsearch.core.errors import UsageError
from tlsearch.core.text import agree, number_text, plural
from tlsearch.display.console import Table
from tlsearch.display.interrupts import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from tlsearch.app.catalog.catalog import SearchEntry
    from tlsearch.app.production.promote import PromotedModel
    from tlsearch.results.combine.combination import Kind
    from tlsearch.results.stats.verdict import Confirmed


@app.command()
def confirm(
    search: Search = None,
    top: Annotated[int, typer.Option(min=1, help="Number of configurations to train again, best first.")] = 3,
    seeds: Annotated[int, typer.Option(min=2, help="Number of seeds for each configuration.")] = 3,
    storage: Storage = None,
    address: Address = "local",
    json: Json = False,
) -> None:
    """Train the best configurations again with several seeds.

    A paired test says whether rank 1 is better than the others by more than chance.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.catalog import find

        entry = find(search, storage)
        from tlsearch.app.production.conclude import beside_others

        confirmed = run_confirm(entry, top=top, seeds=seeds, address=address, as_json=json)
        assert confirmed is not None, "only a limit of the time leaves a confirmation unfinished"
        result = beside_others(entry, confirmed)
        if json:
            print_json(to_plain(result))
        elif len(result.alternatives) > 1:
            title = f"{entry.search_id}: best trial, soup, ensemble"
            out.print(alternatives_table(result.alternatives, title))
            out.print(alternatives_advice(result.alternatives, entry.search_id))


def run_confirm(
    entry: SearchEntry, *, top: int, seeds: int, address: str, as_json: bool, limit_s: float | None = None
) -> Confirmed | None:
    """Confirms a search, with its display; prints the verdict for people.

    Args:
        limit_s: Stop after this many seconds.

    Returns:
        What ``conclude`` gives; None where the time was over before.

    Raises:
        typer.Exit: The user has interrupted it.
    """
    from tlsearch.app.production.conclude import conclude
    from tlsearch.app.production.confirm import prepare_confirm
    from tlsearch.display.shown_search import execute_shown, show_progress

    when_output_ends(GOES_ON)
    with prepare_confirm(entry, top=top, seeds=seeds, address=address) as confirmed:
        prepared, console = confirmed.prepared, err if as_json else out
        console.print(f"search {prepared.entry.search_id} in {prepared.entry.directory}")
        numbers = ", ".join(str(trial.number) for trial in confirmed.candidates)
        trials = f"{agree(len(confirmed.candidates), 'trial', 'trials')} {numbers} of {confirmed.entry.search_id}"
        console.print(f"training {trials} again, with {plural(prepared.file.search.seeds, 'seed')} each")
        progress = show_progress(prepared, console, name=confirmed.name)
        over, stop = threading.Event(), threading.Event()
        with _timer(limit_s, over, stop):
            stopping = "stopping; confirm can be called again to go on"
            end = execute_shown(prepared, progress, stopping=stopping, stop=stop)
        if end.reason == "interrupted" and over.is_set():
            return None
        if end.reason == "interrupted":
            err.print("interrupted; the same `tlsearch confirm` goes on")
            raise typer.Exit(EXIT_INTERRUPTED)
        result = conclude(confirmed)
        if not as_json:
            out.print(_confirm_table(result))
            out.print(result.verdict)
            out.print(f"recommended: trial {result.recommended} (tlsearch promote takes it)")
        return result


@contextmanager
def _timer(limit_s: float | None, *events: threading.Event) -> Iterator[None]:
    """Sets the events, in order, when the time is over."""
    if limit_s is None:
        yield
        return

    def ring() -> None:
        for one in events:
            one.set()

    timer = threading.Timer(limit_s, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_COMBINED: Sequence[Kind] = ("ensemble", "soup", "distilled")


@app.command()
def promote(
    search: Search = None,
    trial: Annotated[
        int | None, typer.Option(help="Trial to promote. Default: the winner of `tlsearch confirm`, else the best.")
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Promote the model that `tlsearch ensemble` has made.")
    ] = False,
    soup: Annotated[bool, typer.Option("--soup", help="Promote the model that `tlsearch soup` has made.")] = False,
    distill: Annotated[
        bool,
        typer.Option(
            "--distill", help="Train one model on the ensemble's predictions, and promote it if it is better."
        ),
    ] = False,
    alias: Annotated[str, typer.Option(help="MLflow alias of the new version.")] = "champion",
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Limit of the time for one image on this CPU, in ms. An ensemble or soup within it is taken too, if "
            "it is better than the best trial.",
        ),
    ] = None,
    max_params: Annotated[int | None, typer.Option(min=1, help="Limit of the number of parameters.")] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Train the model again, on train and val together.")] = False,
    without_test: Annotated[
        bool, typer.Option("--without-test", help="Register without a test. The model card says so.")
    ] = False,
    reuse_test: Annotated[
        bool, typer.Option("--reuse-test", help="Test on a split that was used before. The model card says so.")
    ] = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Test the best model once, and register it in MLflow.

    The sealed test split is opened here, for one model. The registered model has its preprocessing, its classes and a
    model card.
    """
    with shown_errors(as_json=json):
        chosen = [kind for kind, wanted in zip(_COMBINED, (ensemble, soup, distill), strict=True) if wanted]
        if len(chosen) > 1:
            raise UsageError("a promotion takes one of --ensemble, --soup and --distill")
        from tlsearch.app.catalog.catalog import find

        entry = find(search, storage)
        from tlsearch.app.combined.ensemble_costs import Limits
        from tlsearch.app.production.promote import PromoteOptions
        from tlsearch.app.production.promote import promote as promote_search

        options = PromoteOptions(
            trial=trial,
            combined=chosen[0] if chosen else None,
            alias=alias,
            limits=Limits(latency_ms=max_latency_ms, parameters=max_params),
            refit=refit,
            without_test=without_test,
            reuse_test=reuse_test,
        )
        result = promote_search(entry, options)
        if json:
            print_json(to_plain(result))
        else:
            print_promoted(result)


def print_promoted(result: PromotedModel) -> None:
    """What was registered, with its evidence, for people."""
    what = f"trial {result.trial}"
    if result.members:
        numbers = ", ".join(str(member.trial) for member in result.members)
        what = f"{result.kind} of {agree(len(result.members), 'trial', 'trials')} {numbers}"
    out.print(f"{what} of {result.search_id}: {result.reason}")
    out.print(_evidence_table(result))
    out.print(f"registered: {result.uri} (version {result.version})")
    if result.previous:
        out.print(f"before: version {result.previous}, kept as the previous one")


def _confirm_table(result: Confirmed) -> Table:
    """The candidates of ``confirm`` by their mean over the seeds."""
    table = Table(title=f"{result.search_id}: {result.metric} over {plural(result.seeds, 'seed')}")
    for title in ("rank", "trial", "searched", "mean", "95 % interval", "parameters", f"s/{result.step}"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in result.candidates:
        interval = "-" if one.interval is None else "{:.4f} .. {:.4f}".format(*one.interval)
        table.add_row(
            str(one.rank),
            str(one.trial),
            number_text(one.first_value),
            f"{one.mean:.4f}",
            interval,
            f"{one.parameters:,}",
            number_text(one.epoch_seconds, ".1f"),
            style="bold" if one.trial == result.recommended else None,
        )
    return table


def _evidence_table(result: PromotedModel) -> Table:
    """The evidence of ``promote``."""
    table = Table(title=f"{result.model} version {result.version}", show_header=False)
    table.add_row(f"{result.metric} on validation", number_text(result.value))
    test = result.test
    if test is None:
        table.add_row("test", "not looked at")
        return table
    one = test.headline
    table.add_row(f"test {one.label}", f"{one.value:.4f} (95 % interval {one.low:.4f} .. {one.high:.4f})")
    table.add_row("test images", str(test.num_images))
    if test.against is not None:
        single = test.against
        table.add_row(
            f"trial {single.trial} alone",
            f"{single.accuracy:.4f} (the {result.kind} {single.difference:+.4f}, McNemar's p = {single.p_value:.3g})",
        )
    for _, label, value in test.others:
        table.add_row(label, f"{value:.4f}")
    found = test.calibration
    table.add_row("calibration error", f"{found.ece_before:.4f}, scaled {found.ece_after:.4f}")
    return table
