"""Seeded, stratified splits that keep groups together.

The order in which groups are placed comes from SHA-256 of (seed, group), not from a random number
generator: the same images are split the same way on every platform and with every library version.

Images that have any number of classes each are split by iterative stratification: the rarest class is placed first,
while there is a choice, and each of its images goes where the class is wanted most (Sechidis, Tsoumakas and Vlahavas,
"On the stratification of multi-label data", 2011).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tlsearch.core.errors import DataError
from tlsearch.core.label_tasks import class_counts, classes_of
from tlsearch.data.sources.listing import Item


def split_items(
    items: Sequence[Item], classes: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, tuple[Item, ...]]:
    """Cuts ``items`` into train and the splits of ``fractions``, class by class.

    Where every image is its own group, a class of n images gives ``max(1, round(n * fraction))`` to each
    split of ``fractions`` (halves rounded up) and the rest to train. With larger groups the counts come
    as near to that as the groups allow, every class weighing the same; a group may span classes.

    Args:
        items: The images, in any order; labels index ``classes``.
        classes: Class names, for messages.
        fractions: Share of each split but train, e.g. ``{"val": 0.15, "test": 0.15}``; each in (0, 1),
            their sum below 1.
        seed: Another seed, another split.

    Returns:
        ``train`` and the splits of ``fractions``, each sorted by (label, key), each with every class.

    Raises:
        DataError: A fraction is out of range, or a class has too few images or groups.
    """
    if not all(0 < share < 1 for share in fractions.values()) or sum(fractions.values()) >= 1:
        text = ", ".join(f"{name} {share}" for name, share in fractions.items())
        raise DataError(f"split fractions must be above 0 and leave something for train, got {text}")
    targets = _targets(items, classes, fractions)
    return _cut(items, classes, targets, seed)


def fold_items(
    items: Sequence[Item], classes: Sequence[str], num_folds: int, seed: int
) -> tuple[tuple[Item, ...], ...]:
    """Cuts ``items`` into folds of about equal size, stratified: each is the validation images of one training.

    Where every image is its own group, a class has in each fold the same number of images, or one more.

    Args:
        items: As for ``split_items``.
        num_folds: K, at least 2.
        seed: Another seed, other folds.

    Returns:
        K folds, each sorted by (label, key), each with every class.

    Raises:
        DataError: A class has fewer images, or groups, than there are folds.
    """
    counts = class_counts(item.label for item in items)
    small = {name: counts[label] for label, name in enumerate(classes) if counts[label] < num_folds}
    if small:
        named = ", ".join(f"{name!r} ({count})" for name, count in list(small.items())[:20])
        raise DataError(
            f"search.folds {num_folds} needs {num_folds} images of each class or more, outside of test: {named}"
            f"{' ...' if len(small) > 20 else ''}; at most {min(small.values())}, or add images"
        )
    names = [f"fold {fold + 1}" for fold in range(num_folds)]
    targets: dict[str, dict[int, int]] = {name: {} for name in names}
    turn = 0  # what one class has left over goes to the folds after those that the class before has filled
    for label in range(len(classes)):
        each, over = divmod(counts[label], num_folds)
        for fold, name in enumerate(names):
            targets[name][label] = each + ((fold - turn) % num_folds < over)
        turn += over
    return tuple(_cut(items, classes, targets, seed).values())


def _cut(
    items: Sequence[Item], classes: Sequence[str], targets: Mapping[str, Mapping[int, int]], seed: int
) -> dict[str, tuple[Item, ...]]:
    """The items of each split or fold, by the wanted number of images of each class, sorted by (label, key).

    Raises:
        DataError: One of them has none of a class.
    """
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item)
    placed = _place(groups, targets, seed)
    result = {
        name: tuple(sorted((item for item in items if placed[item.group] == name), key=lambda i: (i.label, i.key)))
        for name in targets
    }
    _check_cover(result, groups, classes)
    return result


def _targets(
    items: Sequence[Item], classes: Sequence[str], fractions: Mapping[str, float]
) -> dict[str, dict[int, int]]:
    """The wanted number of images by split and label."""
    counts = class_counts(item.label for item in items)
    targets: dict[str, dict[int, int]] = {name: {} for name in ("train", *fractions)}
    small = []
    for label, name in enumerate(classes):
        total = counts[label]
        wanted = {split: max(1, math.floor(total * share + 0.5)) for split, share in fractions.items()}
        while sum(wanted.values()) >= total and max(wanted.values()) > 1:  # rounding up must leave train its one
            wanted[max(wanted, key=wanted.__getitem__)] -= 1
        wanted["train"] = total - sum(wanted.values())
        if wanted["train"] < 1:
            small.append(f"{name!r} ({total})")
        for split in targets:
            targets[split][label] = wanted[split]
    if small:
        names = " and ".join(targets)
        raise DataError(
            f"too few images to split into {names}, at least {len(targets)} of each class are needed: "
            f"{', '.join(small[:20])}{' ...' if len(small) > 20 else ''}; add images, or give ready splits"
        )
    return targets


def _place(groups: Mapping[str, list[Item]], targets: Mapping[str, Mapping[int, int]], seed: int) -> dict[str, str]:
    """The split of each group: greedily the one that brings the class counts nearest to the targets."""

    def order(group: str) -> tuple[int, bytes]:
        # Large groups first, while there is room for them; among groups of about one size, by chance.
        data = f"{seed}:{group}".encode("utf-8", "surrogateescape")
        return -len(groups[group]).bit_length(), hashlib.sha256(data).digest()

    counts = {group: class_counts(item.label for item in groups[group]) for group in sorted(groups, key=order)}
    if any(isinstance(item.label, tuple) for items in groups.values() for item in items):
        return place_rarest_first(counts, {group: len(items) for group, items in groups.items()}, targets)
    totals = class_counts(item.label for items in groups.values() for item in items)
    unplaced = Counter(label for count in counts.values() for label in count)
    deficit = {split: dict(wanted) for split, wanted in targets.items()}
    lacking = {label: set(targets) for label in totals}
    placed: dict[str, str] = {}
    for group, count in counts.items():
        # A class with no more groups left than splits that lack it must not waste one.
        pressed = [label for label in count if unplaced[label] <= len(lacking[label])]

        def cost(split: str, count: Counter[int] = count, pressed: Sequence[int] = pressed) -> tuple[int, float]:
            covered = sum(split in lacking[label] for label in pressed)
            # The change of the squared distance to the targets, in shares of each class.
            change = sum(k * (k - 2 * deficit[split][label]) / totals[label] ** 2 for label, k in sorted(count.items()))
            return -covered, change

        best = min(targets, key=cost)
        placed[group] = best
        for label, k in count.items():
            deficit[best][label] -= k
            lacking[label].discard(best)
            unplaced[label] -= 1
    return placed


def _check_cover(
    result: Mapping[str, Sequence[Item]], groups: Mapping[str, Sequence[Item]], classes: Sequence[str]
) -> None:
    problems = []
    for name, items in result.items():
        present = class_counts(item.label for item in items)
        for label in range(len(classes)):
            if label not in present:
                having = (any(label in classes_of(item.label) for item in members) for members in groups.values())
                num_groups = sum(having)
                problems.append(f"class {classes[label]!r} ({num_groups} groups) has none for {name}")
    if problems:
        raise DataError(
            "groups of images (data.split.group_by), or images with several classes, are too few groups to give every "
            "split, or fold, some of each class: " + "; ".join(problems[:20])
        )


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
