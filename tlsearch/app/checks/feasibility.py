"""What a search cannot do, known before a trial: limits, metrics and weights that no trial could have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product

from tlsearch.config import SpaceFile
from tlsearch.config.values import MOST
from tlsearch.core.errors import DataError, SpaceProblem, UsageError, UserError
from tlsearch.core.imports import quick_import
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.text import agree, plural
from tlsearch.core.types import ModelSpec, TrialConfig
from tlsearch.data import ImageIndex, fold_indexes
from tlsearch.space import PARAMETERS, Space, backbone_facts, image_sizes_of, is_screened

_TRIALS = re.compile(r"\+?[1-9][0-9]{0,8}")


def total_trials(asked: str, now: int) -> int:
    """The total that ``--trials`` asks for: ``N`` in all, or ``+N`` more than ``now``.

    Raises:
        UsageError: It is neither.
    """
    total = (now + int(asked) if asked.startswith("+") else int(asked)) if _TRIALS.fullmatch(asked) else 0
    if not 0 < total <= MOST:
        raise UsageError(f"--trials takes N or +N, whole numbers from 1 on, at most {MOST:,} in all; not {asked!r}")
    return total


def model_sizes(file: SpaceFile, space: Space, num_classes: int) -> dict[ModelSpec, dict[str, float]]:
    """params_millions and checkpoint_mb of each model of the space, counted where the search looks at them.

    A model without positions or windows has the same parameters at every image size, and is counted once.

    Raises:
        UserError: A backbone cannot take an image size of the file.
    """
    if not {"params_millions", "checkpoint_mb"} & {*file.search.measured}:
        return {}
    from tlsearch.model import describe_model

    sizes = dict[ModelSpec, dict[str, float]]()
    for name in space.backbones():
        facts, described = backbone_facts(name), None
        for image_size, features in product(image_sizes_of(space, name), _features_of(space, name)):
            config = TrialConfig(backbone=name, image_size=image_size, features=features)
            spec = ModelSpec.of(config, file.data, num_classes)
            if described is None or facts is None or facts.size_multiple != 1 or features is not None:
                described = describe_model(spec)
            sizes[spec] = {"params_millions": described.parameters / 1e6, "checkpoint_mb": described.state_bytes / 1e6}
    return sizes


def _features_of(space: Space, backbone: str) -> tuple[str | None, ...]:
    """The values of ``features`` that the trials of a backbone may have: the head is as wide as they are."""
    facts, domain = backbone_facts(backbone), space.dimensions["features"].domain
    if facts is None or not facts.has_class_token:
        return (None,)
    return tuple(one for one in (None, *PARAMETERS["features"].choices) if one is None or domain.contains(one))


def trial_depths(file: SpaceFile, space: Space) -> tuple[int, ...]:
    """The unfreeze depths that the search may try."""
    if not file.search.listed:
        return space.depths()
    configs = [space.to_config(space.complete(entry)) for entry in file.search.start_with]
    return tuple(sorted({config.unfreeze_depth for config in configs}))


def limit_problems(file: SpaceFile, sizes: Mapping[ModelSpec, Mapping[str, float]]) -> list[SpaceProblem]:
    """An error for each constraint that every backbone of the space breaks: no trial could be feasible."""
    problems = []
    for name, limit in file.search.constraints.limits.items():
        values = [(known[name], spec.backbone) for spec, known in sizes.items() if name in known]
        if values and min(values)[0] > limit:
            value, smallest = min(values)
            message = (
                f"no backbone of the space has {name} of at most {limit:g}; the smallest, {smallest}, has {value:.3g}"
            )
            problems.append(file.document.problem(("search", "constraints", name, "max"), message))
    return problems


def data_problems(file: SpaceFile, space: Space, index: ImageIndex) -> list[SpaceProblem]:
    """Errors of limits, metric and folds where these data cannot have them.

    Raises:
        UserError: As of ``model_sizes``.
    """
    num_classes = len(index.classes)
    problems = limit_problems(file, model_sizes(file, space, num_classes))
    return problems + metric_problems(file, num_classes) + fold_problems(file, index)


def metric_problems(file: SpaceFile, num_classes: int) -> list[SpaceProblem]:
    """An error where data with this number of classes do not have the metric."""
    task = TASKS[file.data.task]
    needed_classes = task.metrics[file.search.metric].min_classes
    if num_classes >= needed_classes:
        return []
    needed = f"{file.search.metric} needs {needed_classes} classes or more"
    message = f"{needed}; the data have {num_classes}: take {task.default_metric} or val_macro_f1"
    return [file.document.problem(("search", "metric"), message)]


def fold_problems(file: SpaceFile, index: ImageIndex) -> list[SpaceProblem]:
    """An error where the images of train and val cannot be cut into the folds that the search asks for."""
    if not file.search.num_folds:
        return []
    try:
        fold_indexes(index, file.search.num_folds, seed=file.data.split.seed)
    except DataError as error:
        return [file.document.problem(("search", "folds"), str(error))]
    return []


def num_training(file: SpaceFile, index: ImageIndex) -> int:
    """Images that one training sees."""
    folds, train, val = file.search.num_folds, len(index.splits["train"]), len(index.splits["val"])
    return (train + val) * (folds - 1) // folds if folds else train


def untried_backbones(file: SpaceFile, space: Space) -> str:
    """A warning where there are fewer trials than it takes to try each backbone once; empty where there are enough."""
    search, num = file.search, len(space.backbones())
    if search.listed or is_screened(space):  # how many are left is not known yet
        return ""
    points = space.starting_points(search.start_with)[: search.trials]
    tried = {space.to_config(point).backbone for point in points}
    missing = num - len(tried) - (search.trials - len(points))
    if missing <= 0:
        return ""
    return (
        f"{num} backbones, {plural(search.trials, 'trial')}: {missing} {agree(missing, 'is', 'are')} never tried; "
        f"list fewer backbones, or set search.trials to {search.trials + missing} or more"
    )


def constant_cost(file: SpaceFile, space: Space) -> str:
    """A warning where all trials cost the same by the second objective, as the space tells; else empty."""
    cost, (backbone, *others) = file.search.cost, space.backbones()
    if not cost or others or len({*_features_of(space, backbone)} - {None}) > 1:
        return ""
    facts = backbone_facts(backbone)
    by_size = cost == "latency_ms" or facts is None or facts.size_multiple != 1
    if by_size and len(image_sizes_of(space, backbone)) > 1:
        return ""
    return (
        f"objectives have no effect: {cost} of {backbone} is the same in all trials, so this is a search for "
        f"{file.search.metric} alone; list several backbones{' or image sizes' if by_size else ''}, or leave "
        "search.objectives out"
    )


def weights_problems(file: SpaceFile, space: Space, *, fetch: bool = True) -> list[SpaceProblem]:
    """An error for each backbone of the space whose weights cannot be had.

    Args:
        fetch: False: the libraries' official weights are only asked for at their host, not downloaded.
    """
    quick_import("tlsearch.model")
    from tlsearch.model import check_weights, resolve_weights

    have = resolve_weights if fetch else check_weights
    problems = []
    for backbone in space.backbones():
        try:
            have(backbone, file.weights_of(backbone))
        except UserError as error:
            problems.append(file.document.problem(("weights", backbone), str(error)))
    return problems


def weights_digests(file: SpaceFile, backbones: Iterable[str]) -> dict[str, str]:
    """The digest of each backbone's weights, see ``Weights.digest``.

    Raises:
        WeightsError: They cannot be had.
    """
    from tlsearch.model import weights_digest

    return {name: weights_digest(name, file.weights_of(name)) for name in backbones}
