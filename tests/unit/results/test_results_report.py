"""The report: one well-formed page that loads nothing, for searches of every kind."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from search_records import make_facts, make_record, make_trial, record_of

from tlsearch.core.types import ParameterImportance, SearchRecord, TrialConfig, TrialRecord, TrialState
from tlsearch.results.inference.labelled import Evaluation, class_scores, most_confused
from tlsearch.results.leaderboard.leaderboard import leaderboard
from tlsearch.results.leaderboard.search_facts import SearchFacts
from tlsearch.results.report.model_section import BestModel
from tlsearch.results.report.page import Report, make_report, write_report
from tlsearch.results.report.plots.parallel import parameter_scale
from tlsearch.results.report.plots.parameters import log_ticks, rate_text
from tlsearch.results.report.plots.timing import paces
from tlsearch.results.report.plots.view import View
from tlsearch.results.report.settings_section import SearchSettings, WeightsUsed

VOID = {"meta", "img", "br", "hr", "wbr", "link", "input"}
IMPORTANCE = ParameterImportance(
    values={"unfreeze_depth": 0.7, "head_lr": 0.3},
    spread={"unfreeze_depth": (0.5, 0.8)},
    epoch=1,
    num_trials=60,
    num_top=6,
)


class _Page(HTMLParser):
    """Collects what a browser would have to make sense of, and complains where tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.rows: list[int] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "data", "poster", "srcset", "xlink:href"):
                self.links.append(value or "")
            if name == "data-trial":
                self.rows.append(int(value or -1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def _view(record: SearchRecord, facts: SearchFacts | None = None) -> View:
    facts = make_facts() if facts is None else facts
    return View(record=record, rows=leaderboard(record, {}, facts), facts=facts, importance=IMPORTANCE)


@cache
def _search_of_sixty(metric: str = "val_accuracy") -> tuple[SearchRecord, Report]:
    """A report takes seconds, and most tests ask only whether one is right."""
    record = make_record(60, metric=metric)
    return record, make_report(_view(record), model_missing="not kept")


def _check(report: Report, record: SearchRecord) -> _Page:
    page = _Page(report.html)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids), "an id stands twice"
    assert all(link.startswith(("#", "data:")) for link in page.links), page.links
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"/\*.*?\*/|^\s*//.*$", "", report.html, flags=re.MULTILINE))
    assert "url(" not in report.html.replace("url(#", "") and "@import" not in report.html
    assert "default-src 'none'" in report.html
    assert set(page.rows) >= {trial.number for trial in record.trials}
    data = json.loads(report.html.split('id="data">')[1].split("</script>")[0])
    assert set(data["marks"]) <= set(page.ids)
    assert {int(number) for number in data["trials"]} == {trial.number for trial in record.trials}
    for plot in report.plots:
        assert bool(plot.svg) != bool(plot.missing)
        if plot.png:
            with Image.open(io.BytesIO(plot.png)) as image:
                assert image.format == "PNG" and image.width > 300
    return page


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss", pytest.param("val_macro_f1", marks=pytest.mark.slow)])
def test_a_search_of_sixty_trials(metric: str) -> None:
    record, report = _search_of_sixty(metric)
    page = _check(report, record)
    text = " ".join(page.text)
    assert record.best is not None and f"Trial {record.best.number} is the best" in text
    assert f"{record.best.best_value:.4f}" in text
    assert "made <up> & co" in text and "not kept" in text
    assert {plot.name for plot in report.plots if plot.missing} == {"latency"}
    assert ("±" in text.split("Leaderboard")[-1]) and ("not a fraction of the images" in text) == (
        metric != "val_accuracy"
    )


def test_numbers_in_plots_are_whole() -> None:
    """Coordinates are rounded, texts are not."""
    record, report = _search_of_sixty()
    assert record.best is not None
    (plot,) = [plot for plot in report.plots if plot.name == "history"]
    assert f"trial {record.best.number}: {record.best.best_value:.4f}" in plot.svg
    assert not re.search(r'"[^">]*\d\.\d{3,}[^">]*"', plot.svg)


