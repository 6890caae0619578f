"""What models need, parameters and latency: of one trial, and of several, with what members share counted once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

from tlsearch.config import SpaceFile
from tlsearch.core.types import ModelSpec, TrialConfig, TrialRecord
from tlsearch.model import MAX_DEPTH, describe_model
from tlsearch.results.leaderboard.search_facts import measure_latency, measure_part_latencies
from tlsearch.space.bn_policies import bn_policy

_Part = tuple[Hashable, ModelSpec, int]  # what it stands for, its model, its place from 0 for the stem


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a model in production may need.

    Attributes:
        latency_ms: Of one image on this machine's CPU, one thread; where the latency is an objective of the search, as
            its trials measured it.
        parameters: Of the whole model.
    """

    latency_ms: float | None = None
    parameters: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self.latency_ms is not None or self.parameters is not None

    @property
    def text(self) -> str:
        """In words."""
        latency = [] if self.latency_ms is None else [f"at most {self.latency_ms:g} ms an image"]
        return " and ".join(latency + ([] if self.parameters is None else [f"at most {self.parameters:,} parameters"]))

    def allow(self, parameters: Callable[[], int], latency_ms: Callable[[], float | None]) -> bool:
        """Whether a model is within them; only what is limited is asked for. An unknown latency is not within one."""
        if self.parameters is not None and parameters() > self.parameters:
            return False
        known = None if self.latency_ms is None else latency_ms()
        return self.latency_ms is None or (known is not None and known <= self.latency_ms)


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What one trial's model needs.

    Attributes:
        latency_ms: Of one image on this machine's CPU, one thread.
    """

    parameters: int
    latency_ms: float


def model_cost(spec: ModelSpec) -> ModelCost:
    """Counts and measures a model like this one."""
    return ModelCost(parameters=describe_model(spec).parameters, latency_ms=measure_latency(spec))


class EnsembleCosts:
    """Sizes of models made of a search's trials, each backbone at each image size measured once.

    The latency is an estimate, from the times of a model's parts: each alone finds its weights in the processor's
    caches, so that they are scaled to add up to the time of the whole model.
    Members of one image size share the parts of a backbone that none of them has trained, where its batch-norm
    statistics stand still too: these have the same bits and the same input. Parts with statistics that were estimated
    again may have the same bits as well, and count as if they had not, so that no model is larger than its limit.
    """

    def __init__(self, file: SpaceFile, num_classes: int, trials: Iterable[TrialRecord]) -> None:
        self._configs = {trial.number: trial.config for trial in trials}
        self._specs = {number: ModelSpec.of(config, file.data, num_classes) for number, config in self._configs.items()}
        # A random initialisation is drawn by the seed of each trial.
        self._random = {name for name, source in file.weights.items() if source.kind == "none"}
        self._parameters = cache(lambda spec: [one.parameters for one in describe_model(spec).stages])
        self._whole = cache(model_cost)
        self._latencies = cache(self._part_latencies)

    def alone(self, trial: int) -> ModelCost:
        """Of one trial's model, measured as a whole."""
        return self._whole(self._specs[trial])

    def parameters(self, trials: Iterable[int]) -> int:
        """Of the whole model."""
        return sum(self._parameters(spec)[place] for _, spec, place in self._parts(trials))

    def latency_ms(self, trials: Iterable[int]) -> float:
        """Of one image on this machine's CPU, one thread."""
        return sum(self._latencies(spec)[place] for _, spec, place in self._parts(trials))

    def fits(self, limits: Limits, *, slower: float = 1.0) -> Callable[[frozenset[int]], bool]:
        """Whether a set of trials is within limits, each set judged once.

        Args:
            limits: What the model may need.
            slower: How many times as long as estimated models of several trials take, as one was measured.
        """

        def latency_ms(trials: frozenset[int]) -> float:
            return self.latency_ms(trials) * (slower if len(trials) > 1 else 1.0)

        return cache(lambda trials: limits.allow(partial(self.parameters, trials), partial(latency_ms, trials)))

    def _part_latencies(self, spec: ModelSpec) -> list[float]:
        parts, whole = measure_part_latencies(spec), self._whole(spec).latency_ms
        return [one * whole / sum(parts) for one in parts]

    def _parts(self, trials: Iterable[int]) -> Iterator[_Part]:
        """The distinct parts of the members."""
        found: Mapping[Hashable, _Part] = {
            part[0]: part for trial in trials for part in self._parts_of(trial, self._configs[trial])
        }
        return iter(found.values())

    def _parts_of(self, trial: int, config: TrialConfig) -> Iterator[_Part]:
        spec, policy = self._specs[trial], bn_policy(config.bn_policy)
        moved = policy.recalibrates or policy.moves_in_frozen or config.backbone in self._random
        for place in range(MAX_DEPTH + 1):
            untouched = place < MAX_DEPTH - config.unfreeze_depth and not moved
            owner: Hashable = spec if untouched else trial
            yield (owner, place), spec, place
