"""What a space demands of the rest of its file: its backbones, views, epochs, starting points."""

from __future__ import annotations

from collections.abc import Mapping

from tlsearch.config import Document, Keys, SpaceFile
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.types import Scalar, TrialConfig
from tlsearch.space.bn_policies import BN_POLICIES
from tlsearch.space.conditions import SYSTEM_READS
from tlsearch.space.dimensions import PARAMETERS
from tlsearch.space.domains import largest
from tlsearch.space.libraries.backbone_checks import backbone_problems, weights_names
from tlsearch.space.libraries.backbones import BackboneFacts, backbone_facts
from tlsearch.space.slots import is_screened
from tlsearch.space.space import Space


def check_file(file: SpaceFile, space: Space) -> list[SpaceProblem]:
    """The errors between a space and its file; what a doubtful value would decide is passed over."""
    document = file.document
    problems = _start_with(file, space, document) + _epochs(file, space, document) + _ratios(space, document)
    problems += _unfit_for_task(file, space, document)
    if document.doubtful(("space", "backbone")):
        return problems + weights_names(file, document)
    backbones = {name: facts for name in space.backbones() if (facts := backbone_facts(name)) is not None}
    problems += backbone_problems(file, space, backbones, document)
    problems += _single_images(space, backbones, document)
    problems += _views(file, space, backbones, document)
    return problems


def _unfit_for_task(file: SpaceFile, space: Space, document: Document) -> list[SpaceProblem]:
    """Values that the task of the data rules out."""
    task, place = TASKS[file.data.task], document.place(("data", "task"))
    fits = f"does not fit data.task {task.name}{place}"
    problems = [
        document.problem(("space", name), f"{name} {value} {fits}: {reason}")
        for (name, value), reason in task.refused.items()
        if space.dimensions[name].domain.contains(value) and not document.doubtful(("space", name))
    ]
    if (why := task.unsupported.get("screen")) and is_screened(space) and not document.doubtful(("space", "backbone")):
        problems.append(document.problem(("space", "backbone", "screen"), f"screen {fits}: {why}", at_key=True))
    return problems


def _single_images(space: Space, backbones: Mapping[str, BackboneFacts], document: Document) -> list[SpaceProblem]:
    """Batch norm that moves has nothing to normalise by in a batch of one image."""
    at, policy = ("space", "batch_size"), ("space", "bn_policy")
    deep = largest(space.dimensions["unfreeze_depth"].domain) > 0
    moving = [
        name
        for name, one in BN_POLICIES.items()
        if space.dimensions["bn_policy"].domain.contains(name) and (one.moves if deep else one.moves_in_frozen)
    ]
    single = space.dimensions["batch_size"].domain.contains(1)
    if not single or not moving or not any(facts.has_batch_norm for facts in backbones.values()):
        return []
    if any(document.doubtful(one) for one in (at, policy, ("space", "unfreeze_depth"))):
        return []
    message = f"batch_size must be 2 or more with bn_policy {' or '.join(moving)}, not 1: one image has no variance"
    return [document.problem(at, message + document.place(policy, ("space", "unfreeze_depth")))]


def _views(
    file: SpaceFile, space: Space, backbones: Mapping[str, BackboneFacts], document: Document
) -> list[SpaceProblem]:
    """Fixed views that no trial could read; the first dimension that rules them out for all of them is named."""
    at: Keys = ("cache", "views")
    if file.cache.views == 1 or document.doubtful(at):
        return []
    needed: dict[str, tuple[tuple[Scalar, ...], str]] = {
        "augmentation": (("light", "strong"), "no trial has an augmentation, light or strong"),
        "mixup": ((0,), "mixup mixes the images of every trial again"),
        "cutmix": ((0,), "cutmix mixes the images of every trial again"),
    }
    if _deepest_progressive(space) is None:
        needed["unfreeze_depth"] = ((0, 1, 2, 3, 4), "at unfreeze_depth 5 nothing stays frozen that could be stored")
    if all(facts.has_batch_norm for facts in backbones.values()):
        useful = tuple(name for name, one in BN_POLICIES.items() if one.cacheable)
        moving = " and ".join(name for name, one in BN_POLICIES.items() if not one.cacheable)
        needed["bn_policy"] = (useful, f"bn_policy {moving} moves what could be stored")
    also_read = {"unfreeze_depth": ("unfreeze_schedule",), "bn_policy": ("backbone",)}
    for name, (values, message) in needed.items():
        domain = space.dimensions[name].domain
        # where a user's condition does not hold a trial has the default
        by_default = bool(space.dimensions[name].when) and space.default_of(name) in values
        if by_default or any(domain.contains(value) for value in values):
            continue
        decided: list[Keys] = [("space", one) for one in (name, *also_read.get(name, ()))]
        if not any(document.doubtful(one) for one in decided):
            message = f"views above 1 have no effect in this space: {message}{document.place(*decided)}"
            return [document.problem(at, message)]
    return []


