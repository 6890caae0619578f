"""``run``, to a registered model where it should, and ``resume``: searches, with their display and exit codes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tlsearch.cli.root import (
    Address,
    Data,
    File,
    Json,
    MovedData,
    Search,
    Set,
    Storage,
    TimeBudget,
    Trials,
    app,
    replacements,
)
from tlsearch.cli.session import EXIT_FAILED, err, out, print_json, shown_errors
from tlsearch.cli.streams import GOES_ON, when_output_ends
from tlsearch.core.text import command, plural
from tlsearch.display.console import Steps
from tlsearch.display.interrupts import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from tlsearch.app.catalog.catalog import SearchEntry
    from tlsearch.app.searches.execute import SearchEnd
    from tlsearch.app.searches.prepare import Prepared
    from tlsearch.search import SearchLock


@app.command()
def run(
    file: File,
    data: Data = None,
    set_: Set = None,
    address: Address = "local",
    trials: Trials = None,
    time_budget: TimeBudget = None,
    name: Annotated[str | None, typer.Option(help="Name of the search. Default: made from the date and time.")] = None,
    or_resume: Annotated[
        bool, typer.Option("--or-resume", help="Resume the search with this --name, if it exists.")
    ] = False,
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Then confirm the best and register the winner, all within the time budget."),
    ] = False,
    json: Json = False,
) -> None:
    """Run the search that a space file describes.

    Ray Tune runs the trials, MLflow records them. Ctrl-C ends the search cleanly, and `tlsearch resume` goes on.
    """
    from tlsearch.app.production.within_time import Deadline

    began = time.monotonic()
    overrides = replacements(set_, trials, time_budget)
    # an early Ray takes seconds to end: an error is shown before
    with ExitStack() as early, shown_errors(as_json=json), ExitStack() as stack:
        from tlsearch.app.catalog.bucket_searches import refuse_taken
        from tlsearch.app.catalog.search_names import check_name
        from tlsearch.app.checks.outputs import require_folders
        from tlsearch.cli.commands.run_promote import check_promotable
        from tlsearch.space import load, unused_weights

        when_output_ends(GOES_ON)
        steps = stack.enter_context(Steps(err if json else out))
        steps(f"checking {file}")
        loaded = load(file, overrides=overrides, data_path=data)  # before PyTorch: an error is shown at once
        deadline = Deadline(total_s=loaded[0].search.time_budget_s, began=began)
        if promote:
            check_promotable(loaded[0])
            if deadline.search_s is not None:
                overrides.append(f"search.time_budget={deadline.search_s:g}")
                loaded = load(file, overrides=overrides, data_path=data)
        if name is not None and not or_resume:
            refuse_taken(loaded[0].storage, check_name(name))
        require_folders()
        earlier = None
        if or_resume:
            from tlsearch.app.searches.run_or_resume import begun

            earlier = stack.enter_context(begun(loaded[0], name=name, data_path=data))
        steps("loading PyTorch")
        from tlsearch.app.searches.prepare import RunOptions, prepare, prepare_resume
        from tlsearch.search import starting_ray

        if earlier is not None:
            prepared = prepare_resume(earlier.entry, lock=earlier.lock, address=address, step=steps)
        else:
            options = RunOptions(file=file, overrides=overrides, data_path=data, address=address, name=name)
            beside = partial(early.enter_context, starting_ray(address))
            prepared = stack.enter_context(prepare(options, loaded=loaded, step=steps, beside=beside))
        steps.over()
        for warning in unused_weights(*loaded):
            err.print(f"warning: {warning}")
        end = _execute(prepared, as_json=json, goes_on=promote)
    if promote:  # the search's lock is free again
        from tlsearch.cli.commands.run_promote import confirm_and_promote

        with shown_errors(as_json=json):
            confirm_and_promote(end, prepared, deadline, address=address, as_json=json)


@app.command()
def resume(
    search: Search = None,
    storage: Storage = None,
    data: MovedData = None,
    address: Address = "local",
    trials: Annotated[
        str | None, typer.Option(help="Total number of trials (N), or a number of further ones (+N).")
    ] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Use the space file as it is now. All trials stay.")
    ] = False,
    stored: Annotated[
        bool, typer.Option("--stored", help="Use the space file as it was when the search began.")
    ] = False,
    json: Json = False,
) -> None:
    """Continue an interrupted search, or extend a finished one."""
    if changed and stored:
        raise typer.BadParameter(
            "give --changed (the file as it is now) or --stored (as it was), not both", param_hint="--changed"
        )
    with shown_errors(as_json=json), ExitStack() as stack:
        from tlsearch.app.catalog.catalog import find
        from tlsearch.app.checks.feasibility import total_trials
        from tlsearch.app.checks.outputs import require_folders
        from tlsearch.search import holding

        if trials is not None:
            total_trials(trials, 0)  # refused before anything is begun
        entry = find(search, storage)
        lock = stack.enter_context(holding(entry.path, "resume"))
        if data is not None or not stored:
            from tlsearch.app.searches.moved_data import follow_data

            entry = follow_data(entry, data_path=data)
        if not changed and _nothing_left(entry, trials=trials, stored=stored, as_json=json):
            return
        when_output_ends(GOES_ON)
        steps = stack.enter_context(Steps(err if json else out))
        require_folders()
        steps("loading PyTorch")
        from tlsearch.app.searches.prepare import prepare_resume

        if changed:
            prepared = _take_over(entry, lock, stack, trials=trials, address=address)
        else:
            prepared = prepare_resume(entry, lock=lock, trials=trials, address=address, stored=stored, step=steps)
        steps.over()
        _execute(prepared, as_json=json)


def _nothing_left(entry: SearchEntry, *, trials: str | None, stored: bool, as_json: bool) -> bool:
    """Says so where a resume would do nothing, before anything is started for it."""
    from tlsearch.app.searches.run_or_resume import nothing_left

    why = nothing_left(entry, trials=trials, stored=stored)
    if why and as_json:
        from tlsearch.app.views.outcome import read_leaderboard

        print_json(read_leaderboard(entry, run_ids=True).as_json())
    if why:
        (err if as_json else out).print(why)
    return bool(why)


def _take_over(
    entry: SearchEntry, lock: SearchLock, connection: ExitStack, *, trials: str | None, address: str
) -> Prepared:
    """Says what has changed, and what becomes of the old trials."""
    from tlsearch.app.searches.resume_changed import prepare_changed
    from tlsearch.display.shown_search import ScreenLines

    taken = prepare_changed(
        entry,
        lock=lock,
        connection=connection,
        trials=trials,
        address=address,
        screen_observer=ScreenLines(err),
    )
    for change in taken.changes or ("the space file has not changed",):
        err.print(str(change))
    if taken.carried is not None and (taken.carried.inside or taken.carried.outside):
        inside, outside = len(taken.carried.inside), len(taken.carried.outside)
        text = f"{plural(inside + outside, 'trial')} carried over, {outside} of them outside the new space"
        err.print(text)
    return taken.prepared


def _execute(prepared: Prepared, *, as_json: bool, goes_on: bool = False) -> SearchEnd:
    """Runs a prepared search with its display, then prints its results; leaves with an exit code where there are none.

    Args:
        goes_on: The command has more to do and to print.
    """
    from tlsearch.app.catalog.screen_file import decided_screen
    from tlsearch.app.checks.feasibility import constant_cost, untried_backbones
    from tlsearch.display.shown_search import execute_shown, show_progress
    from tlsearch.results import results_json
    from tlsearch.results.leaderboard.front_rows import front_json
    from tlsearch.results.leaderboard.screen_notes import screen_json

    entry = prepared.entry
    console = err if as_json else out
    console.print(f"search {entry.search_id} in {entry.directory}")
    progress = show_progress(prepared, console)
    for warning in (untried_backbones(prepared.file, prepared.space), constant_cost(prepared.file, prepared.space)):
        if warning:
            err.print(f"warning: {warning}")
    end = execute_shown(prepared, progress, stopping="stopping; the search can be resumed")
    found = {"screen": screen_json(decided_screen(entry)), "front": front_json(end.record)}
    results = {**results_json(end.record, end.run_ids), **found}
    last = not goes_on or end.reason == "interrupted" or results["best"] is None
    if not as_json:
        _print_end(end, next_steps=last)
        if end.reason != "interrupted" and (held := progress.forecast_held()):
            out.print(held)
    elif last:
        print_json(results)
    if end.reason != "interrupted":
        from tlsearch.app.views.report import report_at_end  # brings matplotlib: only now, after the results

        page = report_at_end(entry, prepared.lock)
        if page is not None:
            console.print(f"report: {page}")
    if end.reason == "interrupted":
        err.print(f"interrupted; go on with {command('resume', entry.search_id)}")
        raise typer.Exit(EXIT_INTERRUPTED)
    if results["best"] is None:
        err.print("no trial has a result")
        raise typer.Exit(EXIT_FAILED)
    return end


def _print_end(end: SearchEnd, *, next_steps: bool) -> None:
    from tlsearch.app.catalog.gather_facts import read_facts
    from tlsearch.cli.tables.results_table import print_front, print_leaderboard, print_next_steps
    from tlsearch.results import leaderboard
    from tlsearch.results.leaderboard.leaderboard_notes import comparability_notes

    record = end.record
    print_leaderboard(out, record, leaderboard(record, end.run_ids, read_facts(end.entry))[:10])
    print_front(out, record)
    for note in comparability_notes(record, read_facts(end.entry)):
        out.print(note)
    if end.unsent:
        unsent = f"{plural(end.unsent, 'MLflow record')} could not be sent"
        err.print(f"{unsent}: `tlsearch sync` sends what MLflow lacks from the study")
    if next_steps and record.best is not None:
        interrupted, folds = end.reason == "interrupted", bool(record.best.folds)
        tried = record.space_tried
        print_next_steps(out, record.search_id, interrupted=interrupted, folds=folds, space_tried=tried)
