"""The commands; whatever is heavy is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlsearch.cli.session import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USER,
    err,
    interruptible,
    out,
    print_json,
    told_errors,
)

if TYPE_CHECKING:
    from tlsearch.app.run import Prepared

app = typer.Typer(
    help="Search for the best way to fine-tune a pretrained image classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(help="The space.yaml that describes the search.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder of the images, in place of data.path.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a value: search.trials=8. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]
Search = Annotated[str | None, typer.Argument(metavar="[ID]", help="The search; the latest if left out.")]
Storage = Annotated[Path | None, typer.Option("--storage", help="Look for the search in this storage folder.")]
Address = Annotated[str, typer.Option("--address", help="local, auto, or HOST:PORT of a Ray cluster.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from tlsearch import __version__

        out.print(__version__)
        raise typer.Exit


@app.command()
def check(
    file: File,
    data: Data = None,
    set_: Set = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Check the file and the data only.")] = False,
    json: Json = False,
) -> None:
    """Check a space file, its data, weights and backbones, and list every fault at once."""
    with told_errors(as_json=json):
        from tlsearch.app.checks import check_file
        from tlsearch.cli.tables import backbone_table, data_table

        report = check_file(file, overrides=tuple(set_ or ()), data_path=data, with_model=not no_model)
    if json:
        print_json(report.as_json())
    else:
        if report.data:
            out.print(data_table(report.data))
        for backbone in report.backbones:
            out.print(backbone_table(backbone))
        for fault in report.faults:
            err.print(str(fault), markup=False, soft_wrap=True)
        count = len(report.faults)
        out.print("no fault found" if report.ok else f"{count} fault{'s' if count != 1 else ''}")
    raise typer.Exit(0 if report.ok else EXIT_USER)


@app.command()
def run(
    file: File,
    data: Data = None,
    set_: Set = None,
    address: Address = "local",
    trials: Annotated[int | None, typer.Option(help="Number of trials, in place of search.trials.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Time for the search, such as 2h or 30m.")] = None,
    name: Annotated[str | None, typer.Option(help="ID of the search; made from name and time if left out.")] = None,
    json: Json = False,
) -> None:
    """Run a search: many fine-tuning trials, scheduled by Ray Tune, recorded in MLflow."""
    overrides = list(set_ or ())
    if trials is not None:
        overrides.append(f"search.trials={trials}")
    if time_budget is not None:
        overrides.append(f"search.time_budget={time_budget}")
    with told_errors(as_json=json):
        from tlsearch.app.run import RunOptions, prepare

        prepared = prepare(RunOptions(file=file, overrides=overrides, data_path=data, address=address, name=name))
        _execute(prepared, as_json=json)


@app.command()
def resume(
    search: Search = None,
    storage: Storage = None,
    address: Address = "local",
    trials: Annotated[str | None, typer.Option(help="Trials in all (N), or this many more (+N).")] = None,
    json: Json = False,
) -> None:
    """Go on with a search that was interrupted, or extend one that has finished."""
    if trials is not None and not trials.removeprefix("+").isdigit():
        raise typer.BadParameter(f"a number of trials is N or +N, not {trials!r}", param_hint="--trials")
    with told_errors(as_json=json):
        from tlsearch.app.catalog import find
        from tlsearch.app.run import prepare_resume

        prepared = prepare_resume(find(search, storage), trials=trials, address=address)
        _execute(prepared, as_json=json)


def _execute(prepared: Prepared, *, as_json: bool) -> None:
    """Runs a prepared search with its display, then prints its results and leaves with its exit code."""
    from tlsearch.app.run import execute, read_record
    from tlsearch.cli.progress import Progress
    from tlsearch.results import results_json

    settings, entry = prepared.file.search, prepared.entry
    console = err if as_json else out
    console.print(f"search {entry.search_id} in {entry.directory}", markup=False, soft_wrap=True)
    progress = Progress(
        console,
        metric=settings.metric,
        trials=settings.trials,
        max_epochs=settings.max_epochs,
        time_budget_s=settings.time_budget_s,
    )
    if prepared.resumed:
        progress.restore(read_record(entry))
    with interruptible(lambda: progress.note("stopping; the search can be resumed")) as stop, progress:
        end = execute(prepared, observers=(progress,), stop=stop)
    results = results_json(end.record, end.run_ids)
    if as_json:
        print_json(results)
    else:
        _print_end(results, end.reason, end.unsent)
    if end.reason == "interrupted":
        err.print(f"interrupted; go on with `tlsearch resume {entry.search_id}`", markup=False)
        raise typer.Exit(EXIT_INTERRUPTED)
    if results["best"] is None:
        err.print("no trial has a result", markup=False)
        raise typer.Exit(EXIT_FAILED)


def _print_end(results: dict[str, object], reason: str, unsent: int) -> None:
    from tlsearch.cli.tables import leaderboard_table

    out.print(leaderboard_table(results, top=10))
    if unsent:
        err.print(f"{unsent} MLflow records could not be sent and wait in the search's spool", markup=False)
    if results["best"] is not None:
        search = results["search_id"]
        out.print("what to try next:")
        for command, purpose in (
            ("ui", "compare the trials in the MLflow UI"),
            (f"predict {search} IMAGES...", "use the best model"),
            (f"resume {search} --trials +12", "search on"),
        ):
            out.print(f"  tlsearch {command:<48} {purpose}", markup=False)


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


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A search's ID (its best model), ID:TRIAL, a folder, or an MLflow URI.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    storage: Storage = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    json: Json = False,
) -> None:
    """Predict the classes of images with a trained model."""
    with told_errors(as_json=json):
        from tlsearch.app.outcome import predict_images
        from tlsearch.cli.tables import prediction_table

        predictions = predict_images(model, images, storage=storage, device=device)
        if json:
            print_json(predictions)
        else:
            out.print(prediction_table(predictions))
