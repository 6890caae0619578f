"""Class names are data in plots, model cards and files: no formula, no markup, no warning, readable by others."""

from __future__ import annotations

import csv
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from tlsearch.core.printable import csv_text, from_cell, markdown_code, markdown_text, printable
from tlsearch.core.types import TransformSpec, TrialConfig
from tlsearch.node_cache.locked_files import give_usual_mode
from tlsearch.results.promotion.model_card import CardFacts, model_card
from tlsearch.results.promotion.test_evaluation import TestEvidence, gather_evidence
from tlsearch.results.report.model_section import plot_confusion
from tlsearch.results.report.plots.style import new_figure, plot_style
from tlsearch.results.report.plots.view import short
from tlsearch.results.stats.verdict import Confirmed
from tlsearch.train import ModelMeta
from tlsearch.train.checkpoint.tensor_files import write_tensors

NAMES = ["$a_1$", "$\\frac{", "[red]x", "猫", "قطة", "😀", "a\nb", "<b>", "$", "b\x1b[2J", "\\$x$"]


def test_names_in_a_plot_are_no_formulas_and_give_no_warning() -> None:
    matrix = np.eye(len(NAMES), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = plot_confusion(matrix, NAMES)
    assert plot.png.startswith(b"\x89PNG")
    for shown in ("$a_1$", "$\\frac{", "猫", "قطة", "😀", "a\\nb", "&lt;b&gt;", "b\\x1b[2J"):
        assert f">{shown}</text>" in plot.svg, shown
    assert "font-family" not in plot.svg and "DejaVu" not in plot.svg


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_plot_is_a_formula(name: str) -> None:
    with plot_style("any"):
        figure = new_figure(2.0, 2.0)
        axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
        axes.set(title=short(name), xlabel=short(name))
        axes.set_yticks([0.5], [short(name)])
        figure.canvas.draw()
        assert not any(text.get_parse_math() for text in figure.findobj(Text))


MARKUP = [
    *("[a](http://x) *b* <i> c|d `e`", "<script>alert(1)</script>", "![p](https://x/p.png)", "https://evil.example/a"),
    *(
        "www.evil.example",
        "# head",
        "- item",
        "1) one",
        "---",
        "===",
        "1. one",
        "`` ` ``",
        "``",
        "| a | b |",
        "&amp;",
        "\\",
        "a\nb",
        "~~x~~",
        "=-=",
    ),
    *("<!-- x", "[x]: http://y", "$x$", "__b__", "=HYPERLINK(1)"),
]


def _rendered(text: str) -> list[tuple[str, str]]:
    """Kind and content of every piece of a Markdown text, as GitHub reads it but for links without marks."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [(one.type, one.content) for token in tokens for one in (token, *(token.children or ()))]


@pytest.mark.parametrize("name", MARKUP)
def test_markdown_shows_names_letter_by_letter(name: str) -> None:
    for text in (f"The class {markdown_text(name)} here", f"| a |\n| --- |\n| x {markdown_text(name)} |"):
        pieces = _rendered(text)
        assert printable(name) in "".join(content for kind, content in pieces if kind.startswith("text"))
        assert not {kind for kind, _ in pieces} & {"link_open", "image", "html_inline", "html_block", "code_inline"}
    shown = [content for kind, content in _rendered(markdown_code(name)) if kind == "code_inline"]
    assert [one.strip() for one in shown] == [" ".join(name.split())]
    assert (
        "http:" not in markdown_text(name) and "https:" not in markdown_text(name) and "www." not in markdown_text(name)
    )  # GitHub links these without marks


@pytest.mark.parametrize("name", MARKUP)
def test_no_name_in_a_model_card_is_markup(name: str) -> None:
    evidence = gather_evidence(np.eye(2) * 4, np.array([0, 1]), classes=(name, "other"), temperature=1.0)
    for test in (evidence, None):
        text = model_card(_card(name, test))
        wanted = {kind for kind, _ in _rendered(model_card(_card("plain", test)))}
        assert {kind for kind, _ in _rendered(text)} <= wanted
        assert sum(line.startswith("#") for line in text.splitlines()) == 6


def _card(name: str, evidence: TestEvidence | None) -> CardFacts:
    meta = ModelMeta(
        backbone=name,
        classes=(name, "other"),
        weights_id=name,
        weights_digest=name,
        transform=TransformSpec(resize_size=32, crop_size=32, interpolation=name),
        image_size=32,
        config=TrialConfig(backbone=name, optimizer=name),
        epoch=1,
        metric=name,
        value=0.5,
        metrics={},
        tlsearch_version=name,
    )
    confirmed = Confirmed(
        search_id=name,
        confirm_search_id=name,
        experiment=name,
        metric=name,
        mode="max",
        data_digest=name,
        num_val_images=1,
        seeds=3,
        ended=0.0,
        candidates=(),
        comparisons=(),
        outcome="unknown",
        recommended=1,
        verdict=name,
    )
    return CardFacts(
        name=name,
        meta=meta,
        search_id=name,
        trial=1,
        chosen=name,
        data_source=name,
        data_digest=name,
        images={name: 3},
        refit=False,
        licence=name,
        parameters=10,
        temperature=1.0,
        latency=name,
        confirmed=confirmed,
        evidence=evidence,
        no_test=name,
        test_notes=[name],
        default_gain=name,
    )


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *(("=1+1", "'=1+1"), ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"), ("-2+3", "'-2+3"), ("@SUM(1)", "'@SUM(1)")),
        *(("\t=1", "'\t=1"), ("\r=1", "'\r=1"), ("\n=1", "'\n=1"), ("\uff1d1+1", "'\uff1d1+1"), ("'=1", "''=1")),
        *(("-0.5", "-0.5"), ("+1e-3", "+1e-3"), ("-", "'-"), ("a=b", "a=b"), ("", ""), ("'", "'"), ("it's", "it's")),
        *(('a,b"c', 'a,b"c'), ("a\rb", "a\rb"), ("\u0661", "\u0661"), ("-inf", "'-inf")),
    ],
)
def test_no_cell_of_a_csv_is_a_formula_and_each_can_be_read_back(text: str, cell: str) -> None:
    written = csv_text(["path", "value"], [[text, -0.5], ["next", None]])
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert rows == [["path", "value"], [cell, "-0.5"], ["next", ""]]
    assert from_cell(rows[1][0]) == text


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_usual_mode(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        written = tmp_path / write_tensors(tmp_path, "w", {"a": torch.zeros(1)}).name
        private = tmp_path / "private"
        os.close(os.open(private, os.O_CREAT | os.O_WRONLY, 0o600))
        give_usual_mode(private)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(one.stat().st_mode) for one in (written, private)} == {mode}
    assert len(list(tmp_path.iterdir())) == 2
