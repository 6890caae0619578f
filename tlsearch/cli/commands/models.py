"""``predict`` and ``export``: the use of a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlsearch.cli.root import Json, Storage, app
from tlsearch.cli.session import EXIT_FAILED, err, json_text, out, print_json, shown_errors
from tlsearch.cli.tables.data_tables import prediction_table
from tlsearch.core.codec import to_plain
from tlsearch.core.label_tasks import SEPARATOR
from tlsearch.core.metrics import METRICS
from tlsearch.core.printable import csv_text
from tlsearch.core.text import one_of, plural
from tlsearch.display.console import Table, print_data
from tlsearch.results.export.export_formats import EXPORT_FORMATS, formats_with

if TYPE_CHECKING:
    from tlsearch.app.production.export_model import ExportedModel
    from tlsearch.app.views.predictions import Predictions
    from tlsearch.results.export.onnx_int8 import Int8Test

_MAX_ERRORS = 20
_FOLDERS = one_of([one.name for one in EXPORT_FORMATS.values() if not one.suffix])

Model = Annotated[
    str,
    typer.Argument(help="ID of a search (its best model), ID:TRIAL, ID:ensemble, ID:soup, a folder, or an MLflow URI."),
]


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files, or folders of them.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Labelled images: a folder with one folder for each class, or a table of images with several labels.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data: train or val.")] = "val",
    storage: Storage = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, or auto.")] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file: JSON, or CSV if its name ends in .csv.")
    ] = None,
    as_csv: Annotated[
        bool,
        typer.Option(
            "--csv",
            help="Print CSV, with the columns path, label, score and error; labels and truth where there are any.",
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Give all predictions or none.")] = False,
    json: Json = False,
) -> None:
    """Predict the classes of images with a trained model.

    An image that cannot be read is reported, and the exit code is 1; the predictions of the others are given.
    """
    if (data is None) == (not images):
        raise typer.BadParameter("give image files or folders, or --data with labelled ones")
    with shown_errors(as_json=json):
        from tlsearch.app.checks.outputs import check_output, write_output
        from tlsearch.app.views.predictions import predict_images, predict_labelled
        from tlsearch.core.errors import UsageError
        from tlsearch.data.images.file_formats import named_as_image

        if output is not None:
            check_output(output, "--output")
            if named_as_image(output.name):
                raise UsageError(f"--output must name a file for the predictions; {output} is called like an image")
        if data is not None:
            found = predict_labelled(model, data, split=split, storage=storage, device=device, strict=strict)
        else:
            with _progress() as progress:
                found = predict_images(
                    model, images or [], storage=storage, device=device, strict=strict, progress=progress
                )
        for note in found.notes:
            err.print(note)
        if output is not None:
            wants_csv = as_csv or output.suffix.lower() == ".csv"
            write_output(output, _csv(found) if wants_csv else json_text(_predictions_json(found)), "--output")
        elif json:
            print_json(_predictions_json(found))
        elif as_csv:
            print_data(_csv(found))
        else:
            out.print(prediction_table(found.predicted))
        if found.interval is not None and not json:
            interval = f"(95 % interval {found.interval.low:.4f} .. {found.interval.high:.4f})"
            err.print(f"accuracy {found.accuracy:.4f} of {len(found.predicted)} {interval}")
        _print_errors(found, output)


def _print_errors(found: Predictions, output: Path | None) -> None:
    """Prints the errors and leaves with exit code 1 where there are some; else says where the predictions are."""
    predicted = len(found.predicted)
    for error in found.errors[:_MAX_ERRORS]:
        err.print(error)
    if len(found.errors) > _MAX_ERRORS:
        err.print(f"and {len(found.errors) - _MAX_ERRORS} more, see the column `error` of --csv, or --json")
    text = plural(predicted, "prediction")
    text += f" in {output}" if output is not None else ""
    if found.errors:
        err.print(f"{text}; {len(found.errors)} cannot be read")
        raise typer.Exit(EXIT_FAILED)
    if output is not None:
        err.print(text)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if not err.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _predictions_json(found: Predictions) -> Any:
    """The published shapes: a list of predictions; with labels {accuracy, interval, images, predictions}."""
    empty: dict[str, Any] = {"label": None, "score": None, "top": [], "error": None}
    answers = [{"path": one.path, **empty, **to_plain(one)} for one in found.answers]
    if found.interval is None:
        return answers
    return {
        "accuracy": found.accuracy,
        "interval": [found.interval.low, found.interval.high],
        "images": len(found.predicted),
        "predictions": [{**one, "truth": truth} for one, truth in zip(answers, found.truths, strict=True)],
    }


def _csv(found: Predictions) -> str:
    answers = _predictions_json(found)
    rows = answers["predictions"] if found.truths else answers
    several = ["labels"] if any("labels" in one for one in rows) else []
    names = ["path", "label", "score", *several, *(["truth"] if found.truths else []), "error"]
    return csv_text(names, ([_cell(one, name) for name in names] for one in rows))


def _cell(answer: dict[str, Any], name: str) -> Any:
    value = answer.get(name)
    return SEPARATOR.join(one["label"] for one in value) if name == "labels" and value is not None else value


@app.command()
def export(
    model: Model,
    format_: Annotated[str, typer.Option("--format", help=", ".join(map(str, EXPORT_FORMATS.values())) + ".")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=f"File to write; a folder for {_FOLDERS}. Default: model.onnx and the like."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of images for the check. Default: validation images of the search."),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help=f"For {one_of(formats_with('int8'))}: 8-bit integers, calibrated on training images and tested on "
            "validation images of the search.",
        ),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            "--push", help=f"For {one_of(formats_with('push'))}: upload to this repository of the Hugging Face Hub."
        ),
    ] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Write a model in a format that runs without tlsearch.

    The export runs on images before it is written, and must give what the model gives.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.production.export_model import export_model

        result = export_model(
            model, form=format_, output=output, images=images, storage=storage, int8=int8, push_to=push or ""
        )
        if json:
            print_json(to_plain(result))
            return
        out.print(_export_table(result))
        parity = result.parity
        kind = "images" if parity.real else "made-up images (--images names real ones)"
        out.print(
            f"equal to the model on {parity.images} {kind}: logits (up to {parity.largest_logit:.3g}) to "
            f"{parity.logits:.1e}, "
            f"scores to {parity.scores:.1e}",
        )
        if result.int8 is not None:
            out.print(_int8_text(result.int8))
        out.print(f"written: {result.path}")
        if result.pushed:
            out.print(f"uploaded: {result.pushed}")


def _int8_text(found: Int8Test) -> str:
    """What 8-bit integers cost in accuracy, and how much smaller they make the file."""
    test, metric = found.test, METRICS[found.metric]
    value = "" if metric.is_share else f"{metric.label} {found.value:.4f}, in fp32 {found.float_value:.4f}; "
    return (
        f"8-bit integers, calibrated on {plural(found.calibration_images, 'training image')}: {value}{found.rightness} "
        f"{found.accuracy:.4f}, in fp32 {found.float_accuracy:.4f}, on {plural(test.num_images, 'validation image')}; "
        f"difference {test.difference:+.4f} (95 % interval {test.interval.low:+.4f} to {test.interval.high:+.4f}), "
        f"McNemar's exact test p = {test.p_value:.3g}; the same label on {found.same_labels}; "
        f"{found.size_bytes / 1e6:.1f} MB, in fp32 {found.float_bytes / 1e6:.1f} MB"
    )


def _export_table(result: ExportedModel) -> Table:
    """How long the formats take for one image."""
    table = Table(caption=f"on {result.latency_on}")
    table.add_column("format")
    table.add_column("milliseconds an image", justify="right")
    for one in result.latency:
        table.add_row(one.format, f"{one.ms:.1f}")
    return table