def test_each_mark_of_a_plot_is_a_trial() -> None:
    for plot in _search_of_sixty()[1].plots:
        for group, trials in plot.marks.items():
            element = (plot.svg + plot.narrow).split(f'id="{group}"')[1]
            depth, end = 1, 0
            for tag in re.finditer(r"<g\b[^>]*?(/?)>|</g>", element):
                depth += -1 if tag[0] == "</g>" else 0 if tag[1] else 1
                if depth == 0:
                    end = tag.start()
                    break
            shapes = re.sub(r"<defs>.*?</defs>", "", element[:end], flags=re.DOTALL)
            assert len(re.findall(r"<(?:use|path)\b", shapes)) == len(trials), (plot.name, group)


FAILED = [
    make_trial(n, [], state=TrialState.FAILED, reason="error", error="Traceback\nKeyError: 'x'") for n in range(3)
]
RUNNING = [
    make_trial(0, [0.4], state=TrialState.RUNNING, reason=""),
    make_trial(1, [], state=TrialState.RUNNING, reason=""),
]
DIVERGED = [make_trial(0, [0.4, 0.1], state=TrialState.PRUNED, reason="diverged")]
MEMORY = [make_trial(0, [], state=TrialState.INFEASIBLE, reason="memory")]
EQUAL = [make_trial(n, [0.5, 0.5], params={"head_lr": 1e-3 * (n + 1)}) for n in range(3)]


@pytest.mark.parametrize(
    ("trials", "says"),
    [
        ([], "No trial has a result"),
        ([make_trial(0, [0.5])], "Trial 0 is the best"),
        (FAILED, "KeyError: 'x'"),
        (RUNNING, "No trial has a result yet"),
        (DIVERGED, "diverged"),
        (MEMORY, "memory"),
        ([*FAILED, make_trial(3, [0.1, 0.7, 0.6])], "at epoch 2"),
        (EQUAL, "Tied for first with exactly the same val_accuracy: trials 0, 1, 2"),
        ([make_trial(0, [0.0]), make_trial(1, [1.0], params={"backbone": "vit_b_16"})], "Trial 1 is the best"),
    ],
)
def test_every_kind_of_search_has_a_page(trials: list[object], says: str) -> None:
    record = record_of(trials)  # type: ignore[arg-type]
    page = _check(make_report(_view(record)), record)
    assert says in " ".join(page.text)


@pytest.mark.parametrize("trials", [[], [make_trial(0, [0.5])]])
def test_a_search_of_which_nothing_else_is_known_has_a_page(trials: list[TrialRecord]) -> None:
    record = record_of(trials)
    _check(make_report(_view(record, SearchFacts())), record)


def test_what_users_write_is_escaped() -> None:
    nasty = "</script><img src=x onerror=alert(1)>"
    trials = [make_trial(n, [0.5 + n / 10], params={"note": f"{nasty}{n}"}) for n in range(3)]
    trials.append(make_trial(3, [], state=TrialState.FAILED, reason="error", error=nasty))
    record = record_of(trials)
    report = make_report(_view(record))
    _check(report, record)
    assert "<img src=x" not in report.html
    assert report.html.count("</script>") == 2


def test_a_pause_between_two_starts_is_left_out_of_the_wall_time() -> None:
    before, after = make_trial(0, [0.5, 0.6]), make_trial(10_080, [0.7])  # 28 hours later
    pause = (before.reports[-1].timestamp, 28 * 3600.0)
    report = make_report(_view(replace(record_of([before, after]), pauses=(pause,))))
    (plot,) = [plot for plot in report.plots if plot.name == "history"]
    assert "paused 28 hours" in plot.svg and "between two starts" in plot.caption


