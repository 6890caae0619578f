"""The model card: what the model is, what it was trained on, what is known of it, and where that ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tlsearch.core.label_tasks import TASKS
from tlsearch.core.printable import markdown_code, markdown_text
from tlsearch.core.secrets import mask
from tlsearch.core.text import plural
from tlsearch.core.types import TransformSpec
from tlsearch.results.combine.combination import Combination, Kind
from tlsearch.results.leaderboard.leaderboard import epoch_text
from tlsearch.results.promotion.multi_label_evidence import AnyEvidence
from tlsearch.results.promotion.test_evaluation import AgainstSingle
from tlsearch.results.stats.verdict import Confirmed
from tlsearch.train import ModelMeta

_MAX_CLASSES = 60


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a card says.

    Attributes:
        trial: The trial in ``search_id`` whose model this is; ``chosen`` says why this one.
        images: Number of images by split.
        refit: Whether val was trained on too.
        licence: Of the pretrained weights.
        parameters: Of the whole model.
        latency: Of one image, in words; empty where it was not measured.
        confirmed: What ``confirm`` wrote, where it was run.
        evidence: None where the test split was not looked at; ``no_test`` says why.
        test_notes: What else must be known of the test split's use.
        combination: The ensemble or soup that the model is; None for a single trial.
        networks: What each network of the model says of itself: of an ensemble, each member, in its order.
        default_gain: By how much the search's choice beats its default trial, in a sentence; empty where not known.
    """

    name: str
    meta: ModelMeta
    search_id: str
    trial: int
    chosen: str
    data_source: str
    data_digest: str
    images: Mapping[str, int]
    refit: bool
    licence: str
    parameters: int
    temperature: float
    latency: str = ""
    confirmed: Confirmed | None = None
    evidence: AnyEvidence | None = None
    no_test: str = ""
    test_notes: Sequence[str] = field(default_factory=tuple)
    combination: Combination | None = None
    networks: Sequence[ModelMeta] = field(default_factory=tuple)
    default_gain: str = ""


def model_card(facts: CardFacts) -> str:
    """The card in Markdown, secrets masked; no text of a search, its data or its weights is markup in it."""
    sections = [
        f"# {markdown_text(facts.name)}\n\n{_summary(facts)}",
        f"## Evidence\n\n{_evidence(facts)}",
        f"## Intended use and limits\n\n{_limits(facts)}",
        f"## Data\n\n{_data(facts)}",
        f"## Model\n\n{_model(facts)}",
        f"## Classes\n\n{_classes(facts)}",
    ]
    return mask("\n\n".join(sections) + "\n")


_HOW: Mapping[Kind, str] = {
    "ensemble": "the averaged probabilities",
    "soup": "one model with the averaged weights",
    "distilled": "one model that has learned the averaged probabilities",
}


def _summary(facts: CardFacts) -> str:
    start = f"An image classifier for {len(facts.meta.classes)} classes: "
    made = f"fine-tuned by tlsearch {markdown_text(facts.meta.tlsearch_version)}. "
    found = facts.combination
    if found is None:
        start += f"{markdown_text(facts.meta.backbone)}, {made}Trial {facts.trial}"
    else:
        backbones = markdown_text(", ".join(dict.fromkeys(one.backbone for one in facts.networks)))
        counts = [one.count for one in found.members]
        # In a soup a trial counts as often as it was trained, in an ensemble by its weight.
        number, unit = (sum(counts), "seeds") if found.kind == "soup" else (len(counts), "times")
        members = ", ".join(
            f"{one.trial}" + (f" ({one.count} {unit})" if one.count > 1 else "") for one in found.members
        )
        start += f"{_HOW[found.kind]} of {plural(number, 'model')} ({backbones}), {made}Trials {members}"
    return f"{start} of the search {markdown_code(facts.search_id)}, {markdown_text(facts.chosen)}."


def _evidence(facts: CardFacts) -> str:
    lines = []
    evidence = facts.evidence
    if evidence is None:
        lines.append(f"**No test evidence**: {markdown_text(facts.no_test)}.")
    else:
        first, one = evidence.headline, evidence.calibration
        lines.append(
            f"- **Test {first.label} {first.value:.4f}** (95 % interval {first.low:.4f} to {first.high:.4f}, "
            f"{first.method}, from {evidence.num_images} images that nothing was chosen by)"
        )
        lines.append("- " + ", ".join(f"{label} {value:.4f}" for _, label, value in evidence.others))
        lines.append(
            f"- calibration: expected calibration error {one.ece_before:.4f} before and {one.ece_after:.4f} after "
            f"temperature scaling (T = {one.temperature:.3f}, fitted on validation); cross-entropy "
            f"{one.loss_before:.4f} and {one.loss_after:.4f}. Scores of this model are scaled."
        )
        if evidence.against is not None:
            lines.append(_against(evidence.num_images, evidence.against))
    lines += [f"- {markdown_text(note)}" for note in facts.test_notes]
    meta, found = facts.meta, facts.combination
    if found is not None:
        lines.append(
            f"- {markdown_text(found.metric)} {found.value:.4f} on all {found.num_val} validation images, which its "
            f"members were selected on; {found.cross_fitted:.4f} selected on one half and scored on the other (the "
            f"best single trial: {found.best_cross_fitted:.4f})"
        )
    else:
        lines.append(
            f"- {markdown_text(meta.metric)} {meta.value:.4f} {epoch_text(meta.epoch)}: "
            + ("on images that were trained on too, so it says nothing" if facts.refit else _chosen_by)
        )
    if facts.default_gain:
        lines.append(f"- against the default trial of the search: {markdown_text(facts.default_gain)}")
    if facts.confirmed is not None:
        lines.append(f"- over {facts.confirmed.seeds} seeds: {markdown_text(facts.confirmed.verdict)}")
    return "\n".join(lines)


