"""Class names are data in plots, model cards and files: no formula, no markup, no warning, readable by others."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tlsearch.data.modes import give_usual_mode
from tlsearch.results.card import _name
from tlsearch.results.plots.mistakes import plot_confusion
from tlsearch.results.plots.style import plain
from tlsearch.train.files import write_tensors

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
def test_a_plain_name_is_shown_as_it_is(name: str) -> None:
    from matplotlib import cbook

    assert not cbook.is_math_text(plain(name))


def test_a_card_shows_names_letter_by_letter() -> None:
    assert _name("[a](http://x) *b* <i> c|d `e`") == "\\[a\\]\\(http://x\\) \\*b\\* \\<i\\> c\\|d \\`e\\`"
    assert _name("a\nb") == "a\\\\nb"


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
