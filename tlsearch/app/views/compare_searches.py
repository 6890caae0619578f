"""Compares two searches on their own data, or two models on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tlsearch.app.catalog.catalog import SearchEntry, find, names_search
from tlsearch.app.catalog.gather_facts import complete_facts, read_space_file
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.views.outcome import find_checkpoint
from tlsearch.core.errors import DataError, UsageError, UserError
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.types import DataSpec
from tlsearch.data import ImageIndex, load_index
from tlsearch.results.answer_comparison import AnswerComparison, compare_answers
from tlsearch.results.search_comparison import (
    ModelComparison,
    SearchComparison,
    SearchSide,
    compare_models,
    compare_searches,
    search_side,
)

SPLIT = "val"


def compare(
    a: str, b: str, *, data: Path | None = None, storage: Path | None = None, device: str = "auto"
) -> ModelComparison | AnswerComparison | SearchComparison:
    """Compares two searches, if both names are a search's ID and no data are given; else two models.

    Args:
        a: A search's ID, ``ID:TRIAL``, a checkpoint folder or an MLflow URI.
        b: As ``a``.
        data: Labelled images: a folder with ``val/``, or with one folder for each class, all of which are used; for
            multi-label models a table, whose rows of ``val`` count, or all where it has no splits. If left out, the
            validation images of the search that a model comes from.
        storage: Where to look for searches instead of the catalogue.
        device: For the models: cpu, cuda, or auto.

    Raises:
        UserError: A name that is neither; data or classes that do not fit.
    """
    if data is None and _is_search(a) and _is_search(b):
        return _compare_searches(find(a, storage), find(b, storage), device)
    if data is None:
        index, split = _own_data(a, b, storage), SPLIT
    else:
        index, split = _labelled(data)
        refuse_sealed([Path(index.root, key) for key in index.splits[split].keys], (a, b), storage)
    checkpoints = (find_checkpoint(a, storage), find_checkpoint(b, storage))
    return _compare_checkpoints((a, b), checkpoints, index, split, device)


def _is_search(name: str) -> bool:
    return ":" not in name and names_search(name)


def _compare_searches(a: SearchEntry, b: SearchEntry, device: str) -> SearchComparison:
    if a.directory == b.directory:
        raise UsageError(f"two searches are compared; both names are {a.search_id}")
    sides = (_side(a), _side(b))
    compare_searches(*sides)  # refuses before models are loaded
    models, missing = _best_models((a, b), sides, device)
    return compare_searches(*sides, models, missing)


def _side(entry: SearchEntry) -> SearchSide:
    record = read_record(entry)
    return search_side(record, complete_facts(entry, [trial.config for trial in record.trials]))


def _best_models(
    entries: tuple[SearchEntry, SearchEntry], sides: tuple[SearchSide, SearchSide], device: str
) -> tuple[ModelComparison | AnswerComparison | None, str]:
    """Both best models on the validation images that their searches share."""
    a, b = sides
    folders = []
    for entry, side in zip(entries, sides, strict=True):
        folder = entry.folder.best(side.best.trial)
        if not folder.is_dir():
            return None, f"the model of trial {side.best.trial} of {side.search_id} is not kept"
        folders.append(str(folder))
    file = read_space_file(entries[0])
    if file is None:
        return None, f"the data of {a.search_id} are not known"
    try:
        index = load_index(file.data)
        if a.facts.digest and index.digest != a.facts.digest:
            return None, "the data have changed since the searches"
        names, metric = (a.search_id, b.search_id), a.record.metric
        return _compare_checkpoints(names, (folders[0], folders[1]), index, SPLIT, device, metric=metric), ""
    except UserError as error:
        return None, str(error)


def _compare_checkpoints(
    names: tuple[str, str],
    checkpoints: tuple[str, str],
    index: ImageIndex,
    split: str,
    device: str,
    *,
    metric: str | None = None,
) -> ModelComparison | AnswerComparison:
    """Two models on the images of a split; of multi-label ones the verdict rests on ``metric``, by default mAP."""
    from tlsearch.results.inference.labelled import Evaluation
    from tlsearch.results.inference.multi_labelled import MultiLabelEvaluation, evaluate_split
    from tlsearch.results.inference.predictor import load_model

    # One after the other, so that only one model is in memory.
    a, b = (evaluate_split(load_model(one, device=device), index, split) for one in checkpoints)
    if isinstance(a, MultiLabelEvaluation) and isinstance(b, MultiLabelEvaluation):
        return compare_answers(names, a, b, metric=metric or TASKS[index.task].default_metric)
    assert isinstance(a, Evaluation) and isinstance(b, Evaluation), "both models are of the task of the images"
    return compare_models(names, a, b)


def _own_data(a: str, b: str, storage: Path | None) -> ImageIndex:
    """The data of the search that the first model, or else the second, comes from."""
    for spec in _data_of((a, b), storage):
        return load_index(spec)
    raise UsageError("models of no search are compared on labelled images: name their folder with --data")


def _data_of(names: Sequence[str], storage: Path | None) -> list[DataSpec]:
    """The data of the searches that the names speak of."""
    searches = [name.partition(":")[0] for name in names if names_search(name)]
    files = [read_space_file(find(search_id, storage)) for search_id in searches]
    return [file.data for file in files if file is not None]


def refuse_sealed(images: Iterable[Path], names: Sequence[str], storage: Path | None) -> None:
    """Test images are for ``promote``, which looks at them once.

    Args:
        images: Labelled ones, that models are to be scored on.
        names: Of the models.
        storage: Where to look for the searches among them.

    Raises:
        DataError: Some belong to the test split of one of the searches.
    """
    given = {path.resolve() for path in images}
    for spec in _data_of(names, storage):
        try:
            own = load_index(spec)
        except UserError:
            continue  # data that are gone have no test images to protect
        if own.root and "test" in own.splits:
            sealed = {Path(own.root, key).resolve() for key in own.splits["test"].keys}
            if sealed & given:
                raise DataError(
                    f"the test split stays closed until `promote` opens it; {len(sealed & given)} of these images are "
                    f"in that of {own.root}"
                )


def _labelled(path: Path) -> tuple[ImageIndex, str]:
    """The images of a folder or a table, and the split to use: ``val`` of ready splits, else all of them."""
    from tlsearch.data.index import Split
    from tlsearch.data.sources.listing import list_source

    spec = DataSpec(source="folder", path=str(path.absolute()))
    if path.is_file():
        spec = replace(spec, source="manifest", task="multi_label")
    listing = list_source(spec)
    if "all" not in listing.items:
        if SPLIT not in listing.items:
            raise DataError(
                "--data names a folder with val/ or with one folder for each class, or a table of images with several "
                f"labels; {path} has no {'images of val' if path.is_file() else 'val/'}"
            )
        return load_index(spec), SPLIT
    items = listing.items["all"]
    split = Split(keys=tuple(item.key for item in items), labels=tuple(item.label for item in items))
    index = ImageIndex(
        source=spec.source,
        root=listing.root,
        classes=listing.classes,
        splits={"all": split},
        digest="",
        reader=listing.reader,
        task=spec.task,
    )
    return index, "all"
