"""Where to cut a row of blocks into four stages."""

from __future__ import annotations

from collections.abc import Sequence

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
