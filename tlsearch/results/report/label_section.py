"""Images whose label predictions contradict: a section of the report with thumbnails, and a CSV with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tlsearch.core.printable import csv_text, printable
from tlsearch.core.text import agree, plural
from tlsearch.results.report.html import paragraph, section

LABEL_ERRORS = "label_errors.csv"  # in the report's folder


@dataclass(frozen=True, kw_only=True)
class DoubtfulLabel:
    """One image whose label is contradicted.

    Attributes:
        key: Of the image in its split.
        label: The class that the data give it.
        suggested: The class that predictions are confident of.
        confidence: Its probability.
        label_probability: That of ``label``.
    """

    key: str
    split: str
    label: str
    suggested: str
    confidence: float
    label_probability: float


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """What confident learning finds in train and val.

    Attributes:
        images: Those of the least probable label first.
        judged: Number of images that were judged, by split.
        judges: By whose predictions, in words.
        pictures: Data URIs of the first images.
        notes: What was not judged, and why.
    """

    images: tuple[DoubtfulLabel, ...]
    judged: Mapping[str, int]
    judges: str = ""
    pictures: Sequence[str] = ()
    notes: Sequence[str] = ()


def label_errors_csv(found: LabelErrors) -> str:
    """All doubtful labels: key, split, label, suggested, confidence; the most suspicious first."""
    rows = [[one.key, one.split, one.label, one.suggested, f"{one.confidence:.4f}"] for one in found.images]
    return csv_text(["key", "split", "label", "suggested", "confidence"], rows)


def label_section(found: LabelErrors | None) -> str:
    """The most suspicious images with their thumbnails; empty where no label was judged."""
    if found is None or not found.judged:
        return ""
    counted = " and ".join(f"{count:,} of {split}" for split, count in found.judged.items())
    count = len(found.images)
    text = f"{plural(count, 'label')} {agree(count, 'is', 'are')} contradicted with confidence, among {counted}."
    if count:
        text += f" All of them are in {LABEL_ERRORS}, beside this page."
    shown = zip(found.images, found.pictures, strict=False)
    gallery = "".join(_doubt(one, uri) for one, uri in shown)
    note = (
        f"Judged by {found.judges}: predictions for images that the model in question was not trained on. A label is "
        "listed where they reach another class's usual probability (confident learning, Northcutt et al. 2021). A hard "
        "image with a right label may be among them: look before you change one."
    )
    return section(
        "labels",
        "Doubtful labels",
        paragraph(text),
        f'<div class="gallery">{gallery}</div>' if gallery else "",
        paragraph(" ".join((note, *found.notes)), note=True),
    )


def _doubt(one: DoubtfulLabel, uri: str) -> str:
    name = escape(printable(one.key))
    return (
        f'<figure><img src="{uri}" alt="{name}">{escape(printable(one.label))} '
        f'<span class="wrong">→ {escape(printable(one.suggested))} {one.confidence:.0%}</span>'
        f'<div class="file">{escape(one.split)}: {name}</div></figure>'
    )
