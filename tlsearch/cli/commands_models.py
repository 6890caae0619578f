"""``predict``: what is done with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlsearch.cli.root import Json, Storage, app
from tlsearch.cli.session import out, print_json, told_errors


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
