"""A search that has not begun, as this machine would run it: its plan, how many trials at a time, its timings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tlsearch.app.checks.feasibility import model_sizes, trial_depths
from tlsearch.config import ResourcesSpec, SpaceFile
from tlsearch.core.errors import UserError
from tlsearch.core.types import ModelSpec, TrialConfig
from tlsearch.data import ImageIndex, data_transform, fold_indexes
from tlsearch.forecast.measured_costs import Measured, measure
from tlsearch.model import weights_transform
from tlsearch.search import SearchPlan
from tlsearch.search.scheduling.packing import num_slots
from tlsearch.space import Space, image_sizes_of

Step = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Slots:
    """How many trials this machine runs at a time, and what each is given.

    Attributes:
        packed_bytes: Memory of the smallest GPU, where trials are to share GPUs as they fit; else 0.
    """

    count: int
    cpus: int
    gpus: float
    packed_bytes: int = 0


def measure_search(
    file: SpaceFile, plan: SearchPlan, index: ImageIndex, slots: Slots, *, step: Step = lambda text: None
) -> Measured:
    """Times the work of a search's trials on this machine."""
    if file.search.num_folds:
        index = fold_indexes(index, file.search.num_folds, seed=file.data.split.seed)[0]
    transforms = {
        spec: data_transform(
            weights_transform(spec.backbone, file.weights_of(spec.backbone)), file.data, spec.image_size
        )
        for spec in _used_models(file, plan.space, len(index.classes))
    }
    on_front = len(transforms) - 1 if file.search.cost else 0  # at most, beside the best: one trial of each model
    num_kept = file.tracking.keep_best + on_front
    return measure(plan, index, transforms, slots=slots.count, num_kept=num_kept, step=step)


def unstarted_plan(file: SpaceFile, space: Space, index: ImageIndex, slots: Slots) -> SearchPlan:
    """The search as the engine would be given it, without a folder."""
    setup = replace(file.trial_setup(), depths=trial_depths(file, space))
    return SearchPlan(
        search_id="plan",
        experiment=file.name,
        directory=os.devnull,
        space=space,
        setup=replace(setup, device="auto" if slots.gpus else "cpu"),
        search=file.search,
        resources=file.resources,
        num_classes=len(index.classes),
        sizes=model_sizes(file, space, len(index.classes)),
    )


def local_slots(resources: ResourcesSpec) -> Slots:
    """What a Ray of this machine would run at a time.

    Raises:
        UserError: Not a single trial.
    """
    import torch

    cpus, num_gpus = os.cpu_count() or 1, torch.cuda.device_count()
    gpus = resources.gpus_per_trial
    packed_bytes = 0
    if gpus is None:
        gpus = 1.0 if num_gpus else 0.0
        memory = [torch.cuda.get_device_properties(number).total_memory for number in range(num_gpus)]
        packed_bytes = min(memory, default=0)
    count = num_slots(resources.cpus_per_trial, gpus, [{"Resources": {"CPU": cpus, "GPU": num_gpus}}])
    if count == 0:
        raise UserError(
            f"this machine must have the resources of a trial, {resources.cpus_per_trial} CPUs and {gpus:g} GPUs; it "
            f"has {cpus} CPUs and {num_gpus} GPUs: see resources.cpus_per_trial and resources.gpus_per_trial"
        )
    count = min(count, resources.max_concurrent or count)
    return Slots(count=count, cpus=resources.cpus_per_trial, gpus=gpus, packed_bytes=packed_bytes)


def _used_models(file: SpaceFile, space: Space, num_classes: int) -> Mapping[ModelSpec, None]:
    """The models that trials may have, in the order of the space."""
    if file.search.listed:
        configs = [space.to_config(space.complete(entry)) for entry in file.search.start_with]
    else:
        sized = ((name, size) for name in space.backbones() for size in image_sizes_of(space, name))
        configs = [TrialConfig(backbone=name, image_size=size) for name, size in sized]
    plain = (replace(config, features=None) for config in configs)  # see ``TrialCosts.spec``
    return dict.fromkeys(ModelSpec.of(config, file.data, num_classes) for config in plain)
