"""What a search is, as it is handed to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import ModelSpec, Objective, TrialConfig, TrialSetup
from tlsearch.search.scheduling.asha import AshaRules
from tlsearch.search.scheduling.stopping_rules import Rules

if TYPE_CHECKING:
    from tlsearch.config import ResourcesSpec, SearchSpec
    from tlsearch.space import Space


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """All that a start of a search needs, the first one or a resumed one.

    Attributes:
        search_id: The search's name in its storage.
        uid: Its unique id; empty for a search of a version that had none.
        experiment: The experiment it belongs to.
        directory: Absolute path of its folder; on a cluster a path that every node sees.
        search: Its ``trials`` and ``time_budget_s`` are totals over all starts.
        num_classes: Of the data.
        sizes: What follows from a model alone: params_millions, checkpoint_mb. Needed where the search's constraints
            or objectives look at them.
        address: ``local`` starts an own Ray, ``auto`` joins the one on this machine, else HOST:PORT.
    """

    search_id: str
    experiment: str
    directory: str
    space: Space
    setup: TrialSetup
    search: SearchSpec
    resources: ResourcesSpec
    uid: str = ""
    address: str = "local"
    num_classes: int = 0
    sizes: Mapping[ModelSpec, Mapping[str, float]] = field(default_factory=dict)

    def sizes_of(self, config: TrialConfig) -> Mapping[str, float]:
        """The sizes of a trial's model; empty where they are not known."""
        return self.sizes.get(ModelSpec.of(config, self.setup.data, self.num_classes), {})

    @property
    def folder(self) -> SearchFolder:
        """The search's folder."""
        return SearchFolder(root=Path(self.directory))

    @property
    def rules(self) -> Rules:
        """What answers its reports."""
        spec, max_epochs = self.search.scheduler, self.setup.num_reports
        asha = None if spec is None else AshaRules(**vars(spec), max_epochs=max_epochs)
        return Rules(
            objective=self.setup.objective,
            max_epochs=max_epochs,
            asha=asha,
            patience=self.search.patience,
            cost=Objective.of(self.search.cost) if self.search.cost else None,
        )