def _evaluation() -> Evaluation:
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.01, 0.99, 0], [0.3, 0.3, 0.4], [0, 0.6, 0.4]])
    labels = np.array([0, 1, 0, 0, 2])
    return Evaluation(classes=("a", "b", "c"), keys=tuple("pqrst"), labels=labels, probabilities=probabilities)


def test_the_best_models_mistakes() -> None:
    evaluation = _evaluation()
    assert evaluation.accuracy == pytest.approx(0.4)
    assert evaluation.confusion().tolist() == [[1, 1, 1], [0, 1, 0], [0, 1, 0]]
    assert [(m.key, m.label, m.predicted) for m in evaluation.worst()] == [
        ("r", "a", "b"),
        ("t", "c", "b"),
        ("s", "a", "c"),
    ]
    assert most_confused(evaluation) == [("a", "b", 1), ("a", "c", 1), ("c", "b", 1)]
    scores = {score.name: score for score in class_scores(evaluation)}
    assert scores["a"].recall == pytest.approx(1 / 3) and scores["a"].precision == 1.0
    assert scores["c"].recall == 0.0 and scores["c"].precision == 0.0
    record = make_record(20)
    assert record.best is not None
    pictures = ["data:image/png;base64,AAAA"] * 3
    report = make_report(_view(record), BestModel(trial=record.best.number, evaluation=evaluation, pictures=pictures))
    page = _check(report, record)
    assert page.links.count(pictures[0]) == 3
    assert "3 are wrong, accuracy 0.4000" in " ".join(page.text)
    assert "confusion" in {plot.name for plot in report.plots}


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    _, report = _search_of_sixty()
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "of_an_older_version.png").write_bytes(b"")
    written = write_report(report, tmp_path)
    assert (tmp_path / "report.html").read_text() == report.html
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == set(written) == {"report.html", *(f"plots/{p.name}.png" for p in report.plots if p.png)}


@pytest.mark.slow
def test_five_hundred_trials(capsys: pytest.CaptureFixture[str]) -> None:
    """The time is told, not tested: a busy machine is no fault."""
    record = make_record(500)
    started, busy = time.perf_counter(), time.process_time()
    report = make_report(_view(record))
    elapsed, busy = time.perf_counter() - started, time.process_time() - busy
    with capsys.disabled():
        print(f"\n500 trials: report in {elapsed:.1f} s ({busy:.1f} s of CPU), page {len(report.html) / 1e6:.1f} MB")
    assert len(report.html) < 4_000_000
    _check(report, record)


def test_a_rate_has_a_logarithmic_axis_however_few_its_values() -> None:
    for values in ([3e-4, 1e-3, 2e-3], [1e-3] * 2 + [1.1e-3]):
        params = [{"head_lr": value, "momentum": 0.1 * n, "mine": value} for n, value in enumerate(values)]
        record = record_of([make_trial(n, [0.5 + n / 10], params=one) for n, one in enumerate(params)])
        view = View(record=record, rows=leaderboard(record, {}), log_scaled=frozenset({"mine"}))
        assert [view.is_rate(name) for name in ("head_lr", "mine", "momentum")] == [True, True, False]
        slices = next(plot for plot in make_report(view).plots if plot.name == "slices")
        ticks = [rate_text(tick) for tick in log_ticks(min(values), max(values))]
        assert all(slices.svg.count(f">{tick}<") == 2 for tick in ticks), ticks  # head_lr and mine, not momentum
        heights = parameter_scale(record.trials, "head_lr", log=True).heights
        assert (min(heights.values()), max(heights.values())) == (0.0, 1.0)
    three = parameter_scale([make_trial(n, [0.5], params={"lr": 10.0**-n}) for n in (2, 3, 5)], "lr", log=True)
    assert three.heights[1e-3] == pytest.approx(2 / 3)