def _epochs(file: SpaceFile, space: Space, document: Document) -> list[SpaceProblem]:
    """What dimensions demand of the number of epochs."""
    max_epochs, at_epochs = file.search.max_epochs, ("search", "max_epochs")
    found: dict[str, tuple[str, Keys]] = {}  # what is wrong, and the place of what decided it
    longest = largest(space.dimensions["warmup_epochs"].domain)
    if longest >= max_epochs:
        message = f"warmup_epochs goes up to {longest:g}, and must be fewer than search.max_epochs, {max_epochs}"
        found["warmup_epochs"] = (message, ("space", "warmup_epochs"))
    depth = _deepest_progressive(space)
    if depth is not None and max_epochs < depth + 1:
        message = (
            f"progressive to unfreeze_depth {depth} has {depth + 1} phases, and takes search.max_epochs of "
            f"{depth + 1} or more, not {max_epochs}"
        )
        found["unfreeze_schedule"] = (message, ("space", "unfreeze_depth"))
    return [
        document.problem(("space", name), message + document.place(decided, at_epochs))
        for name, (message, decided) in found.items()
        if not any(document.doubtful(path) for path in (("space", name), decided, at_epochs))
    ]


def _ratios(space: Space, document: Document) -> list[SpaceProblem]:
    """Dimensions written as a ratio whose largest value is beyond what they may be."""
    problems = []
    for name, dimension in space.dimensions.items():
        if dimension.ratio_of is None:
            continue
        at, other = ("space", name), ("space", dimension.ratio_of)
        value = largest(dimension.domain) * largest(space.dimensions[dimension.ratio_of].domain)
        problem = PARAMETERS[name].problem(value)
        if problem and not document.doubtful(at) and not document.doubtful(other):
            problems.append(
                document.problem(at, f"{problem}, the largest ratio of {dimension.ratio_of}{document.place(other)}")
            )
    return problems


def _deepest_progressive(space: Space) -> int | None:
    """The largest depth at which a trial may be progressive; None where none is."""
    schedule = space.dimensions["unfreeze_schedule"]
    when = [one for one in schedule.when if one.on == "unfreeze_depth"]
    depths = space.dimensions["unfreeze_depth"].domain
    deep = [depth for depth in range(2, 6) if depths.contains(depth) and all(one.holds(depth) for one in when)]
    return max(deep, default=None) if schedule.domain.contains("progressive") else None


def _start_with(file: SpaceFile, space: Space, document: Document) -> list[SpaceProblem]:
    problems = []
    for index, entry in enumerate(file.search.start_with):
        at: Keys = ("search", "start_with", index)
        for problem in space.entry_problems(entry):
            name, on = problem.name, problem.on
            by_itself = name not in PARAMETERS or PARAMETERS[name].problem(entry[name]) is not None
            reads = {name} if by_itself else _read_by(name, space)
            if any(document.doubtful((*at, one)) or document.doubtful(("space", one)) for one in reads):
                continue
            # what decided it: the other value of the entry, else of the space; and the dimension itself
            decided: list[Keys] = [(*at, on) if on in entry else ("space", on)] if on else []
            place = "" if by_itself else document.place(*decided, ("space", name))
            problems.append(document.problem((*at, name), problem.message + place, at_key=name not in PARAMETERS))
    return problems


def repeated_entries(file: SpaceFile, space: Space) -> list[SpaceProblem]:
    """Entries of start_with that are the same trial as an earlier one."""
    document = file.document
    problems: list[SpaceProblem] = []
    first: dict[TrialConfig, int] = {}
    for index, entry in enumerate(file.search.start_with):
        at: Keys = ("search", "start_with", index)
        if document.doubtful(at) or document.doubtful(("space",)) or space.entry_problems(entry):
            continue
        config = space.to_config(space.complete(entry))
        if config not in first:
            first[config] = index
            continue
        earlier: Keys = ("search", "start_with", first[config])
        message = f"the same trial as entry {first[config]}{document.place(earlier)}, counted from 0: leave one out"
        if file.search.listed:
            message += "; search.seeds trains each entry several times"
        problems.append(document.problem(at, message))
    return problems


def _read_by(name: str, space: Space) -> set[str]:
    """The dimensions that decide whether a value of this one is inside the space, itself included."""
    found: set[str] = set()
    todo = {name}
    while todo:
        one = todo.pop()
        found.add(one)
        dimension = space.dimensions[one]
        reads = {*SYSTEM_READS.get(one, ()), *(each.on for each in dimension.when)}
        todo |= (reads | ({dimension.ratio_of} if dimension.ratio_of else set())) - found
    return found