def _against(num_images: int, single: AgainstSingle) -> str:
    low, high = single.difference_interval
    return (
        f"- against the best single trial ({single.trial}) on the same {num_images} images: its accuracy is "
        f"{single.accuracy:.4f}, the difference {single.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}). "
        f"{single.only_combined} images are right with this model alone, {single.only_single} with the trial alone: "
        f"McNemar's exact test gives p = {single.p_value:.3g}"
    )


_chosen_by = "the search chose by it, so it is optimistic"


def _limits(facts: CardFacts) -> str:
    limits = TASKS[facts.meta.task].limits.format(len(facts.meta.classes))
    lines = [
        f"- For single images like those of the data below, {limits}",
        "- The evidence holds for images from the same source. Other cameras, places, times or populations were not "
        "tested, nor were single groups of people or things within a class.",
        "- Images with the same content in several splits were looked for; near-duplicates (crops, frames of one "
        "film) were not."
        if facts.evidence
        else "- Nothing was measured on images that played no part in the choice.",
    ]
    if facts.evidence is not None:
        names = ", ".join(f"{markdown_text(name)} ({why})" for name, why in facts.evidence.weakest)
        lines.append(f"- Weakest classes on the test images: {names}.")
    return "\n".join(lines)


def _data(facts: CardFacts) -> str:
    counts = ", ".join(f"{count} {markdown_text(name)}" for name, count in facts.images.items())
    trained = "train and val together" if facts.refit else "train"
    return (
        f"- source: {markdown_code(facts.data_source)}; images: {counts}\n"
        f"- trained on {trained}\n"
        f"- digest of the data: {markdown_code(facts.data_digest)}"
    )


def _model(facts: CardFacts) -> str:
    lines = [f"- {facts.parameters:,} parameters; licence of the pretrained weights: {markdown_text(facts.licence)}"]
    found = facts.combination
    if found is not None and found.kind == "ensemble":
        total = sum(one.count for one in found.members)
        for member, meta in zip(found.members, facts.networks, strict=True):
            lines.append(f"- trial {member.trial}, weight {member.count / total:.3f}:")
            lines += [f"  {line}" for line in _network(meta)]
        scores = "the averaged probabilities of the members, their logarithms divided by the temperature"
    else:
        lines += _network(facts.meta)
        scores = f"{TASKS[facts.meta.task].activation} of the logits over the temperature"
    lines.append(f"- scores: {scores} {facts.temperature:.3f}")
    if facts.latency:
        lines.append(f"- latency: {markdown_text(facts.latency)}")
    return "\n".join(lines)


def _network(meta: ModelMeta) -> list[str]:
    transform = meta.transform
    settings = ", ".join(
        f"{markdown_text(name)} {markdown_text(str(value))}"
        for name, value in vars(meta.config).items()
        if name != "backbone" and value is not None
    )
    return [
        f"- {markdown_text(meta.backbone)}, input {meta.image_size} x {meta.image_size} px",
        f"- pretrained weights: {markdown_code(meta.weights_id)} (sha256 {markdown_code(meta.weights_digest[:16])})",
        f"- preprocessing: {_pixels_of(transform)}, resize to {transform.resize_size} "
        f"({markdown_text(transform.interpolation)}, {markdown_text(transform.crop_mode)}), crop "
        f"{transform.crop_size}, mean {_numbers(transform.mean)}, std {_numbers(transform.std)}; the model carries it",
        f"- training: {settings}; epoch {meta.epoch}",
    ]


def _pixels_of(transform: TransformSpec) -> str:
    return "transparency laid on white" if transform.pixel_format.is_rgb else f"{transform.pixel_format}"


def _classes(facts: CardFacts) -> str:
    if facts.evidence is None:
        return f"The classes are {', '.join(map(markdown_text, facts.meta.classes))}."  # a line begins with no name
    heads, cells = facts.evidence.class_table
    rows = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for name, *figures in cells[:_MAX_CLASSES]:
        rows.append(f"| {markdown_text(name)} | {' | '.join(figures)} |")
    if len(facts.evidence.classes) > _MAX_CLASSES:
        rows.append(f"\n{len(facts.evidence.classes) - _MAX_CLASSES} more classes are in evidence.json.")
    return "\n".join(rows)


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
