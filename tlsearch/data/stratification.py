"""Iterative stratification: splits of images that have any number of classes each.

The rarest class is placed first, while there is a choice: each of its images goes where the class is wanted most
(Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", 2011). Groups are placed as a whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping


def place_rarest_first(
    counts: Mapping[str, Counter[int]], sizes: Mapping[str, int], targets: Mapping[str, Mapping[int, int]]
) -> dict[str, str]:
    """The split of each group.

    Args:
        counts: Images by class of each group, in the order in which those of one class are placed.
        sizes: Images of each group, those without a class too.
        targets: The wanted images by split and class.
    """
    plan = _Plan(counts, sizes, targets)
    holders: dict[int, list[str]] = defaultdict(list)
    for group, count in counts.items():
        for label in count:
            holders[label].append(group)
    while (rarest := plan.rarest()) is not None:
        for group in holders[rarest]:
            plan.place(group, rarest)
    for group in counts:
        plan.place(group, None)  # those without a class are left
    return plan.placed


class _Plan:
    """What is placed, and what is still wanted.

    Attributes:
        placed: The split of each group so far.
    """

    def __init__(
        self, counts: Mapping[str, Counter[int]], sizes: Mapping[str, int], targets: Mapping[str, Mapping[int, int]]
    ) -> None:
        self._counts, self._sizes = counts, sizes
        self._wanted = {split: dict(classes) for split, classes in targets.items()}
        totals = {split: sum(classes.values()) for split, classes in targets.items()}
        share = sum(sizes.values()) / sum(totals.values())
        self._room = {split: share * total for split, total in totals.items()}  # in images, with and without a class
        self._unplaced = Counter(label for count in counts.values() for label in count)
        self.placed: dict[str, str] = {}

    def rarest(self) -> int | None:
        """The class with the fewest groups that are not placed; None where all are."""
        left = ((number, label) for label, number in self._unplaced.items() if number > 0)
        return min(left, default=(0, None))[1]

    def place(self, group: str, label: int | None) -> None:
        """Puts a group where its class is wanted most, or, of equal splits, where there is most room."""
        if group in self.placed:
            return
        need = {split: 0 if label is None else wanted[label] for split, wanted in self._wanted.items()}
        split = max(need, key=lambda one: (need[one], self._room[one]))
        self.placed[group] = split
        self._room[split] -= self._sizes[group]
        for one, number in self._counts[group].items():
            self._wanted[split][one] -= number
            self._unplaced[one] -= 1
