"""What a screening shows while it goes on: each pass where they are few, now and then where they are many."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tlsearch.core.types import ProbedBackbone, Screen
from tlsearch.display import shown_search
from tlsearch.display.shown_search import ScreenLines


def _lines() -> tuple[ScreenLines, io.StringIO]:
    text = io.StringIO()
    return ScreenLines(Console(file=text, width=400)), text


def test_a_line_for_each_pass_then_the_decision() -> None:
    lines, text = _lines()
    good = ProbedBackbone(backbone="a", hits="f0", num_val=8, num_train=20, parameters=5)
    bad = ProbedBackbone(backbone="b", hits="00", num_val=8, num_train=20, parameters=9)
    lines.backbone_probed(good, 1, 3)
    lines.backbone_probed(ProbedBackbone(backbone="c", error="out of memory"), 2, 3)
    lines.screened(Screen(backbones=("a", "b"), passes=(good, bad), kept=("a",), chance=0.01, num_draws=100))
    assert text.getvalue().splitlines()[:2] == [
        "[1/3 screened] a: a solved head on its features has an accuracy of 0.5000",
        "[2/3 screened] c: out of memory",
    ]
    assert "the screen kept 1 of 2 backbones" in text.getvalue() and text.getvalue().endswith("pruned: b\n")


def test_of_many_passes_some_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(shown_search.time, "monotonic", lambda: now[0])
    lines, text = _lines()
    for done in range(1, 101):
        now[0] += 1.0
        lines.backbone_probed(ProbedBackbone(backbone="a", hits="f0", num_val=8), done, 100)
    assert len(text.getvalue().splitlines()) == 10 and "[100/100 screened]" in text.getvalue()
