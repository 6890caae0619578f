"""A backbone as stem, four stages and head, which knows the frozen ones; and where a sequence of blocks is cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from tlsearch.model._private import AnyBatchNorm
from tlsearch.model.adapters.adaptation import Adaptation
from tlsearch.model.adapters.adapters import flat
from tlsearch.model.staging.part import Part
from tlsearch.space.bn_policies import bn_policy

PART_NAMES = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
MAX_DEPTH = 5


class StagedModel(nn.Module):
    """A classifier as ``stem``, ``stage1`` .. ``stage4`` and ``head``; composing them is the original's forward.

    State names are ``<part>.<module>.<...>``; the new head is ``head.classifier``.

    Attributes:
        backbone: The backbone's name, with its version where one was named.
        image_size: Side of the input images in pixels.
        channels: Of the input images.
        weights_digest: What the backbone's tensors were at the start: the digest of the weights, or a text that
            names the seed of a random initialisation; empty where the tensors are still to be loaded.
        adaptation: What trains of the stages that a later `freeze` frees; None where they train whole.
    """

    stem: Part
    stage1: Part
    stage2: Part
    stage3: Part
    stage4: Part
    head: Part

    def __init__(self, parts: Sequence[Part], *, backbone: str, image_size: int) -> None:
        super().__init__()
        for name, part in zip(PART_NAMES, parts, strict=True):
            self.add_module(name, part)
        self.backbone = backbone
        self.image_size = image_size
        self.channels = 3
        self.weights_digest = ""
        self.adaptation: Adaptation | None = None
        self._origin: dict[str, str] = {}

    @property
    def parts(self) -> tuple[Part, ...]:
        """The six parts in the order of the forward pass."""
        return (self.stem, self.stage1, self.stage2, self.stage3, self.stage4, self.head)

    # --- the forward pass, whole and in two -------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S), normalised, to logits (N, classes)."""
        return self.forward_suffix(images, MAX_DEPTH)

    def blank_images(self, num: int, device: torch.device | None = None) -> Tensor:
        """Black images as the model takes them, float32 (num, C, S, S), channels_last: for measurements."""
        images = torch.zeros(num, self.channels, self.image_size, self.image_size, device=device)
        return images.contiguous(memory_format=torch.channels_last)

    def forward_prefix(self, images: Tensor, depth: int, *, behind: int = MAX_DEPTH) -> Tensor:
        """What the parts below the boundary of ``depth`` make of images: the input of `forward_suffix`.

        Depth 5 gives the images themselves; depth 0 the head's input.

        Args:
            images: Or, with ``behind`` another depth, the features at its boundary.
        """
        features = images
        for part in self.parts[MAX_DEPTH - behind : MAX_DEPTH - depth]:
            features = part(features)
        return features

    def forward_suffix(self, features: Tensor, depth: int) -> Tensor:
        """The logits (N, classes) from the features at the boundary of ``depth``; never works on them in place."""
        for part in self.parts[MAX_DEPTH - depth :]:
            features = part(features)
        return features

    def features_of(self, rows: Tensor, depth: int, *, from_pixels: bool) -> Tensor:
        """The head's input for pixels, or for features at the boundary of ``depth``; the frozen prefix has no graph."""
        if from_pixels:
            with torch.no_grad():
                rows = self.forward_prefix(rows, depth)
        for part in self.parts[MAX_DEPTH - depth : -1]:
            rows = part(rows)
        return rows

    def logits_of(self, rows: Tensor, depth: int, *, from_pixels: bool) -> Tensor:
        """Logits (B, classes), of rows as of ``features_of``."""
        return self.forward_suffix(self.features_of(rows, depth, from_pixels=from_pixels), 0)

    # --- what stands still ------------------------------------------------------------------

    def freeze(self, depth: int, policy: str | None) -> None:
        """Makes the last ``depth`` stages and the head trainable; everything before stands still.

        Holds through every later ``train()`` and ``eval()``; may be called again with another depth. A stage that is
        freed for the first time gets its adapters, where the model's adaptation has such.

        Args:
            depth: 0 the head only, 1..4 the last stages, 5 everything; inclusive.
            policy: The ``bn_policy``, see `tlsearch.space.bn_policies`.

        Raises:
            ValueError: No such depth or policy.
        """
        if not 0 <= depth <= MAX_DEPTH:
            raise ValueError(f"unfreeze_depth is 0 to {MAX_DEPTH}, not {depth}")
        batchnorm = bn_policy(policy)
        for name, part, frozen, adaptation in self._at_depth(depth):
            if adaptation is not None and part.adapters is None and not frozen:
                part.adapters = adaptation.adapters_of(part, name)
            part.set_frozen(frozen, batchnorm, adaptation)
        self.train(self.training)

    def _at_depth(self, depth: int) -> Iterator[tuple[str, Part, bool, Adaptation | None]]:
        """Each part with its name, whether it is frozen at a depth, and its adaptation: the head trains whole."""
        for position, (name, part) in enumerate(zip(PART_NAMES, self.parts, strict=True)):
            yield name, part, position < MAX_DEPTH - depth, None if name == "head" else self.adaptation

    def adapt_by(self, adaptation: Adaptation | None) -> None:
        """Sets what trains of the stages that later freezes free; adapters that are there are dropped, unmerged."""
        self.adaptation = adaptation
        for part in self.parts:
            if part.adapters is not None:
                del part.adapters
                part.adapters = None

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def frozen_state(self) -> dict[str, Tensor]:
        """The parameters and buffers that must not move under the last `freeze`, by name: live, not copies."""
        moving = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        for part_name, part in zip(PART_NAMES, self.parts, strict=True):
            if part.statistics_move:
                for name, module in part.named_modules(prefix=part_name):
                    if isinstance(module, AnyBatchNorm):
                        moving.update(f"{name}.{key}" for key, _ in module.named_buffers(recurse=False))
        return {name: tensor for name, tensor in self.state_dict().items() if name not in moving}

    def changing_names(self, depth: int, policy: str | None) -> frozenset[str]:
        """Names of the tensors of `merged_state` that a training at this depth changes."""
        batchnorm, changing = bn_policy(policy), set[str]()
        for name, part, frozen, adaptation in self._at_depth(depth):
            changing |= {f"{name}.{key}" for key in part.moving(frozen, batchnorm, adaptation)}
        return frozenset(changing)

    @torch.no_grad()
    def merged_state(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The plain model's tensors: with adapters merged into what they adapt, the others live.

        Args:
            names: Of the tensors to give; None for all of them. Parts that have none of them are not walked.
        """
        parts = PART_NAMES if names is None else {name.partition(".")[0] for name in names}
        state: dict[str, Tensor] = {}
        for name, part in zip(PART_NAMES, self.parts, strict=True):
            if name not in parts:
                continue
            own = part.state_dict(prefix=f"{name}.")
            if part.adapters is not None:
                own = {key: tensor for key, tensor in own.items() if not key.startswith(f"{name}.adapters.")}
                own |= {f"{name}.{key}": tensor for key, tensor in flat(part.adapters.merged(part)).items()}
            state |= own
        return state if names is None else {name: tensor for name, tensor in state.items() if name in names}

    # --- the backbone's tensors by the library's names ---------------------------------------

    def set_origin(self, original: nn.Module) -> None:
        """Notes the library's name of every tensor before the head, found by the identity of the tensors."""
        ours = {id(t): name for name, t in self.state_dict(keep_vars=True).items() if not name.startswith("head.")}
        theirs = original.state_dict(keep_vars=True)
        self._origin = {name: ours[id(tensor)] for name, tensor in theirs.items() if id(tensor) in ours}

    def backbone_state(self) -> dict[str, Tensor]:
        """The tensors before the head, by name: live, not copies."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("head.")}

    @property
    def origin(self) -> Mapping[str, str]:
        """From the library's name of each of the backbone's tensors, in the library's order, to the name here."""
        return self._origin

    def original_state(self) -> dict[str, Tensor]:
        """The backbone's tensors (without the head) by the library's names: live, not copies."""
        state = self.state_dict()
        return {name: state[ours] for name, ours in self._origin.items()}

    @torch.no_grad()
    def load_original_state(self, state: Mapping[str, Tensor]) -> None:
        """Copies the backbone's tensors from a state under the library's names; all of them must be there.

        Raises:
            ValueError: A name is missing, or a shape differs.
        """
        own = self.original_state()
        missing = [name for name in own if name not in state]
        misshapen = [name for name in own if name in state and state[name].shape != own[name].shape]
        if missing or misshapen:
            raise ValueError(f"the state does not fit {self.backbone}: missing {missing}, misshapen {misshapen}")
        for name, tensor in own.items():
            tensor.copy_(state[name])


NUM_STAGES = 4


def group_by_stride(strides: Sequence[int]) -> list[int]:
    """Where to cut a row of blocks: the four stages begin at these indices.

    Args:
        strides: The output stride after each block, not decreasing.

    Returns:
        Four indices; blocks before the first belong to the stem (those at half of the input's size). With fewer
        strides than stages the longest group is halved; a group is never empty.

    Raises:
        ValueError: The row has more than four strides after the stem's, or too few blocks.
    """
    starts = [i for i, stride in enumerate(strides) if stride > 2 and (i == 0 or stride > strides[i - 1])]
    if not starts or len(starts) > NUM_STAGES or len(strides) - starts[0] < NUM_STAGES:
        raise ValueError(f"blocks of output strides {list(strides)} do not make {NUM_STAGES} stages")
    while len(starts) < NUM_STAGES:
        ends = [*starts[1:], len(strides)]
        longest = max(range(len(starts)), key=lambda k: ends[k] - starts[k])
        starts.insert(longest + 1, (starts[longest] + ends[longest] + 1) // 2)
    return starts


def runs(path: str, starts: Sequence[int]) -> list[str]:
    """``features[2:4]`` and so on: five runs of children, cut at four indices."""
    bounds = ["", *map(str, starts), ""]
    return [f"{path}[{low}:{high}]" for low, high in zip(bounds, bounds[1:], strict=False)]
