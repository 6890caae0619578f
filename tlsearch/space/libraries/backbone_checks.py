"""What the backbones of a space demand of its file: timm, image sizes that they take, weights that there are."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from functools import lru_cache

from tlsearch.config import Document, Keys, SpaceFile, one_of, show, suggest
from tlsearch.core.errors import SpaceProblem
from tlsearch.space.dimensions import PARAMETERS
from tlsearch.space.domains import Fixed, IntRange
from tlsearch.space.image_sizes import IMAGE_SIZE, unfit_sizes
from tlsearch.space.libraries.backbones import BackboneFacts, backbone_facts, split_version
from tlsearch.space.space import Space
from tlsearch.space.syntax import place_of_value


def backbone_problems(
    file: SpaceFile, space: Space, backbones: Mapping[str, BackboneFacts], document: Document
) -> list[SpaceProblem]:
    """The errors between the backbones of a space and its file."""
    return [
        *_installed(backbones, document),
        *_image_sizes(file, space, backbones, document),
        *_weights(file, backbones, document),
    ]


@lru_cache(maxsize=1)
def _has_timm() -> bool:
    return importlib.util.find_spec("timm") is not None


def _installed(backbones: Mapping[str, BackboneFacts], document: Document) -> list[SpaceProblem]:
    if _has_timm():
        return []
    message = "needs the package timm, which is not installed: pip install 'tlsearch[timm]'"
    return [
        document.problem(place_of_value("backbone", name, document), f"{name} {message}")
        for name, facts in backbones.items()
        if facts.is_timm
    ]


def _image_sizes(
    file: SpaceFile, space: Space, backbones: Mapping[str, BackboneFacts], document: Document
) -> Iterator[SpaceProblem]:
    dimension, size = space.dimensions[IMAGE_SIZE], file.data.image_size
    in_data: Keys = ("data", IMAGE_SIZE)
    in_space: Keys = ("space", IMAGE_SIZE)
    at = in_data if dimension.left_out else in_space
    if not dimension.left_out and size is not None and not document.doubtful(in_data):
        message = f"must be auto where the space has image_size, not {size}"
        yield document.problem(in_data, message + document.place(in_space))
    domain = Fixed(value=size) if dimension.left_out else dimension.domain
    trying = [name for name in backbones if all(one.holds(name) for one in dimension.when if one.on == "backbone")]
    unfit = {name: found for name in trying if (found := unfit_sizes(domain, backbones[name]))}
    if not unfit or document.doubtful(at):
        return
    rules = [
        f"{name} takes {backbones[name].size_rule()}{document.place(place_of_value('backbone', name, document))}"
        for name in unfit
    ]
    joint = " to " if isinstance(domain, IntRange) else ", "
    sizes = joint.join(str(one) for one in dict.fromkeys(one for found in unfit.values() for one in found))
    advice = "" if dimension.left_out else "; when: {backbone: [...]} says which of them image_size is for"
    message = f"images of {sizes} px do not suit every backbone of the space: {'; '.join(rules)}{advice}"
    yield document.problem(at, message)


def weights_names(file: SpaceFile, document: Document) -> list[SpaceProblem]:
    """Keys of ``weights`` that are not backbones at all; which of them the space lists is not known."""
    problems = []
    for name in file.weights:
        problem = PARAMETERS["backbone"].problem(name)
        if problem and not document.doubtful(("weights", name)):
            problems.append(document.problem(("weights", name), problem, at_key=True))
    return problems


def _weights(file: SpaceFile, backbones: Mapping[str, BackboneFacts], document: Document) -> list[SpaceProblem]:
    problems = []
    for name, source in file.weights.items():
        at: Keys = ("weights", name)
        problem = None
        if name not in backbones:
            problem = PARAMETERS["backbone"].problem(name)  # of a backbone that is left out here: see `unused_weights`
        elif split_version(name)[1] is not None and source.kind != "default":
            problem = f"{name!r} names a version of the library's weights, so it takes no others"
        if problem and not document.doubtful(at):
            problems.append(document.problem(at, problem, at_key=True))
        if source.transform is not None and not document.doubtful((*at, "transform")):
            message = _transform_problem(name, source.transform)
            problems += [document.problem((*at, "transform"), message)] if message else []
    for name, facts in backbones.items():
        source = file.weights_of(name)
        if source.kind == "default" and not facts.versions and not document.doubtful(("weights", name)):
            message = f"no weights are published for {name}: give a file, or none, under weights"
            problems.append(document.problem(place_of_value("backbone", name, document), message))
    return problems


def unused_weights(file: SpaceFile, space: Space) -> list[SpaceProblem]:
    """Warnings, with their places: entries of ``weights`` for backbones that the space does not use."""
    document, backbones = file.document, space.backbones()
    warnings = []
    for name in file.weights:
        if name not in backbones and PARAMETERS["backbone"].problem(name) is None:
            near = suggest(name, backbones, most=0)
            message = f"not used: the space has no backbone {name!r}{document.place(('space', 'backbone'))}{near}"
            warnings.append(document.problem(("weights", name), message, at_key=True))
    return warnings


def _transform_problem(backbone: str, transform: str) -> str | None:
    """``transform`` names a backbone, or a version of torchvision's weights of this one."""
    name, _ = split_version(backbone)
    facts = backbone_facts(name)
    if facts is None or (not facts.is_timm and transform in facts.versions):
        return None
    if PARAMETERS["backbone"].problem(transform) is None:
        return None
    versions = f", or a version: {one_of(facts.versions)}" if facts.versions and not facts.is_timm else ""
    return f"transform names a backbone whose transform to use{versions}; not {show(transform)}"
