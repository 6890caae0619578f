"""``predict`` and ``export``: what is done with a trained model."""

from __future__ import annotations

import csv
import io
import json as json_module
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tlsearch.cli.root import Json, Storage, app
from tlsearch.cli.session import err, out, print_json, told_errors

Model = Annotated[str, typer.Argument(help="A search's ID (its best model), ID:TRIAL, a folder, or an MLflow URI.")]


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files, or folders of them.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder of labelled images, one folder for each class.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of --data, where it has splits: train or val.")] = "val",
    storage: Storage = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    output: Annotated[Path | None, typer.Option("--output", help="Write JSON or CSV there instead.")] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: path, label, score, and truth where known.")
    ] = False,
    json: Json = False,
) -> None:
    """Predict the classes of images with a trained model."""
    if (data is None) == (not images):
        raise typer.BadParameter("give image files or folders, or --data with labelled ones")
    with told_errors(as_json=json):
        from tlsearch.app.predictions import predict_images, predict_labelled
        from tlsearch.cli.tables import prediction_table

        found: Any
        if data is not None:
            found = predict_labelled(model, data, split=split, storage=storage, device=device)
            predictions = found["predictions"]
        else:
            with _progress() as progress:
                found = predict_images(model, images or [], storage=storage, device=device, progress=progress)
            predictions = found
        wants_csv = as_csv or (output is not None and output.suffix.lower() == ".csv")
        if output is not None:
            _write(output, _csv(predictions) if wants_csv else json_module.dumps(found, indent=2) + "\n")
            err.print(f"{len(predictions)} predictions in {output}", markup=False)
        elif json:
            print_json(found)
        elif as_csv:
            typer.echo(_csv(predictions), nl=False)
        else:
            out.print(prediction_table(predictions))
        if data is not None and not json:
            low, high = found["interval"]
            err.print(f"accuracy {found['accuracy']:.4f} of {found['images']} (95 % interval {low:.4f} .. {high:.4f})")


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


def _csv(predictions: Sequence[Mapping[str, Any]]) -> str:
    names = ["path", "label", "score", *(["truth"] if predictions and "truth" in predictions[0] else [])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([one[name] for name in names] for one in predictions)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    from tlsearch.app.catalog import write_atomically
    from tlsearch.errors import StorageError

    try:
        write_atomically(path, text)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


@app.command()
def export(
    model: Model,
    format_: Annotated[str, typer.Option("--format", help="onnx, torch (torch.export), or script (plain PyTorch).")],
    output: Annotated[Path | None, typer.Option("--output", help="The file, or the folder of a script.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Check on these; else on the search's validation images.")
    ] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Write a model in a format that runs without tlsearch, checked against the model on real images."""
    with told_errors(as_json=json):
        from tlsearch.app.export import export_model
        from tlsearch.cli.production_tables import export_table

        result = export_model(model, form=format_, output=output, images=images, storage=storage)
        if json:
            print_json(result)
            return
        out.print(export_table(result))
        parity = result["parity"]
        kind = "images" if parity["real"] else "made-up images (--images names real ones)"
        out.print(
            f"equal to the model on {parity['images']} {kind}: logits to {parity['logits']:.1e}, "
            f"scores to {parity['scores']:.1e}",
            markup=False,
        )
        out.print(f"written: {result['path']}", markup=False, soft_wrap=True)
