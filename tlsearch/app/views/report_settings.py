"""How a search was set up, gathered for its report: file, weights, versions, and its best trial as YAML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from tlsearch.app.catalog.catalog import RESOLVED, SearchEntry
from tlsearch.app.catalog.provenance import kept_environment
from tlsearch.config import as_tree, dump_part, masked_yaml
from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.core.codec import read_json
from tlsearch.core.errors import UserError
from tlsearch.core.types import SearchRecord, TrialRecord
from tlsearch.results.report.settings_section import SearchSettings, WeightsUsed
from tlsearch.space.conditions import active_values

if TYPE_CHECKING:
    from tlsearch.config import SpaceFile


def log_scaled(file: SpaceFile | None) -> frozenset[str]:
    """The dimensions that the space draws on a logarithmic scale."""
    space = {} if file is None else file.space
    return frozenset(name for name, domain in space.items() if isinstance(domain, dict) and "log" in domain)


def search_settings(entry: SearchEntry, file: SpaceFile | None, record: SearchRecord) -> SearchSettings:
    """What is known of a search's set-up; what cannot be read is left out."""
    try:
        resolved = masked_yaml((entry.path / RESOLVED).read_text(encoding="utf-8"))
    except OSError:
        resolved = ""
    best = record.best
    return SearchSettings(
        resolved=resolved,
        weights=() if file is None else tuple(_weights(entry, file, record.trials)),
        environment=kept_environment(entry),
        best_entry="" if best is None else best_entry(best, file),
        best_space="" if best is None else best_space(best, file),
    )


def best_entry(trial: TrialRecord, file: SpaceFile | None) -> str:
    """A trial as an entry of ``search.start_with``, of a search over the same space.

    With the defaults that were fitted to the data: the entry holds them, and other data would be given others.
    """
    defaults = {} if file is None else {name: one for name, one in as_tree(file)["defaults"].items() if one is not None}
    return dump_part({**({"defaults": defaults} if defaults else {}), "search": {"start_with": [dict(trial.params)]}})


def best_space(trial: TrialRecord, file: SpaceFile | None) -> str:
    """A trial as a space of one point; what has no effect on it is left out, and so are other backbones' weights."""
    values = active_values(asdict(trial.config))
    weights = {} if file is None else as_tree(file)["weights"]
    own = {name: source for name, source in weights.items() if name == trial.config.backbone}
    return dump_part({**({"weights": own} if own else {}), "space": values})


def _weights(entry: SearchEntry, file: SpaceFile, trials: Iterable[TrialRecord]) -> Iterable[WeightsUsed]:
    """One for each backbone that was tried: as a kept model of it says, else as the space file does."""
    kept = {found.backbone: found for trial in trials if (found := _kept_weights(entry, trial)) is not None}
    for backbone in dict.fromkeys(trial.config.backbone for trial in trials):
        found = kept.get(backbone) or _named_weights(file, backbone)
        if found is not None:
            yield found


def _kept_weights(entry: SearchEntry, trial: TrialRecord) -> WeightsUsed | None:
    checkpoint = entry.folder.best(trial.number) / META_FILE
    try:
        meta = read_json(checkpoint)
        return WeightsUsed(
            backbone=trial.config.backbone,
            weights_id=str(meta["weights_id"]),
            digest=str(meta["weights_digest"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _named_weights(file: SpaceFile, backbone: str) -> WeightsUsed | None:
    from tlsearch.model import weights_card

    try:
        card = weights_card(backbone, file.weights_of(backbone))
    except UserError:
        return None
    return WeightsUsed(backbone=backbone, weights_id=card.id)
