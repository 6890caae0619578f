"""``compare``: two searches, or two models on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlsearch.cli.root import Json, Storage, app
from tlsearch.cli.session import out, print_json, shown_errors
from tlsearch.core.text import number_text

if TYPE_CHECKING:
    from tlsearch.display.console import Table
    from tlsearch.results.answer_comparison import AnswerComparison
    from tlsearch.results.leaderboard.leaderboard import LeaderboardRow
    from tlsearch.results.search_comparison import ModelComparison, SearchComparison

_SHOWN = 15


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A search (ID) or a model (ID:TRIAL, a folder, or an MLflow URI).")],
    b: Annotated[str, typer.Argument(help="The other search or model.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images, for two models: a folder with val/, or with one folder for each class, or a table "
            "of images with several labels."
        ),
    ] = None,
    storage: Storage = None,
    device: Annotated[str, typer.Option(help="Where the models run: cpu, cuda, or auto.")] = "auto",
    json: Json = False,
) -> None:
    """Compare two searches, or two models, and test the difference.

    The searches must be over the same images. Models are compared on validation images or on those of --data.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.views.compare_searches import compare as compare_both
        from tlsearch.results.search_comparison import SearchComparison

        found = compare_both(a, b, data=data, storage=storage, device=device)
    if json:
        print_json({"kind": "searches" if isinstance(found, SearchComparison) else "models", **found.as_json()})
    elif isinstance(found, SearchComparison):
        _print_searches(found)
    else:
        _print_pair(found)


def _print_searches(found: SearchComparison) -> None:
    table = _table(found.objective.metric, "trials", "best", "of trial", "backbone")
    for side in (found.a, found.b):
        best, backbone = side.best, str(side.best.params.get("backbone", ""))
        table.add_row(side.search_id, str(len(side.record.trials)), _value(best), str(best.trial), backbone)
    out.print(table)
    per_backbone = _table("backbone", found.a.search_id, found.b.search_id)
    for backbone in dict.fromkeys([*found.a.backbones, *found.b.backbones]):
        cells = [_value(side.backbones.get(backbone)) for side in (found.a, found.b)]
        per_backbone.add_row(backbone, *cells)
    out.print(per_backbone)
    text = f"difference {found.difference:+.4f}"
    if found.interval is not None:
        text += f", 95 %: {found.interval.low:+.4f} to {found.interval.high:+.4f} (as if on images of their own)"
    out.print(text)
    if found.models is not None:
        out.print("the best models of both on the same validation images:")
        _print_pair(found.models)
    else:
        out.print(f"no paired test: {found.models_missing}")
        out.print(found.verdict)
    out.print("both were chosen by these validation images: `tlsearch confirm` and `promote` measure afresh")


def _print_pair(found: ModelComparison | AnswerComparison) -> None:
    from tlsearch.results.answer_comparison import AnswerComparison

    if isinstance(found, AnswerComparison):
        _print_answers(found)
    else:
        _print_models(found)


def _print_answers(found: AnswerComparison) -> None:
    metrics = _table("metric", found.a, found.b, "difference", "95 %")
    for one in found.metrics:
        interval = f"{one.interval.low:+.4f} to {one.interval.high:+.4f}"
        metrics.add_row(one.name, f"{one.a:.4f}", f"{one.b:.4f}", f"{one.difference:+.4f}", interval)
    out.print(metrics)
    out.print(f"{found.num_images} images, drawn again for the intervals; F1 at probabilities of a half")
    out.print(found.verdict, style="bold")
    differing = [one for one in found.classes if one.a != one.b][:_SHOWN]
    if differing:
        classes = _table("class", "images", "average precision of A", "of B")
        for each in differing:
            classes.add_row(each.name, str(each.images), number_text(each.a), number_text(each.b))
        out.print(classes)
    if found.disagreements:
        images = _table("image", "labels", "A", "B", left=4)
        for image in found.disagreements[:_SHOWN]:
            images.add_row(image.key, image.label, image.a, image.b)
        out.print(images)
        _print_more(len(found.disagreements))


def _print_models(found: ModelComparison) -> None:
    test = found.paired
    scores = _table("model", "accuracy", "95 %", "right alone")
    for score, alone in ((found.a, test.only_a), (found.b, test.only_b)):
        interval = f"{score.interval.low:.4f} to {score.interval.high:.4f}"
        scores.add_row(score.name, f"{score.accuracy:.4f}", interval, str(alone))
    out.print(scores)
    interval = f"{test.interval.low:+.4f} to {test.interval.high:+.4f}"
    out.print(
        f"{test.num_images} images: {found.both_right} right by both, {found.both_wrong} wrong by both; "
        f"difference {test.difference:+.4f}, 95 %: {interval}; McNemar's exact test p = {test.p_value:.3g}"
    )
    out.print(found.verdict, style="bold")
    differing = [one for one in found.classes if one.right_a != one.right_b][:_SHOWN]
    if differing:
        classes = _table("class", "images", "right by A", "right by B")
        for one in differing:
            classes.add_row(one.name, str(one.images), str(one.right_a), str(one.right_b))
        out.print(classes)
    if found.disagreements:
        images = _table("image", "label", "A", "B", left=4)
        for image in found.disagreements[:_SHOWN]:
            images.add_row(image.key, image.label, f"{image.a} {image.score_a:.2f}", f"{image.b} {image.score_b:.2f}")
        out.print(images)
        _print_more(len(found.disagreements))


def _print_more(num_images: int) -> None:
    if num_images > _SHOWN:
        out.print(f"and {num_images - _SHOWN} more, see --json")


def _table(*heads: str, left: int = 1) -> Table:
    from tlsearch.display.console import Table

    table = Table()
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < left else "right", overflow="fold")
    return table


def _value(row: LeaderboardRow | None) -> str:
    if row is None or row.best_value is None:
        return "-"
    return f"{row.best_value:.4f}" + (f" ±{row.standard_error:.4f}" if row.standard_error is not None else "")
