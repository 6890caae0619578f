"""Types, defaults and rules of every key of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from space_files import load_space_file

from tlsearch.config import AshaSpec, SpaceFile, dump_resolved, parse_space_file
from tlsearch.config.forms import FORMS, hints_of
from tlsearch.config.values import AnyScalar, parse_duration
from tlsearch.core.errors import SpaceError, SpaceProblem
from tlsearch.core.types import WeightsSource
from tlsearch.space import load
from tlsearch.space.dimensions import PARAMETERS

BASE: dict[str, Any] = {"name": "digits", "data": {"source": "digits"}, "space": {"backbone": "resnet18"}}

ASHA = "search.scheduler.asha"
LATE = {"asha": {"grace_period": 9}}


def write(folder: Path, *parts: dict[str, Any], text: str = "") -> Path:
    path = folder / "space.yaml"
    path.write_text(text or yaml.safe_dump({key: value for part in parts for key, value in part.items()}))
    return path


def read(folder: Path, *parts: dict[str, Any]) -> SpaceFile:
    return load_space_file(write(folder, BASE, *parts))


def problems(folder: Path, *parts: dict[str, Any], text: str = "") -> tuple[SpaceProblem, ...]:
    with pytest.raises(SpaceError) as caught:
        load_space_file(write(folder, BASE, *parts, text=text))
    return caught.value.faults


def test_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    file = read(tmp_path)
    assert file.search.trials == 64 and file.search.max_epochs == 20
    assert file.search.scheduler == AshaSpec(grace_period=1, reduction_factor=3, brackets=1)
    assert (file.search.metric, file.search.sampler, file.search.on_budget) == ("val_accuracy", "tpe", "cut")
    assert (file.search.max_failures, file.search.max_failed_trials, file.search.seed) == (2, 5, 0)
    assert file.search.time_budget_s is None and file.search.start_with == ()
    assert file.data.split.val == file.data.split.test == 0.15 and file.data.image_size is None
    assert file.resources.gpus_per_trial is None and file.resources.cpus_per_trial == 1
    assert file.tracking.uri == f"sqlite:///{tmp_path}/mlflow.db" and file.tracking.keep_best == 3
    assert file.storage == str(tmp_path / "tlsearch_runs")
    assert file.weights == {}


@pytest.mark.parametrize("section", ["search", "resources", "cache", "tracking", "weights"])
def test_a_section_with_all_lines_commented_out_is_all_defaults(tmp_path: Path, section: str) -> None:
    assert read(tmp_path, {section: None}) == read(tmp_path)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2h", 7200),
        ("30m", 1800),
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1h 1m 1s", 3661),
        (90, 90),
        (1.5, 1.5),
    ],
)
def test_durations(written: str | int | float, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "h", "2", "30m1h", "-2h", "0s", "1:30", "2 hours", 0, -1, True, float("nan")])
def test_what_is_no_duration(written: Any) -> None:
    with pytest.raises(ValueError, match="2h, 30m, 90s or 1h30m"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("none", None),
        (None, None),
        ("asha", AshaSpec()),
        ({"asha": None}, AshaSpec()),
        ({"asha": {"grace_period": 2, "reduction_factor": 4}}, AshaSpec(grace_period=2, reduction_factor=4)),
    ],
)
def test_schedulers(tmp_path: Path, written: Any, expected: AshaSpec | None) -> None:
    assert read(tmp_path, {"search": {"scheduler": written}}).search.scheduler == expected


@pytest.mark.parametrize(
    ("section", "values", "path", "words"),
    [
        ("search", {"trials": "12"}, "search.trials", "a whole number, not '12'"),
        ("search", {"trials": 3.0}, "search.trials", "a whole number, not 3.0"),
        ("search", {"trials": True}, "search.trials", "a whole number, not true"),
        ("search", {"trials": 0}, "search.trials", "at least 1, not 0"),
        ("search", {"trials": None}, "search.trials", "a whole number, not null"),
        ("search", {"trails": 3}, "search.trails", "did you mean 'trials'"),
        ("search", {"starting_points": "yes"}, "search.starting_points", "auto"),
        ("search", {"metric": "val_acc"}, "search.metric", "did you mean 'val_accuracy'"),
        ("search", {"metric": ["val_loss"]}, "search.metric", "not known"),
        ("search", {"metric": ["val_loss", "latency_ms"]}, "search.metric", "are `objectives`"),
        ("search", {"sampler": "tep"}, "search.sampler", "did you mean 'tpe'"),
        ("search", {"sampler": "fixed"}, "search.sampler", "start_with, which has none"),
        ("search", {"scheduler": "ahsa"}, "search.scheduler", "none or {asha: ...}, not 'ahsa'"),
        ("search", {"scheduler": {"hyperband": {}}}, "search.scheduler", "not 'hyperband'"),
        ("search", {"scheduler": {"asha": 3}}, "search.scheduler", "mapping"),
        ("search", {"scheduler": {"asha": {"grace": 3}}}, f"{ASHA}.grace", "'grace_period'"),
        ("search", {"scheduler": LATE, "max_epochs": 3}, f"{ASHA}.grace_period", "at most max_epochs, 3 (line"),
        ("search", {"start_with": {"head_lr": 1}}, "search.start_with", "a list"),
        ("search", {"start_with": [3]}, "search.start_with[0]", "mapping"),
        ("search", {"start_with": [{"head_lr": [1]}]}, "search.start_with[0].head_lr", "single value"),
        ("search", {"start_with": [{}, {}, {}], "trials": 2}, "search.trials", "3 entries of start_with"),
        ("search", {"seed": -1}, "search.seed", "at least 0"),
        ("search", {"time_budget": "1:30"}, "search.time_budget", "1h30m"),
        ("resources", {"gpus_per_trial": 2}, "resources.gpus_per_trial", "at most 1, not 2"),
        ("resources", {"gpus_per_trial": float("nan")}, "resources.gpus_per_trial", "finite"),
        ("resources", {"max_concurrent": "all"}, "resources.max_concurrent", "auto or a number"),
        ("resources", {"precision": "fp8"}, "resources.precision", "auto, fp32, bf16 or fp16"),
        ("cache", {"images_gb": -1}, "cache.images_gb", "at least 0"),
        ("cache", {"feature_precision": "quarter"}, "cache.feature_precision", "full or half"),
        ("cache", {"views": 0}, "cache.views", "at least 1"),
        ("tracking", {"keep_best": 0}, "tracking.keep_best", "at least 1"),
        ("tracking", {"uri": "./mlruns"}, "tracking.uri", "sqlite:///FILE"),
        ("tracking", {"uri": "sqlite://"}, "tracking.uri", "sqlite:///FILE"),
        ("tracking", {"uri": "sqlite:///:memory:"}, "tracking.uri", "needs a file"),
        ("data", {"source": "digit"}, "data.source", "did you mean 'digits'"),
        ("data", {"source": "digits", "path": "x"}, "data.path", "takes no path"),
        ("data", {"source": "folder"}, "data.source", "needs a path"),
        ("data", {"source": "folder", "path": "absent"}, "data.path", "does not exist"),
        ("data", {"source": "digits", "image_size": "big"}, "data.image_size", "auto or a number"),
        ("data", {"source": "digits", "image_size": 1.5}, "data.image_size", "whole number"),
        ("data", {"source": "digits", "split": {"val": 1.5}}, "data.split.val", "below 1"),
        ("data", {"source": "digits", "split": {"val": 0.5, "test": 0.5}}, "data.split.val", "val + test"),
        ("data", {"source": "digits", "split": {"group_by": "("}}, "data.split.group_by", "regular expression"),
        ("data", {"source": "digits", "split": {"group_by": "a"}}, "data.split.group_by", "paths of a folder"),
        ("data", {"source": "digits", "split": {"group_by": "a"}, "download": False}, "data.split.group_by", "paths"),
        ("data", {"source": "digits", "name": "x"}, "data.name", "source digits has no name; it has 'x'"),
        ("data", {"source": "digits", "download": True}, "data.download", "source digits has no download"),
        ("data", {"source": "digits", "download": "yes"}, "data.download", "true or false, not 'yes'"),
        ("data", {"source": "digits", "label_column": "x"}, "data.label_column", "has no label_column"),
        ("data", {"source": "manifest"}, "data.source", "needs a path: a .csv, .tsv or .parquet file"),
        ("data", {"source": "manifest", "path": "a.csv"}, "data.path", "does not exist"),
        ("data", {"source": "manifest", "path": "space.yaml"}, "data.path", "or .parquet, not '.yaml'"),
        ("data", {"source": "torchvision"}, "data.source", "needs a name"),
        ("data", {"source": "torchvision", "name": 3}, "data.name", "text"),
        ("data", {"source": "torchvision", "name": "A", "path": "space.yaml"}, "data.path", "is a file"),
        ("data", {"source": "torchvision", "name": "A", "options": {"a": [1]}}, "data.options.a", "single value"),
        ("data", {"source": "torchvision", "name": "A", "options": 3}, "data.options", "mapping"),
        ("data", {"source": "torchvision", "name": "A", "image_column": "x"}, "data.image_column", "has no"),
        ("data", {"source": "huggingface"}, "data.source", "needs either a name"),
        ("data", {"source": "huggingface", "path": "absent"}, "data.path", "does not exist"),
        ("data", {"source": "huggingface", "path": ".", "name": "x"}, "data.source", "needs either a name"),
        ("search", {"stop": "maybe"}, "search.stop", "auto"),
        ("weights", {"resnet18": "absent.pth"}, "weights.resnet18", "does not exist"),
        ("weights", {"resnet18": "space.yaml"}, "weights.resnet18", "ends in .pth"),
        ("weights", {"resnet18": None}, "weights.resnet18", "not empty"),
        ("weights", {"resnet18": "ftp://host/w.pth"}, "weights.resnet18", "https://HOST/FILE or s3://BUCKET/FILE"),
        ("weights", {"resnet18": "https://host/"}, "weights.resnet18", "https://HOST/FILE"),
        ("weights", {"resnet18": "https://me:secret@host/w.pth"}, "weights.resnet18", "not 'https://***@host"),
        ("weights", {"resnet18": {"path": "s3://bucket/w.zip"}}, "weights.resnet18.path", "ends in .pth"),
        ("weights", {"resnet18": {"match": "order"}}, "weights.resnet18", "either a path, or a package"),
        ("weights", {"resnet18": {"package": "yaml"}}, "weights.resnet18.package", "needs file"),
        ("weights", {"resnet18": {"package": "absent", "file": "a.pth"}}, "weights.resnet18.package", "not installed"),
        ("weights", {"resnet18": {"package": "../yaml", "file": "a.pth"}}, "weights.resnet18.package", "import name"),
        ("weights", {"resnet18": {"package": "yaml", "file": "a.pth"}}, "weights.resnet18.file", "no file"),
        ("weights", {"resnet18": {"package": "yaml", "file": "../x.pth"}}, "weights.resnet18.file", "inside"),
        ("weights", {"resnet18": {"path": "a.pth", "package": "yaml"}}, "weights.resnet18", "either"),
    ],
)  # fmt: skip
def test_each_wrong_value_is_one_problem(
    tmp_path: Path, section: str, values: dict[str, Any], path: str, words: str
) -> None:
    found = problems(tmp_path, {section: values})
    assert [problem.dotted for problem in found] == [path]
    assert words in found[0].message
    assert found[0].line > 0 and found[0].file.endswith("space.yaml")


def test_defaults_may_be_written_out(tmp_path: Path) -> None:
    search = {"constraints": {}, "patience": None, "trial_timeout": None, "study": "auto"}
    search |= {"starting_points": "auto", "scheduler": {"asha": {"brackets": 1}}}
    written = read(tmp_path, {"search": search, "cache": {"views": 1}})
    assert written == read(tmp_path)


def test_images_in_a_bucket(tmp_path: Path) -> None:
    for source, address in (("folder", "s3://bucket/images"), ("manifest", "s3://bucket/images/list.csv")):
        assert read(tmp_path, {"data": {"source": source, "path": address}}).data.path == address
    for source, address in (("folder", "https://me:pw@host/images"), ("torchvision", "s3://bucket/sets")):
        found = problems(tmp_path, {"data": {"source": source, "name": None, "path": address}})
        (problem,) = [one for one in found if "images elsewhere" in one.message]
        assert "are an s3:// address, of source folder or manifest" in problem.message and "pw@" not in problem.message


def test_a_storage_in_a_bucket_needs_a_study_in_a_database(tmp_path: Path) -> None:
    study = {"study": "postgresql://me@db/studies"}
    assert read(tmp_path, {"storage": "s3://bucket/runs", "search": study}).storage == "s3://bucket/runs"
    (problem,) = problems(tmp_path, {"storage": "s3://bucket/runs"})
    assert problem.dotted == "search.study" and "name a database, postgresql://USER@HOST/DATABASE" in problem.message
    (problem,) = problems(tmp_path, {"storage": "https://me:pw@host/runs", "search": study})
    assert problem.dotted == "storage" and "s3://BUCKET/PREFIX" in problem.message and "pw@" not in problem.message


@pytest.mark.parametrize("url", ["https://host:8080/a/w.pth?x=1#sha256=0", "s3://bucket/w.safetensors"])
def test_weights_may_have_an_address(tmp_path: Path, url: str) -> None:
    found = read(tmp_path, {"weights": {"resnet18": url, "resnet34": {"path": url, "match": "order"}}}).weights
    assert found["resnet18"] == WeightsSource(kind="url", url=url)
    assert found["resnet34"] == WeightsSource(kind="url", url=url, match="order")


def test_what_ends_a_trial_early_is_read(tmp_path: Path) -> None:
    search = read(
        tmp_path, {"search": {"scheduler": {"asha": {"brackets": 2}}, "patience": 3, "trial_timeout": "1h"}}
    ).search
    assert search.scheduler is not None
    assert (search.scheduler.brackets, search.patience, search.trial_timeout_s) == (2, 3, 3600.0)
    assert "at least 1" in problems(tmp_path, {"search": {"patience": 0}})[0].message


def test_folds_are_off_with_0_or_1_and_count_in_place_of_epochs(tmp_path: Path) -> None:
    for value, folds, reports in ((0, 0, 20), (1, 0, 20), (5, 5, 5)):
        file = read(tmp_path, {"search": {"folds": value}})
        assert (file.search.num_folds, file.search.num_reports, file.trial_setup().folds) == (folds, reports, folds)
    (problem,) = problems(tmp_path, {"search": {"folds": 3, "scheduler": {"asha": {"grace_period": 4}}}})
    assert "grace_period may be at most folds, 3" in problem.message
    (problem,) = problems(tmp_path, {"search": {"n_splits": 5}})
    assert "folds" in problem.message


@pytest.mark.parametrize(
    "url", ["auto", "postgresql://me@host:5432/db", "postgresql+psycopg2://host/db", "mysql://host/db"]
)
def test_a_study_is_in_the_folder_or_in_a_database(tmp_path: Path, url: str) -> None:
    assert read(tmp_path, {"search": {"study": url}}).search.study == url


def test_a_study_in_sqlite_has_an_absolute_path(tmp_path: Path) -> None:
    assert (
        read(tmp_path, {"search": {"study": "sqlite:///s/team.db"}}).search.study == f"sqlite:///{tmp_path}/s/team.db"
    )


@pytest.mark.parametrize("url", ["redis://host/0", "team.db", "sqlite:///:memory:", "http://me:secret@host"])
def test_a_study_elsewhere_is_a_problem_that_shows_no_password(tmp_path: Path, url: str) -> None:
    (problem,) = problems(tmp_path, {"search": {"study": url}})
    assert problem.dotted == "search.study" and "secret" not in problem.message


def test_constraints_are_read_and_written_again(tmp_path: Path) -> None:
    written = {"search": {"constraints": {"params_millions": {"max": 30}, "latency_ms": {"max": 2.5}}}}
    file = read(tmp_path, written)
    assert dict(file.search.constraints.limits) == {"params_millions": 30.0, "latency_ms": 2.5}
    again = tmp_path / "again.yaml"
    again.write_text(dump_resolved(file))
    assert load_space_file(again) == file


@pytest.mark.parametrize(
    ("constraints", "dotted", "words"),
    [
        ({"parms_millions": {"max": 3}}, "search.constraints.parms_millions", "did you mean 'params_millions'?"),
        ({"latency_ms": {"min": 3}}, "search.constraints.latency_ms.min", "the key 'min' is not known"),
        ({"latency_ms": {}}, "search.constraints.latency_ms.max", "'max' is required"),
        ({"latency_ms": {"max": 0}}, "search.constraints.latency_ms.max", "above 0"),
        ({"latency_ms": 3}, "search.constraints.latency_ms", "must be a mapping"),
        ([], "search.constraints", "must be a mapping"),
    ],
)
def test_a_wrong_constraint_is_one_problem(tmp_path: Path, constraints: Any, dotted: str, words: str) -> None:
    (problem,) = problems(tmp_path, {"search": {"constraints": constraints}})
    assert problem.dotted == dotted and words in problem.message


def test_a_misspelt_required_key_is_one_problem(tmp_path: Path) -> None:
    found = problems(tmp_path, text="name: a\ndta: {source: digits}\nspace: {backbone: resnet18}\n")
    assert [(problem.dotted, problem.line) for problem in found] == [("dta", 2)]


def test_missing_required_keys_are_listed(tmp_path: Path) -> None:
    found = problems(tmp_path, text="data: {}\n")
    assert sorted(problem.dotted for problem in found) == ["data.source", "name", "space"]


def test_a_name_is_text(tmp_path: Path) -> None:
    assert "put it in quotes" in problems(tmp_path, {"name": 2024})[0].message
    for name in ("", " a", "a/b", "a\nb", "x" * 101):
        assert problems(tmp_path, {"name": name})[0].dotted == "name"


def test_faulty_places_hold_defaults_and_are_known_as_doubtful(tmp_path: Path) -> None:
    file, found = parse_space_file(write(tmp_path, BASE, {"search": {"trials": "x", "seed": 3}}))
    assert file is not None and len(found) == 1
    assert file.search.trials == 64 and file.search.seed == 3
    assert file.document.doubtful(("search", "trials")) and not file.document.doubtful(("search", "seed"))


def test_seeds_repeat_the_entries_of_a_fixed_search_only(tmp_path: Path) -> None:
    fixed = {"search": {"sampler": "fixed", "start_with": [{"head_lr": 1.0e-3}], "seeds": 3}}
    assert read(tmp_path, fixed).search.seeds == 3
    (problem,) = problems(tmp_path, {"search": {"seeds": 3}})
    assert problem.path == ("search", "seeds") and "goes with fixed" in problem.message


# --- bounds of every number -----------------------------------------------------------------

# Numbers for which a value below 0, NaN, infinity or 10^12 makes sense, with the reason.
UNBOUNDED: dict[str, str] = {}


def _has_number(hint: Any) -> bool:
    if hint is AnyScalar or get_origin(hint) is Literal:
        return False
    return hint in (int, float) or any(_has_number(one) for one in get_args(hint) if one is not bool)


def numbers() -> list[str]:
    """The dotted path of every key of the file that takes a number."""
    found = []
    for path, form in FORMS.items():
        for key, hint in hints_of(form).items():
            alias = next((one.alias for one in getattr(hint, "__metadata__", ()) if getattr(one, "alias", None)), key)
            if not key.startswith("__") and _has_number(hint):
                found.append(".".join("latency_ms" if part == "*" else part for part in (*path, alias)))
    return sorted(found)


def test_the_numbers_of_the_file_are_found() -> None:
    assert {
        "data.max_pixels", "data.split.val", "data.split.seed", "search.trials", "search.time_budget",
        "search.scheduler.asha.brackets", "search.constraints.latency_ms.max", "resources.gpus_per_trial",
        "cache.images_gb", "tracking.keep_best", "defaults.batch_size", "search.seed",
    } <= set(numbers())  # fmt: skip


@pytest.mark.parametrize("value", [10**12, -1, float("nan"), float("inf"), -float("inf"), 1e300, 2**62, True])
@pytest.mark.parametrize("path", numbers())
def test_every_number_has_bounds(tmp_path: Path, path: str, value: float) -> None:
    if path in UNBOUNDED:
        return
    tree: dict[str, Any] = {}
    inner = tree
    *parents, key = path.split(".")
    for part in parents:
        inner = inner.setdefault(part, {})
    inner[key] = value
    if parents[:1] == ["data"]:
        tree["data"].setdefault("source", "digits")
    found = problems(tmp_path, tree)
    assert path in [problem.dotted for problem in found], [str(problem) for problem in found]


@pytest.mark.parametrize("value", [10**12, -1e300, float("nan"), float("inf"), 2**62])
@pytest.mark.parametrize("name", [name for name, one in PARAMETERS.items() if one.kind != "choice"])
def test_every_number_of_the_space_has_bounds(tmp_path: Path, name: str, value: float) -> None:
    assert PARAMETERS[name].problem(value) is not None
    for written in (value, [value], {"int": [0, value]}, {"float": [0, value]}):
        with pytest.raises(SpaceError):
            load(write(tmp_path, {**BASE, "space": {"backbone": "resnet18", name: written}}))


def test_repeats_are_bounded_together(tmp_path: Path) -> None:
    entries = [{"backbone": "resnet18", "head_lr": (i + 1) / 1000} for i in range(200)]
    [problem] = problems(
        tmp_path, {"search": {"sampler": "fixed", "seeds": 1000, "trials": 10**6, "start_with": entries}}
    )
    assert problem.dotted == "search.seeds" and "make at most 100,000 trials, not 200,000" in problem.message


def test_a_pattern_is_short(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    data = {"source": "folder", "path": "images", "split": {"group_by": "a" * 1001}}
    [problem] = problems(tmp_path, {"data": data})
    assert "has at most 1,000 characters, not 1,001" in problem.message
