"""What results say of a screen: which backbones it kept, how sure that is, and what plain size would have done."""

from __future__ import annotations

import json
from dataclasses import replace

from search_records import BACKBONES, make_facts, make_record, make_trial, record_of

from tlsearch.core.types import Objective, ParameterImportance, ProbedBackbone, Screen
from tlsearch.results.leaderboard.leaderboard import leaderboard
from tlsearch.results.leaderboard.leaderboard_notes import comparability_notes
from tlsearch.results.leaderboard.screen_notes import agreement, best_values, by_size, screen_json, screen_sentences
from tlsearch.results.leaderboard.search_facts import SearchFacts
from tlsearch.results.report.page import make_report
from tlsearch.results.report.plots.view import View


def probed(name: str, right: int, millions: float) -> ProbedBackbone:
    bits = ("1" * right).ljust(16, "0")
    hits = f"{int(bits, 2):04x}"
    return ProbedBackbone(backbone=name, hits=hits, num_val=16, num_train=996, parameters=round(millions * 1e6))


PASSES = (probed("small", 14, 2), probed("middle", 12, 10), probed("large", 3, 90), probed("giant", 1, 300))
SCREEN = Screen(
    backbones=("giant", "large", "middle", "small"),
    passes=PASSES,
    kept=("middle", "small"),
    reasons={"middle": "in search.start_with"},
    chance=0.021,
    num_draws=4000,
    spread=0.25,
    seconds=61.0,
)


def test_the_order_is_that_of_the_accuracies() -> None:
    assert [one.backbone for one in SCREEN.ranked] == ["small", "middle", "large", "giant"]
    assert [one.accuracy for one in SCREEN.ranked] == [14 / 16, 12 / 16, 3 / 16, 1 / 16]
    assert by_size(SCREEN.ranked) == ["giant", "large", "middle", "small"]
    assert SCREEN.pruned == ("giant", "large")


def test_the_sentences_say_the_chance_what_it_covers_and_what_size_would_do() -> None:
    kept, chance, size = screen_sentences(SCREEN)
    assert kept.startswith("the screen kept 2 of 4 backbones after one pass over 996 training and 16 validation images")
    assert "is 2.1%" in chance and "scale 0.25" in chance and "does not cover" in chance
    assert "the 2 largest backbones would have been kept (giant, large): 0 of them are among" in size
    assert "below 0.03%" in list(screen_sentences(replace(SCREEN, chance=0.0)))[1]
    assert len(list(screen_sentences(replace(SCREEN, kept=SCREEN.backbones)))) == 1
    (none,) = screen_sentences(Screen(backbones=("a",), passes=(ProbedBackbone(backbone="a", error="x"),), kept=("a",)))
    assert none == "none of 1 backbone could be screened, so all are kept"


def test_orders_are_compared_over_the_backbones_with_trials() -> None:
    record = record_of(
        [
            make_trial(0, [0.5, 0.8], params={"backbone": "small"}),
            make_trial(1, [0.6], params={"backbone": "small"}),
            make_trial(2, [0.7], params={"backbone": "middle"}),
            make_trial(3, [0.9], params={"backbone": "large"}),
        ]
    )
    best = best_values(record)
    assert best == {"large": 0.9, "small": 0.8, "middle": 0.7}
    found = agreement(SCREEN, best, record.objective)
    assert (found.pairs, found.by_probe, found.by_size) == (3, 1, 2)
    losses = agreement(SCREEN, best, Objective.of("val_loss"))
    assert (losses.pairs, losses.by_probe, losses.by_size) == (3, 2, 1)
    assert agreement(SCREEN, {"small": 0.8}, record.objective).pairs == 0


def test_json_has_each_backbone_once() -> None:
    plain = screen_json(SCREEN)
    assert plain is not None and json.loads(json.dumps(plain)) == plain
    assert [(one["name"], one["kept"], one["reason"]) for one in plain["backbones"]] == [
        ("small", True, ""),
        ("middle", True, "in search.start_with"),
        ("large", False, ""),
        ("giant", False, ""),
    ]
    assert (plain["num_backbones"], plain["kept"], plain["chance"]) == (4, ["middle", "small"], 0.021)
    unfinished = screen_json(Screen(backbones=("a", "small"), passes=PASSES))
    assert unfinished is not None and unfinished["chance"] is None
    assert [(one["name"], one["kept"]) for one in unfinished["backbones"]] == [("small", None)]
    assert screen_json(None) is None


def test_pruned_backbones_are_not_called_never_tried() -> None:
    record = record_of([make_trial(0, [0.5], params={"backbone": "small"})])
    facts = SearchFacts(backbones=SCREEN.backbones, screen=SCREEN)
    notes = comparability_notes(record, facts)
    assert "never tried: middle" in notes and notes[0].startswith("the screen kept 2 of 4")
    assert "screen" not in facts.to_json()


def test_the_report_has_the_table_where_there_was_a_screen() -> None:
    record = make_record(30)
    passes = [probed(name, 16 - 5 * n, 2 + n) for n, name in enumerate(BACKBONES)]
    screen = replace(SCREEN, backbones=BACKBONES, passes=tuple(passes), kept=BACKBONES[:3], reasons={})

    def page(facts: SearchFacts) -> str:
        rows = leaderboard(record, {}, facts)
        view = View(record=record, rows=rows, facts=facts, importance=ParameterImportance(), log_scaled=frozenset())
        return make_report(view).html

    with_screen = page(replace(make_facts(), screen=screen))
    assert '<section id="screen">' in with_screen and "Screen of the backbones" in with_screen
    assert "1.0000" in with_screen and "rank by size" in with_screen and "pruned" in with_screen
    assert "The chance that the best backbone is among the pruned ones is 2.1%" in with_screen
    assert "pairs of backbones with trials the probe orders" in with_screen
    assert '<section id="screen">' not in page(make_facts())
