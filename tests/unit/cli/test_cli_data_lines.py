"""What ``check`` says about the images, below the table of counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from tlsearch.cli.tables.data_tables import data_lines, data_table
from tlsearch.data.inspect.data_card import DataCard, Extent, ImagePair, ImagePlace, SplitCounts


def card(**found: Any) -> DataCard:
    return DataCard(source="folder", classes=("a", "b"), digest="", splits={}, imbalance=1.0, **found)


def pair(kind: Literal["exact", "near"], number: int, label: str = "a") -> ImagePair:
    return ImagePair(
        kind=kind,
        first=ImagePlace(path=f"train/{number}", split="train", label="a"),
        second=ImagePlace(path=f"val/{number}", split="val", label=label),
    )


def test_nothing_is_said_of_images_that_were_not_opened():
    assert data_lines(card()) == []


def test_of_many_classes_the_smallest_have_a_row():
    counts = {f"c{number:03d}": number % 150 for number in range(300)}
    table = data_table(
        replace(card(), classes=tuple(counts), splits={"train": SplitCounts(images=9, per_class=counts)})
    )
    (labels, numbers) = (list(column.cells) for column in table.columns)
    assert len(labels) == 101 and labels[-1] == "all" and labels[:2] == ["c000", "c001"] and "c150" in labels
    assert {int(str(one)) for one in numbers[:-1]} == set(range(50))
    assert table.title == "300 classes, largest to smallest 1.0:1, the 100 smallest"
    few = replace(card(), splits={"train": SplitCounts(images=3, per_class={"a": 1, "b": 2})})
    assert data_table(few).title == "2 classes, largest to smallest 1.0:1"


def test_sizes_and_modes():
    extent = Extent(min=20, median=32.5, max=64)
    assert data_lines(card(width=extent, height=extent, modes={"RGB": 3, "L": 1})) == [
        "width 20 to 64 (median 32.5), height 20 to 64 (median 32.5) pixels; 3 RGB, 1 L"
    ]


def test_pictures_that_stand_twice_are_named_with_their_labels():
    lines = data_lines(card(leaks=[pair("exact", 1), pair("near", 2, "b")], duplicates=[pair("near", 3)]))
    assert lines == [
        "2 pictures stand in two splits:",
        "  val/1 is the same file as train/1 (a)",
        "  val/2 looks like train/2 (b and a)",
        "1 picture stands twice in one split:",
        "  val/3 looks like train/3 (a)",
    ]


def test_of_many_the_first_20_are_named():
    lines = data_lines(card(leaks=[pair("exact", number) for number in range(50)]))
    assert len(lines) == 22
    assert lines[-1] == "  and 30 more, see --json"
