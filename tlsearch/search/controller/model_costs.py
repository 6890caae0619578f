"""What each model costs by the second objective of a search: one value for all trials of a model.

Measured again, one model is never equally fast twice, and a front would be made of such differences. So the first
measurement of a model counts for all of its trials, and the study holds it with each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optuna.trial import FrozenTrial

from tlsearch.core.codec import from_plain
from tlsearch.core.types import ModelSpec, TrialConfig
from tlsearch.search.plan import SearchPlan


class ModelCosts:
    """The costs of models as far as they are known: counted before the search, or measured by its trials."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan, self._name = plan, plan.search.cost
        self._known: dict[ModelSpec, float] = {}

    def read(self, trials: Iterable[FrozenTrial]) -> ModelCosts:
        """Takes what the trials of earlier starts have measured."""
        for trial in trials:
            if "measured" in trial.user_attrs:
                self.shared(from_plain(TrialConfig, trial.user_attrs["config"]), trial.user_attrs["measured"])
        return self

    def shared(self, config: TrialConfig, measured: Mapping[str, float]) -> dict[str, float]:
        """What was measured of a trial's model, with the model's own cost in place of another measurement of it."""
        model, found = self._model(config), dict(measured)
        if self._name in found:
            self._known.setdefault(model, found[self._name])
        if model in self._known:
            found[self._name] = self._known[model]
        return found

    def of(self, config: TrialConfig) -> float:
        """A model's cost; 0 without a second objective, and where it is not known: in a forecast no latency is."""
        known = self._plan.sizes_of(config).get(self._name)
        return self._known.get(self._model(config), 0.0) if known is None else known

    def _model(self, config: TrialConfig) -> ModelSpec:
        return ModelSpec.of(config, self._plan.setup.data, self._plan.num_classes)
