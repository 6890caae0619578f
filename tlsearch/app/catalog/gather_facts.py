"""Gathers what results need beside the study, once per search, and keeps it in the search's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from tlsearch.app.catalog.catalog import RESOLVED, SearchEntry
from tlsearch.app.catalog.screen_file import decided_screen
from tlsearch.core.codec import read_json
from tlsearch.core.errors import UserError
from tlsearch.core.files import write_atomically
from tlsearch.core.types import ModelSpec, TrialConfig
from tlsearch.results.leaderboard.search_facts import SearchFacts, trained_model
from tlsearch.space.syntax import list_as_written

if TYPE_CHECKING:
    from tlsearch.config import SpaceFile
    from tlsearch.data import ImageIndex

logger = logging.getLogger(__name__)

FACTS = "facts.json"


def gather_facts(file: SpaceFile, configs: Iterable[TrialConfig], index: ImageIndex) -> SearchFacts:
    """Counts the images from the index and the parameters of each trial's model on the meta device."""
    return _add_models(_add_data(_from_file(file), index), file, configs)


def write_facts(entry: SearchEntry, facts: SearchFacts) -> None:
    """Keeps them with the search."""
    write_atomically(entry.path / FACTS, json.dumps(facts.to_json(), indent=2))


def read_facts(entry: SearchEntry) -> SearchFacts:
    """What is kept; without it what resolved.yaml says, which is quick and counts nothing."""
    try:
        facts = SearchFacts.from_json(read_json(entry.path / FACTS))
    except (OSError, ValueError):
        file = read_space_file(entry)
        facts = SearchFacts() if file is None else _from_file(file)
    return replace(facts, screen=decided_screen(entry))


def complete_facts(entry: SearchEntry, configs: Iterable[TrialConfig]) -> SearchFacts:
    """As ``read_facts``, with what is missing counted now; data that are gone are left out."""
    facts = read_facts(entry)
    missing = [config for config in configs if trained_model(config) not in facts.trainable]
    file = read_space_file(entry)
    if file is None or not (missing or facts.num_validation is None):
        return facts
    if facts.num_validation is None:
        from tlsearch.data import load_index

        try:
            facts = _add_data(facts, load_index(file.data))
        except UserError as error:
            logger.warning("the search's images cannot be counted: %s", error)
    return _add_models(facts, file, missing) if facts.classes else facts


def keep_facts(entry: SearchEntry, facts: SearchFacts) -> None:
    """Writes them where they have changed; on a full disk they are counted again next time."""
    try:
        if facts != read_facts(entry):
            write_facts(entry, facts)
    except OSError as error:
        logger.warning("%s cannot be kept in %s: %s", FACTS, entry.path, error)


def read_space_file(entry: SearchEntry) -> SpaceFile | None:
    """The search's resolved.yaml; None where it cannot be read any more.

    Errors are passed over: the rest is known although data or weights are gone since.
    """
    from tlsearch.config import parse_space_file

    file, problems = parse_space_file(entry.path / RESOLVED, moved=entry.moved, stored=True)
    if file is None:
        logger.warning("the search's %s cannot be read: %s", RESOLVED, "; ".join(map(str, problems)))
    return file


def _from_file(file: SpaceFile) -> SearchFacts:
    from tlsearch.search.scheduling.asha import AshaRules

    search, rungs = file.search, set[int]()
    if search.scheduler:
        rules = AshaRules(**vars(search.scheduler), max_epochs=search.num_reports)
        rungs = {epoch for bracket in range(search.scheduler.brackets) for epoch in rules.milestones(bracket)}
    backbones = () if search.listed else tuple(map(str, list_as_written(file.space.get("backbone"))[1]))
    return SearchFacts(
        max_epochs=search.max_epochs, folds=search.num_folds, rungs=tuple(sorted(rungs)), backbones=backbones
    )


def _add_data(facts: SearchFacts, index: ImageIndex) -> SearchFacts:
    images = {name: len(split) for name, split in index.splits.items()}
    return replace(facts, classes=index.classes, images=images, digest=index.digest)


def _add_models(facts: SearchFacts, file: SpaceFile, configs: Iterable[TrialConfig]) -> SearchFacts:
    from tlsearch.model import adapted_parameters, describe_model

    parameters, trainable = dict(facts.parameters), dict(facts.trainable)
    for name, config in {trained_model(one): one for one in configs}.items():
        spec = ModelSpec.of(config, file.data, len(facts.classes))
        try:
            described = describe_model(spec)
            counts = described.trainable_parameters
            if config.adapted:
                counts = adapted_parameters(spec, config.adapt, config.lora_rank)
        except UserError as error:
            logger.warning("the parameters of %s cannot be counted: %s", name, error)
            continue
        parameters[config.model] = described.parameters
        trainable[name] = dict(counts)
    return replace(facts, parameters=parameters, trainable=trainable)
