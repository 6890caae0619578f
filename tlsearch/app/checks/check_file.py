"""What can be known before a trial is spent: the file, the data, the weights, the stages, one real batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlsearch.app.catalog.bucket_searches import folder_of
from tlsearch.app.catalog.search_names import new_search_id
from tlsearch.app.checks.data_defaults import fit_channels, fit_defaults, with_pixels
from tlsearch.app.checks.feasibility import (
    constant_cost,
    fold_problems,
    limit_problems,
    metric_problems,
    model_sizes,
    num_training,
    untried_backbones,
    weights_problems,
)
from tlsearch.app.checks.outputs import check_search_folder
from tlsearch.app.checks.resolution import Resolution, resolution
from tlsearch.config import SpaceFile, missing_driver
from tlsearch.core.errors import DataError, SpaceError, SpaceProblem, StorageError, TlsearchError, UserError
from tlsearch.core.types import ModelSpec, Scalar, TrialAssignment, TrialConfig
from tlsearch.core.user_folders import scratch_folder
from tlsearch.space import BackboneFacts, Space, backbone_facts, image_sizes_of, load, unused_weights
from tlsearch.space.adapt_methods import ADAPT_METHODS, PLAIN

if TYPE_CHECKING:
    from tlsearch.data import DataCard
    from tlsearch.model import ModelDescription, WeightsCard


@dataclass(frozen=True, kw_only=True)
class CheckedBackbone:
    """A backbone of the space: its stages, the weights that its trials begin from, and its facts.

    Attributes:
        adapted: By the ways to adapt its stages that the space has for it, such as ``lora 8``, the parameters that
            train at each depth.
        described: At the image size of its first trial.
        searched_sizes: The image sizes that the space has for it, rising; empty where they are not searched.
    """

    described: ModelDescription
    weights: WeightsCard
    facts: BackboneFacts
    adapted: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    searched_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The findings of ``tlsearch check``.

    Attributes:
        data: None where the data cannot be read, as is ``validation``.
        defaults: Of the dimensions that the space leaves out, those that were fitted to data and weights.
        validation: The differences that the validation split can tell apart.
    """

    problems: tuple[SpaceProblem, ...] = ()
    warnings: tuple[SpaceProblem, ...] = ()
    data: DataCard | None = None
    backbones: tuple[CheckedBackbone, ...] = ()
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    validation: Resolution | None = None

    @property
    def ok(self) -> bool:
        """No error."""
        return not self.problems


def check_file(
    path: Path,
    *,
    overrides: tuple[str, ...] = (),
    data_path: Path | None = None,
    with_model: bool = True,
    with_batch: bool = False,
) -> CheckReport:
    """Checks a space file, its data, (``with_model``) its backbones and weights, (``with_batch``) a real batch of each.

    Errors of the file end the check, since the rest cannot be read; errors of data and weights are
    all listed.
    """
    try:
        file, space = load(path, overrides=overrides, data_path=data_path)
    except SpaceError as error:
        return CheckReport(problems=error.faults)
    problem = file.document.problem
    seen = _look_at_data(file, space)
    file, space = seen.file, seen.space
    problems = [*_place_problems(file), *seen.problems]
    backbones: list[CheckedBackbone] = []
    if with_model:
        problems += weights_problems(file, space, fetch=False)
        backbones, unbuilt = _describe_all(file, space, seen.num_classes or 2)
        problems += unbuilt
        if not unbuilt:
            problems += limit_problems(file, model_sizes(file, space, seen.num_classes or 2))
    if with_batch and not problems:
        problems += dry_run(file, space)
    notes = {
        ("space", "backbone"): untried_backbones(file, space),
        ("search", "objectives"): constant_cost(file, space),
    }
    return CheckReport(
        problems=tuple(problems),
        data=seen.card,
        backbones=tuple(backbones),
        warnings=(*unused_weights(file, space), *(problem(at, note) for at, note in notes.items() if note)),
        defaults=seen.defaults,
        validation=seen.validation,
    )


