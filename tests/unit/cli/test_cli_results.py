"""``results`` and ``report`` on a made-up study, from the command line's own entry."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from search_doubles import drive, make_plan
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import SearchEntry, register
from tlsearch.app.catalog.gather_facts import write_facts
from tlsearch.cli.root import app
from tlsearch.cli.tables.results_table import print_next_steps
from tlsearch.results.leaderboard.search_facts import SearchFacts

TRIALS = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("storage") / "made-up"
    drive(make_plan(root, trials=TRIALS, sampler="random"), slots=2)
    return root


@pytest.fixture(autouse=True)
def _registered(folder: Path, tmp_path: Path) -> None:
    entry = SearchEntry(
        search_id="made-up",
        experiment="stub",
        directory=str(folder),
        source="",
        tracking_uri=f"sqlite:///{tmp_path}/absent.db",
        metric="val_accuracy",
        created=0.0,
    )
    register(entry)
    facts = SearchFacts(
        classes=("a", "b"),
        images={"train": 100, "val": 50},
        parameters={"resnet18": 11_000_000, "mobilenet_v2": 2_000_000},
        max_epochs=4,
        rungs=(1, 3),
    )
    write_facts(entry, facts)


def _run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.stdout


def _json(*arguments: str) -> Any:
    return json.loads(_run(*arguments, "--json"))


def test_the_published_shape_stays_and_details_are_extra() -> None:
    plain = _json("results")
    search = {"search_id", "experiment", "metric", "mode", "best", "trials", "state"}
    assert set(plain) == search | {"better_than_default", "screen", "front", "plateau"}
    assert set(plain["trials"][0]) == {
        "trial",
        "state",
        "params",
        "best_value",
        "best_epoch",
        "epochs_run",
        "mlflow_run_id",
        "reason",
    }
    full = _json("results", "--details")
    assert full["validation_images"] == 50 and full["notes"]
    value, error = full["trials"][0]["best_value"], full["trials"][0]["standard_error"]
    assert error == pytest.approx((value * (1 - value) / 50) ** 0.5)


def test_filters_and_top() -> None:
    every = _json("results")["trials"]
    chosen = _json("results", "--where", "unfreeze_depth>=2", "--state", "pruned")["trials"]
    assert [t["trial"] for t in chosen] == [
        t["trial"] for t in every if t["state"] == "pruned" and t["params"]["unfreeze_depth"] >= 2
    ]
    assert _json("results", "--top", "3")["trials"] == every[:3]
    assert _json("results", "--where", "trial=0")["best"] == every[0]["trial"]  # the search's, whatever is shown


def test_a_wrong_filter_is_the_users_fault() -> None:
    done = CliRunner().invoke(app, ["results", "--where", "backbon=resnet18"])
    assert done.exit_code == 2 and "did you mean 'backbone'" in done.output and "Traceback" not in done.output
    assert CliRunner().invoke(app, ["results", "--top", "0"]).exit_code == 2


def test_the_table_has_errors_and_notes() -> None:
    text = _run("results")
    assert "±" in text and "rank" in text and "11.0M" in text
    assert f": {TRIALS} trials by best" in text
    assert f": 3 of {TRIALS} trials by best" in _run("results", "--top", "3")


def test_csv_goes_to_a_file(tmp_path: Path) -> None:
    _run("results", "--csv", str(tmp_path / "rows.csv"), "--top", "5")
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert len(rows) == 5 and rows[0]["rank"] == "1" and rows[0]["parameters"]
    done = CliRunner().invoke(app, ["results", "--csv", str(tmp_path / "no" / "such" / "folder.csv")])
    assert done.exit_code == 2 and "--csv must name a file in a folder that exists" in done.output


def test_report_writes_page_and_pictures(folder: Path, tmp_path: Path) -> None:
    made = _json("report", "--out", str(tmp_path / "out"))
    page = Path(made["page"])
    assert page == tmp_path / "out" / "report.html" and "is the best" in page.read_text()
    assert {"report.html", "leaderboard.csv", "plots/history.png", "plots/importance.png"} <= set(made["files"])
    assert all(Path(path).stat().st_size > 500 for path in made["files"].values())
    assert made["mlflow_run_id"] is None  # there is no such store, and none is made
    assert "keep_best" in made["skipped"]["model"] and "latency" in made["skipped"]
    assert not list(tmp_path.glob("absent.db"))


def test_report_goes_into_the_searchs_folder(folder: Path) -> None:
    text = _run("report", "--no-model")
    assert str(folder / "report" / "report.html") in text and "Left out here" in text
    assert (folder / "report" / "report.html").is_file()


@pytest.mark.parametrize("folds", [False, True])
def test_a_search_that_keeps_no_model_proposes_no_prediction(capsys: pytest.CaptureFixture[str], folds: bool) -> None:
    print_next_steps(Console(), "flowers-1", interrupted=False, folds=folds)
    shown = capsys.readouterr().out
    assert "tlsearch promote" in shown and ("tlsearch predict flowers-1" in shown) is not folds


@pytest.mark.parametrize("tried", [False, True])
def test_a_search_that_has_tried_its_space_proposes_no_more_trials(
    capsys: pytest.CaptureFixture[str], tried: bool
) -> None:
    print_next_steps(Console(), "flowers-1", interrupted=False, space_tried=tried)
    assert ("--trials +12" in capsys.readouterr().out) is not tried


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_list_leaves_columns_out_before_it_breaks_words(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.cli.session.out._width", width)
    text = _run("list")
    assert " val_accuracy " in text and " made-up " in text
    assert (" MB " in text, " started " in text) == (width > 60, width > 60)
    assert max(len(line) for line in text.splitlines() if line[0] in "┏│") <= width
