"""The promise that frozen tensors stand still, checked bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlsearch.core.errors import FrozenMoved
from tlsearch.features import combined_digest, tensor_digests
from tlsearch.model import StagedModel


@dataclass(frozen=True, kw_only=True)
class FrozenGuard:
    """The digests of the frozen tensors, as they were before the first training step."""

    digests: dict[str, str]

    @property
    def digest(self) -> str:
        """One digest over all of them."""
        return combined_digest(self.digests)

    def of_parts(self, names: tuple[str, ...]) -> str:
        """One digest over the tensors of some parts of the model, by the parts' names."""
        return combined_digest({name: d for name, d in self.digests.items() if name.split(".")[0] in names})

    def only(self, model: StagedModel) -> FrozenGuard:
        """The guard of what is still frozen, after ``model`` was unfrozen further."""
        frozen = model.frozen_state().keys()
        return FrozenGuard(digests={name: digest for name, digest in self.digests.items() if name in frozen})

    def check(self, model: StagedModel) -> None:
        """Compares every frozen tensor with what it was.

        Raises:
            FrozenMoved: One differs by a bit or more, or is no longer frozen; names the first.
        """
        now = tensor_digests(model.frozen_state())
        if missing := sorted(self.digests.keys() - now.keys()):
            raise FrozenMoved(f"{missing[0]} must stay frozen through the whole trial, and is trainable now")
        moved = [name for name, digest in self.digests.items() if now[name] != digest]
        if moved:
            raise FrozenMoved(
                f"frozen tensors must stay bit-identical; {moved[0]} has changed ({len(moved)} of {len(self.digests)})"
            )


def guard_frozen(model: StagedModel, known: Mapping[str, str]) -> FrozenGuard:
    """Notes the model's frozen tensors as they are now; the model must be frozen to its depth.

    Args:
        known: Digests of some of the tensors as they are now, by name.
    """
    frozen = model.frozen_state()
    computed = tensor_digests({name: tensor for name, tensor in frozen.items() if name not in known})
    return FrozenGuard(digests={name: known[name] if name in known else computed[name] for name in frozen})