def test_a_rate_of_zero_or_of_one_value_is_drawn_all_the_same() -> None:
    for values in ([0.0, 1e-4, 1e-3], [1e-3, 1e-3, 1e-3]):
        params = [{"weight_decay": value, "head_lr": 10.0**-n} for n, value in enumerate(values)]
        record = record_of([make_trial(n, [0.5 + n / 10], params=one) for n, one in enumerate(params)])
        _check(make_report(_view(record)), record)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-5, 1e-1, ["1e-5", "1e-3", "1e-1"]),
        (1.3e-5, 4.9e-4, ["3e-5", "1e-4", "3e-4"]),
        (1e-3, 3e-2, ["1e-3", "3e-3", "1e-2", "3e-2"]),
        (1e-3, 1.1e-3, ["1e-3", "1.1e-3"]),
        (2e-3, 2e-3, ["2e-3"]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, ticks: list[str]) -> None:
    found = [rate_text(tick) for tick in log_ticks(low, high)]
    assert 1 <= len(found) <= 4 and set(ticks) <= set(found), found


def test_a_phone_is_shown_plots_of_its_own_width() -> None:
    _, report = _search_of_sixty()
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in report.html
    assert "min-width: 860px" not in report.html
    wide = [plot for plot in report.plots if plot.wide and not plot.missing]
    assert {plot.name for plot in wide} == {"history", "curves", "slices", "parallel", "backbones"}
    for plot in wide:
        box = re.search(r'viewBox="0 0 ([\d.]+)', plot.narrow)
        assert box is not None and float(box[1]) < 340  # points: nearly one for each pixel of a phone's width
        assert plot.svg in report.html and plot.narrow in report.html


def test_paces_mix_neither_backbones_nor_depths_nor_sources() -> None:
    trials = []
    for number, (backbone, depth) in enumerate([("resnet18", 0), ("resnet18", 2), ("vgg11", 0), ("resnet18", 0)]):
        trial = make_trial(number, [0.5, 0.6], params={"backbone": backbone, "unfreeze_depth": depth})
        reports = [
            replace(
                report,
                metrics={**report.metrics, "epoch_seconds": 10.0 * depth + report.epoch},
                source="pixels" if report.epoch == 1 else "features",
            )
            for report in trial.reports
        ]
        trials.append(
            replace(trial, reports=tuple(reports), config=TrialConfig(backbone=backbone, unfreeze_depth=depth))
        )
    found = {(one.model, one.depth, one.source): (one.epochs, one.median_s) for one in paces(_view(record_of(trials)))}
    assert found == {
        ("resnet18", 0, "features"): (2, 2.0),
        ("resnet18", 0, "pixels"): (2, 1.0),
        ("resnet18", 2, "features"): (1, 22.0),
        ("resnet18", 2, "pixels"): (1, 21.0),
        ("vgg11", 0, "features"): (1, 2.0),
        ("vgg11", 0, "pixels"): (1, 1.0),
    }
    text = " ".join(_Page(make_report(_view(record_of(trials))).html).text)
    assert "s per epoch" not in text and "Seconds of an epoch" in text


def test_settings_weights_and_versions_are_on_the_page() -> None:
    record = make_record(12)
    settings = SearchSettings(
        resolved="name: <b>x</b>\n",
        weights=[WeightsUsed(backbone="resnet18", weights_id="file:r.pth", digest="ab" * 32)],
        environment={"torch": "2.14.1", "python": "3.11"},
        best_entry="search: {}\n",
        best_space="space: {}\n",
    )
    report = make_report(_view(record), settings=settings)
    page = _check(report, record)
    text = " ".join(page.text)
    assert all(
        part in text for part in ("name: <b>x</b>", "file:r.pth", "abababababababab", "torch", "2.14.1", "space: {}")
    )
    assert "<b>x</b>" not in report.html
    bare = make_report(
        _view(record_of([make_trial(0, [], state=TrialState.FAILED, reason="error")])), settings=settings
    )
    assert "2.14.1" in bare.html and "space: {}" not in bare.html
