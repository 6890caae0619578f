"""``init``, ``schema`` and ``demo``: a new space file, what editors know of it, and one to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlsearch.cli.commands.run import run
from tlsearch.cli.root import Json, app
from tlsearch.cli.session import err, out, print_json, shown_errors
from tlsearch.core.errors import StorageError, UsageError
from tlsearch.core.text import command
from tlsearch.display.console import Steps, print_data


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="Folder of images (here or s3://), or a .csv, .tsv or .parquet table.")],
    minutes: Annotated[float, typer.Option(help="Time for search, confirm and promote together, in minutes.")] = 10.0,
    domain: Annotated[
        str, typer.Option(help="photos, drawings, documents, medical, microscopy or satellite. Default: measured.")
    ] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("space.yaml"),
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="File of pretrained weights that is named after its backbone, or a folder of them. May be repeated.",
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="auto, or classes: every top folder is a class, even one named train.")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    json: Json = False,
) -> None:
    """Write a commented space file for your images and this machine."""
    if layout not in ("auto", "classes"):
        raise typer.BadParameter(f"is auto or classes, not {layout!r}", param_hint="--layout")
    with shown_errors(as_json=json):
        from tlsearch.app.init.write_space import InitOptions, init_space

        options = InitOptions(
            data=data,
            minutes=minutes,
            domain=domain,
            weights=tuple(weights or ()),
            layout=layout,
            output=output,
            force=force,
        )
        with Steps(err if json else out) as step:
            written = init_space(options, step=step)
    for warning in written.warnings:
        err.print(f"warning: {warning}")
    if json:
        print_json(written.as_json())
        return
    out.print(f"{written.data}\n{written.machine}")
    for choice in written.choices:
        out.print(f"  {'.'.join(choice.key)}: {choice.value}")
    nxt = command("run", str(written.path), "--promote")
    out.print(f"written: {written.path}, with the reason for every line. Next: {nxt}")


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write. Default: print it.")] = None,
) -> None:
    """Print the JSON schema of space files, for editors.

    Editors complete and check a space file whose first line names it:
    "# yaml-language-server: $schema=./space.schema.json".
    """
    with shown_errors():
        from tlsearch.app.checks.outputs import check_output, write_output
        from tlsearch.app.views.space_schema import schema_text

        if output is None:
            print_data(schema_text())
        else:
            check_output(output, "--output")
            write_output(output, schema_text(), "--output")
            out.print(f"written: {output}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Folder to run it in.")] = Path("tlsearch-demo"),
) -> None:
    """Run a small search from start to end on handwritten digits.

    It takes some minutes on two CPU cores and needs the packages of the extra demo. The folder gets the space file,
    the search and its MLflow store.
    """
    file = folder / "space.yaml"
    with shown_errors():
        from tlsearch.app.init.write_space import quickstart_text
        from tlsearch.core.files import write_atomically

        if folder.is_file():
            raise UsageError(f"--folder must name a folder; {folder} is a file")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                write_atomically(file, quickstart_text())
        except OSError as error:
            raise StorageError(f"the folder {folder} cannot be written: {error.strerror or error}") from error
    run(file)
