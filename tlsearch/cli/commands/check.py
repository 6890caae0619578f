"""``check`` and ``plan``: what can be known before a trial is spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlsearch.cli.root import Data, File, Json, Set, app
from tlsearch.cli.session import EXIT_USER, err, out, print_json, shown_errors
from tlsearch.core.codec import to_plain
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.text import plural
from tlsearch.display.console import Steps

if TYPE_CHECKING:
    from tlsearch.app.checks.check_file import CheckedBackbone, CheckReport
    from tlsearch.app.checks.planning import PlanReport


@app.command()
def check(
    file: File,
    data: Data = None,
    set_: Set = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Check the file and the images only.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Also train one batch of each backbone.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Also forecast the search, as `tlsearch plan` does.")] = False,
    json: Json = False,
) -> None:
    """Check a space file, its images and weights; list all errors.

    It opens every image and shows the stages of each backbone.
    """
    if no_model and (dry_run or plan):
        needing = "dry run" if dry_run else "forecast"
        raise typer.BadParameter(f"a {needing} needs the models", param_hint="--no-model")
    with shown_errors(as_json=json):
        from tlsearch.app.checks.check_file import check_file
        from tlsearch.cli.tables.data_tables import backbone_table, data_lines, data_table

        report = check_file(
            file, overrides=tuple(set_ or ()), data_path=data, with_model=not no_model, with_batch=dry_run
        )
        planned = _planned(file, data, set_) if plan and report.ok else None
    if json:
        print_json(_report_json(report) | ({} if planned is None else {"plan": planned.as_json()}))
    else:
        if report.data:
            out.print(data_table(report.data))
            for line in data_lines(report.data):
                out.print(line)
        for line in report.validation.lines() if report.validation else ():
            out.print(line)
        if report.defaults:
            fitted = ", ".join(f"{name} {value}" for name, value in report.defaults.items())
            out.print(f"defaults for these data: {fitted}")
        for backbone in report.backbones:
            out.print(backbone_table(backbone))
        if planned is not None:
            _print_plan(planned)
        for warning in report.warnings:
            err.print(f"warning: {warning}")
        for problem in report.problems:
            err.print(str(problem))
        if report.ok:
            out.print("no error found")
        else:
            err.print(plural(len(report.problems), "error"))
    raise typer.Exit(0 if report.ok else EXIT_USER)


@app.command()
def plan(file: File, data: Data = None, set_: Set = None, json: Json = False) -> None:
    """Forecast the time, disk and memory that a search will take.

    It times a few training steps on this machine, which takes some ten seconds, and writes nothing.
    """
    with shown_errors(as_json=json):
        planned = _planned(file, data, set_)
    if json:
        print_json(planned.as_json())
    else:
        _print_plan(planned)


def _planned(file: Path, data: Path | None, set_: list[str] | None) -> PlanReport:
    with Steps(err) as steps:
        steps("loading PyTorch")
        from tlsearch.app.checks.planning import plan_file

        return plan_file(file, overrides=tuple(set_ or ()), data_path=data, step=steps)


def _print_plan(planned: PlanReport) -> None:
    from tlsearch.cli.tables.plan_lines import plan_lines

    for line in plan_lines(planned):
        out.print(line)


def _report_json(report: CheckReport) -> dict[str, Any]:
    """{ok, faults: [{line, column, path, message}], data, backbones, warnings, defaults, validation}.

    Warnings look like errors.
    """
    return {
        "ok": report.ok,
        "faults": [_problem_json(one) for one in report.problems],
        "data": {} if report.data is None else to_plain(report.data),
        "backbones": [_backbone_json(one) for one in report.backbones],
        "warnings": [_problem_json(one) for one in report.warnings],
        "defaults": dict(report.defaults),
        "validation": None if report.validation is None else report.validation.as_json(),
    }


def _problem_json(problem: SpaceProblem) -> dict[str, Any]:
    return {"line": problem.line, "column": problem.column, "path": problem.dotted, "message": problem.message}


def _backbone_json(backbone: CheckedBackbone) -> dict[str, Any]:
    described, facts = to_plain(backbone.described), backbone.facts
    return {
        "name": described["name"],
        "weights": backbone.weights.id,
        "licence": backbone.weights.licence,
        "image_size": described["image_size"],
        "min_image_size": facts.min_size,
        "image_sizes": facts.size_rule(),
        "searched_image_sizes": list(backbone.searched_sizes),
        "stages": described["stages"],
        "trainable_parameters": described["trainable_parameters"],
        "adapted_parameters": {way: dict(counts) for way, counts in backbone.adapted.items()},
    }