def _place_problems(file: SpaceFile) -> list[SpaceProblem]:
    """Of the places that a search writes to: stores without a driver, and its folder."""
    problem = file.document.problem
    stores = {("tracking", "uri"): (file.tracking.uri, "MLflow"), ("search", "study"): (file.search.study, "the study")}
    missing = {path: missing_driver(*store) for path, store in stores.items()}
    problems = [problem(path, "; ".join(found)) for path, found in missing.items() if found]
    storage = folder_of(file.storage)
    try:
        check_search_folder(storage / new_search_id(file.name, storage))
    except StorageError as error:
        problems.append(problem(("storage",), str(error)))
    return problems


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a look at the data found; the file and the space with the defaults that fit them."""

    file: SpaceFile
    space: Space
    num_classes: int = 0
    card: DataCard | None = None
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    validation: Resolution | None = None
    problems: tuple[SpaceProblem, ...] = ()


def _look_at_data(file: SpaceFile, space: Space) -> _Seen:
    """As far as the data can be read: an error keeps what was found before it."""
    seen, problems = _Seen(file=file, space=space), list[SpaceProblem]()
    try:
        from tlsearch.data import data_card, load_index

        index = load_index(file.data)
        seen = replace(seen, num_classes=len(index.classes))
        index = with_pixels(file, index)
        seen = replace(seen, card=(card := data_card(index, scan=True, include_test=True)))
        if card.corrupt:  # all of them, before the first would end the measuring
            problems.append(file.document.problem(("data",), card.corrupt_message()))
        else:
            file = fit_channels(file, index)
        file, space = fit_defaults(file, space, num_training(file, index))
        defaults = {name: space.default_of(name) for name in file.defaults.values if space.dimensions[name].left_out}
        validation = resolution(index, file.search.num_folds)
        seen = replace(seen, file=file, space=space, defaults=defaults, validation=validation)
        problems += fold_problems(file, index)
        if index.doubt:
            problems.append(file.document.problem(("data",), index.doubt))
    except DataError as error:
        problems.append(file.document.problem(("data",), str(error)))
    if seen.num_classes:
        problems += metric_problems(file, seen.num_classes)
    return replace(seen, problems=tuple(problems))


def _describe_all(file: SpaceFile, space: Space, num_classes: int) -> tuple[list[CheckedBackbone], list[SpaceProblem]]:
    described: list[CheckedBackbone] = []
    problems: list[SpaceProblem] = []
    for backbone in space.backbones():
        try:
            described.append(_describe(backbone, file, space, num_classes))
        except UserError as error:
            problems.append(file.document.problem(("space", "backbone", backbone), str(error)))
    return described, problems


def _describe(backbone: str, file: SpaceFile, space: Space, num_classes: int) -> CheckedBackbone:
    from tlsearch.model import describe_model, weights_card

    facts = backbone_facts(backbone)
    assert facts is not None, "a space has known backbones only"
    spec = ModelSpec.of(space.to_config(space.complete({"backbone": backbone})), file.data, num_classes)
    return CheckedBackbone(
        described=describe_model(spec),
        weights=weights_card(backbone, file.weights_of(backbone)),
        facts=facts,
        adapted=_adapted(spec, space),
        searched_sizes=tuple(size for size in image_sizes_of(space, backbone) if size is not None),
    )


def _adapted(spec: ModelSpec, space: Space) -> Mapping[str, Mapping[int, int]]:
    """Of low-rank updates those with the rank of the default trial."""
    from tlsearch.model import adapted_parameters

    domain = space.dimensions["adapt"].domain_at({"backbone": spec.backbone})
    default = space.dimensions["lora_rank"].domain.nearest(space.default_of("lora_rank"))
    found = {}
    for name, method in ADAPT_METHODS.items():
        if domain.contains(name) and method is not PLAIN:
            rank = default if method.has_rank else None
            assert rank is None or isinstance(rank, int), "a rank is a whole number"
            found[name if rank is None else f"{name} {rank}"] = adapted_parameters(spec, name, rank)
    return found


_DEPTHS = (5, 4, 3, 2, 1, 0)


def dry_run(file: SpaceFile, space: Space) -> list[SpaceProblem]:
    """Takes one batch of each backbone through forward, backward, step and evaluation; an error for each that fails."""
    from tlsearch.trial import first_batch

    problems = []
    for backbone in space.backbones():
        config = deepest_config(space, backbone)
        with scratch_folder("dry") as directory:
            setup = file.trial_setup()
            # No trial would ever read what so few images leave behind, so it does not go into the node's cache.
            setup = replace(setup, cache=replace(setup.cache, directory=f"{directory}/cache"))
            assignment = TrialAssignment(
                number=0, seed=file.search.seed, config=config, setup=setup, directory=f"{directory}/trial"
            )
            try:
                first_batch(assignment)
            except TlsearchError as error:
                problems.append(file.document.problem(("space", "backbone", backbone), str(error)))
    return problems


def deepest_config(space: Space, backbone: str) -> TrialConfig:
    """The default trial of a backbone, moved to the deepest unfreezing that the space allows."""
    for depth in _DEPTHS:
        try:
            return space.to_config(space.complete({"backbone": backbone, "unfreeze_depth": depth}))
        except ValueError:
            continue  # this depth is outside the space
    raise AssertionError(f"no depth of the space takes {backbone}")
