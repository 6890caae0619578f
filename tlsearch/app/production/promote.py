"""Carries the winner of a search into the registry: chosen, evaluated once on the sealed test split, registered.

The order makes a death at any point harmless: the use of the test split is on record before an image of it is decoded,
the evidence is kept before anything is registered, and the alias is set last. The same call again goes on.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.gather_facts import read_facts
from tlsearch.app.catalog.stored import settle, stored_file
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.combined.make_distilled import make_distilled
from tlsearch.app.production.choice import Choice, best_trial, choose
from tlsearch.app.production.combined_choice import best_combined, choose_combined
from tlsearch.app.production.ready_model import make_ready
from tlsearch.app.production.registration import register
from tlsearch.app.production.test_uses import Evidence, sealed_split, test_evidence, uses_on_record
from tlsearch.app.searches.input_digests import refuse_changed_inputs
from tlsearch.config import SpaceFile
from tlsearch.core.errors import UsageError, UserError
from tlsearch.core.text import one_of
from tlsearch.data import load_index
from tlsearch.results.combine.combination import NAMES, Kind, Member, flag_of
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.promotion.multi_label_evidence import AnyEvidence
from tlsearch.search import holding
from tlsearch.train import networks_of

_MAX_ALIAS = 255 - len("-previous")  # MLflow's own limit, for the alias that keeps the version before


@dataclass(frozen=True, kw_only=True)
class PromoteOptions:
    """What the user said on the command line of ``promote``.

    Attributes:
        trial: None for the confirmed or best one.
        combined: Promote the search's ensemble, its soup, or a model that is now distilled from its ensemble, instead
            of a trial. None with a limit of the latency takes the best of those made and the best trial within it.
        refit: Train on train and val together before.
        without_test: Register without looking at the test split.
        reuse_test: Look at it although another model has; the card says so.
    """

    trial: int | None = None
    combined: Kind | None = None
    alias: str = "champion"
    limits: Limits = field(default_factory=Limits)
    refit: bool = False
    without_test: bool = False
    reuse_test: bool = False


@dataclass(frozen=True, kw_only=True)
class PromotedModel:
    """A model that ``promote`` has registered.

    Attributes:
        model: Its name in the registry; ``uri`` is its address by the alias.
        previous: The version that the alias named before; None where there was none.
        trial: Its trial in ``search_id``, chosen for ``reason``; ``value`` is the metric there. Of a combination the
            best single trial, which the test evidence compares it with.
        kind: ``trial``, ``ensemble``, ``soup`` or ``distilled``.
        members: The trials of a combination.
        refit: Whether it was trained on train and val together.
        test: None where the test split was not looked at.
        card: The model card, in Markdown.
    """

    model: str
    version: str
    alias: str
    previous: str | None
    uri: str
    mlflow_run_id: str
    search_id: str
    trial: int
    reason: str
    metric: str
    value: float | None
    refit: bool
    temperature: float
    test: AnyEvidence | None
    card: str
    kind: str = "trial"
    members: tuple[Member, ...] = ()


def promote(entry: SearchEntry, options: PromoteOptions) -> PromotedModel:
    """Promotes a model of a search.

    Raises:
        UserError: No trial or combination fits, options contradict each other, or the alias is none.
        DataError: Images or weights have changed since the search; classes differ; or the test split is missing, used
            before, or shares images with train or val.
        TrackingError: MLflow cannot be reached, or refuses.
    """
    _check_alias(options.alias)
    _check_combined(options)
    with holding(entry.path, "promote"), ExitStack() as stack:
        return _promote(entry, options, stack)


def _check_alias(alias: str) -> None:
    """MLflow would refuse it too, but only after the test split was opened."""
    legal = re.fullmatch(r"[A-Za-z0-9_-]+", alias) and len(alias) <= _MAX_ALIAS
    if legal and not re.fullmatch(r"latest|v\d+|(.*-)?previous", alias, re.I):
        return
    raise UserError(
        f"an alias has letters, digits, _ and - only, at most {_MAX_ALIAS}; `latest` and `v1` are MLflow's own names, "
        f"and `previous` keeps the version before; not {alias!r}"
    )


def _check_combined(options: PromoteOptions) -> None:
    if options.combined is None:
        return
    if options.combined not in NAMES:
        raise UsageError(f"a combination is {one_of(NAMES)}, not {options.combined!r}")
    flag = flag_of(options.combined)
    if options.trial is not None:
        raise UsageError(f"a promotion takes --{flag} or --trial {options.trial}, not both")
    if options.refit:
        raise UsageError(f"--refit trains one trial on train and val together, and --{flag} comes from several")


def _promote(entry: SearchEntry, options: PromoteOptions, stack: ExitStack) -> PromotedModel:
    file, _ = stored_file(entry, "so nothing can be promoted")
    index = load_index(file.data)
    check_classes(read_facts(entry).classes or index.classes, index.classes)
    refuse_changed_inputs(entry, file, index, purpose="its models cannot be scored and promoted")
    entry = settle(entry)
    num_classes, num_val = len(index.classes), len(index.splits["val"])
    if options.combined == "distilled":
        make_distilled(entry, file, index, best_trial(entry, file, options.limits, num_classes=num_classes))
    choice = _choose(entry, file, options, num_classes=num_classes, num_val=num_val)
    if choice.entry.path != entry.path:
        stack.enter_context(holding(choice.entry.path, "promote"))
        choice = replace(choice, entry=settle(choice.entry))
    split = None if options.without_test else sealed_split(index)
    uses = uses_on_record(entry, split) if split else []
    ready = make_ready(choice, file, index, refit=options.refit, compares=split is not None)
    if split is None:
        evidence = Evidence(test=None, missing="it was promoted without looking at a test split, as was asked for")
    else:
        reuse = options.reuse_test
        evidence = test_evidence(entry, choice, index, ready, split, uses, alias=options.alias, reuse=reuse)
    promoted, card = register(entry, file, index, choice, ready, evidence, alias=options.alias)
    combination = choice.combination
    return PromotedModel(
        model=promoted.name,
        version=promoted.version,
        alias=promoted.alias,
        previous=promoted.previous,
        uri=f"models:/{promoted.name}@{promoted.alias}",
        mlflow_run_id=promoted.run_id,
        search_id=choice.entry.search_id,
        trial=choice.trial.number,
        reason=choice.reason,
        metric=networks_of(ready.checkpoint)[0].metric,
        value=choice.trial.best_value if combination is None else combination.value,
        refit=ready.refit,
        temperature=ready.calibration.temperature,
        test=evidence.test,
        card=card,
        kind="trial" if combination is None else combination.kind,
        members=() if combination is None else combination.members,
    )


def _choose(entry: SearchEntry, file: SpaceFile, options: PromoteOptions, *, num_classes: int, num_val: int) -> Choice:
    """The combination that was asked for; with a limit of the latency alone the best within it; else a trial."""
    if options.combined is not None:
        return choose_combined(entry, options.combined, options.limits)
    if options.trial is None and not options.refit and options.limits.latency_ms is not None:
        combined = best_combined(entry, options.limits)
        if combined is not None:
            return combined
    return choose(entry, file, num_classes=num_classes, trial=options.trial, limits=options.limits, num_val=num_val)
