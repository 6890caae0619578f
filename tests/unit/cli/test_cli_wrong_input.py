"""Commands and files as a new user gets them wrong: no traceback, exit code 2, and words that say how to go on."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from search_doubles import drive, make_plan
from small_search import write_shapes
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import SearchEntry, register
from tlsearch.cli.root import app

SPACE = """name: shapes
data: {source: folder, path: ./shapes}
weights: {resnet18: none}
space:
  backbone: resnet18
  unfreeze_depth: {int: [0, 3]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  backbone_lr: {log: [1.0e-6, 1.0e-3]}
search: {trials: 4, max_epochs: 2}
"""

# The command, and what its message says. The folder has shapes/ with images, empty/, space.yaml, notes.txt, photo.png
# and the finished search shapes-1.
COMMANDS = [
    ("chek space.yaml", "Did you mean 'check'"),
    ("run", "Missing argument 'FILE'"),
    ("run space.yml", "space.yml: the space file cannot be read: No such file or directory; did you mean space.yaml?"),
    ("run shapes", "it is a folder, not a file; for a folder of images, `tlsearch init shapes` writes a space file"),
    ("run photo.png", "photo.png:1:1: the file must be UTF-8 text"),
    ("run notes.txt", "notes.txt:1:1: the file must be a mapping, with keys such as name, data and space"),
    ("run space.yaml shapes", "unexpected extra argument"),
    ("run space.yaml --trails 8", "No such option: --trails (Possible options: --trials)"),
    ("run space.yaml --trials eight", "Invalid value for '--trials': must be a whole number, not 'eight'"),
    ("promote shapes-1 --max-latency-ms soon", "Invalid value for '--max-latency-ms': must be a number, not 'soon'"),
    ("run space.yaml --trials 0", "search.trials: must be at least 1, not 0"),
    ("run space.yaml --time-budget soon", "a duration is written like 2h, 30m, 90s or 1h30m, or as seconds"),
    ("run space.yaml --set trials=8", "the key 'trials' is not known; did you mean search.trials?"),
    ("run space.yaml --set search.trails=8", "did you mean 'trials'?"),
    ("run space.yaml --set search.trials", "an override is written KEY=VALUE, with KEY like search.trials"),
    ("run space.yaml --set search.trials=lots", "search.trials: must be a whole number, not 'lots'"),
    ("run space.yaml --data ./shape", "shape' does not exist (given by --data shape)"),
    ("run space.yaml --name 'my search'", "'my search' has ' ': choose another --name"),
    ("run space.yaml --or-resume", "--or-resume finds the search by its --name: give one"),
    ("check space.yaml --no-model --dry-run", "a dry run needs the models"),
    ("plan spaces.yaml", "did you mean space.yaml?"),
    ("init", "Missing argument 'DATA'"),
    ("init shape -o new.yaml", "shape does not exist; init takes a folder with one folder of images per class"),
    ("init photo.png -o new.yaml", "photo.png is a file; init takes a folder with one folder of images per class"),
    ("init empty -o new.yaml", "no class folders; images must stand in one folder per class"),
    ("init shapes/train/circle -o new.yaml", "no class folders; images must stand in one folder per class"),
    ("init shapes", "space.yaml exists already: --force replaces it, -o FILE writes another"),
    ("init shapes -o new/space.yaml", "--output must name a file in a folder that exists"),
    ("init shapes -o pipe --force", "--output must name a file, and pipe is a device or a pipe"),
    ("init shapes -o /proc/new.yaml", "--output must name a file that can be written; /proc/new.yaml"),
    ("init shapes -o new.yaml --minutes 0", "--minutes is above 0 and at most 5256000 (ten years), not 0"),
    ("init shapes -o new.yaml --minutes 9e9", "--minutes is above 0 and at most 5256000 (ten years), not 9e+09"),
    ("init shapes -o new.yaml --domain photo", "--domain is one of photos, drawings, documents, medical"),
    ("init shapes -o new.yaml --weights resnet18.pth", "--weights takes a file or a folder of weights"),
    ("results shapes", "no search 'shapes' in the catalogue of this user; the nearest is 'shapes-1'"),
    ("results zzz", "no search 'zzz' in the catalogue of this user; `tlsearch list` shows all"),
    ("results shapes-1 --where depth>=1", "no trial of this search has 'depth', only backbone, unfreeze_depth"),
    ("results shapes-1 --where backbone", "a condition is NAME=VALUE, or with != < <= > >="),
    ("results shapes-1 --state done", "complete"),
    ("results shapes-1 --top 0", "Invalid value for '--top'"),
    ("results shapes-1 --csv new/rows.csv", "--csv must name a file in a folder that exists"),
    ("resume space.yaml", "a space file is started by `tlsearch run`"),
    ("resume shapes-1 --trials more", "--trials takes N or +N"),
    ("resume shapes-1 --changed --stored", "give --changed (the file as it is now) or --stored (as it was), not both"),
    ("predict shapes-1", "give image files or folders"),
    ("predict shapes-1 nosuch.png", "the image file or folder nosuch.png does not exist"),
    ("predict shapes photo.png", "a model is a folder with a checkpoint.json, a trial's folder or an MLflow model"),
    ("predict shapes-1 photo.png", "`tlsearch rerun` trains a trial again"),
    ("promote shapes-1 --alias 'the best'", "an alias has letters, digits, _ and - only"),
    ("confirm shapes-1 --seeds 0", "Invalid value for '--seeds': must be at least 2, not"),
    ("export shapes-1", "Missing option '--format'"),
    ("export shapes-1 --format tflite", "a format is onnx, torch, openvino, hf or script, not 'tflite'"),
    ("export shapes-1 --format hf --int8", "--int8 belongs to the format onnx, not to hf"),
    ("export shapes-1 --format torch --push me/shapes", "--push belongs to the format hf, not to torch"),
    ("export shapes-1 --format hf --push me/my/shapes", "--push takes a repository of the Hub"),
    ("compare shapes-1", "Missing argument 'B'"),
    ("rerun shapes-1 --trial 99", "has 4 trials; trial 99 does not exist"),
    ("remove shapes-1", "give --yes to remove it without a question"),
    ("cache --clean", "No such option: --clean (Possible options: --clear)"),
    ("submit space.yaml", "Missing option '--address'"),
    ("list --storage nosuch", "nosuch is not a folder"),
    ("demo --folder photo.png", "--folder must name a folder; photo.png is a file"),
    ("schema -o new/schema.json", "--output must name a file in a folder that exists"),
]  # fmt: skip

# What stands in the space file in place of what, and what `check` says.
EDITS = [
    (SPACE, "", "the file is empty; a space file has at least name, data and space"),
    ("\n  backbone:", "\n\tbackbone:", "a tab may not indent: use spaces"),
    ("[0, 3]}", "[0, 3]", ":6:19: this is not valid YAML: while parsing a flow mapping"),
    ("name: shapes", "name:shapes", "in line 1, a colon and a blank follow the key: name: shapes"),
    ("name: shapes", "name shapes", "in line 1, a colon and a blank follow the key: name: shapes"),
    ("name: shapes", "name: shapes\nname: forms", "a key may stand only once; 'name' stands in line 1 too"),
    ("space:", "spaces:", ":4:1: spaces: the key 'spaces' is not known; did you mean 'space'?"),
    ("data: {source: folder, path: ./shapes}\n", "", "the key 'data' is required here"),
    ("source: folder", "source: dir", "must be folder, digits, manifest, torchvision or huggingface, not 'dir'"),
    (", path: ./shapes", "", "source folder needs a path: a folder with train/ and val/, or with one folder per class"),
    ("./shapes", "./shape", "shape' does not exist"),
    ("./shapes", "./photo.png", "photo.png' is a file"),
    ("./shapes", "./empty", "images must stand in one folder per class"),
    ("backbone: resnet18", "backbone: ResNet-18", "'ResNet-18' is not known; did you mean 'resnet18'?"),
    ("1.0e-4, 1.0e-1", "1.0e-1, 1.0e-4", "a range is written [low, high]; 0.1 is above 0.0001"),
    ("1.0e-4, 1.0e-1", "0, 1.0e-1", "a log range begins above 0, not at 0"),
    ("log: [1.0e-4", "loguniform: [1.0e-4", "it may be choice, from, int, float, log, step, when, ratio_of or screen"),
    ("[0, 3]", "[0, 9]", ":6:29: space.unfreeze_depth.int[1]: unfreeze_depth takes whole numbers from 0 to 5, not 9"),
    ("{int: [0, 3]}", "0", "backbone_lr has no effect where unfreeze_depth is 0"),
    ("  head_lr:", "  learning_rate:", "the dimension 'learning_rate' is not known; did you mean 'head_lr'?"),
    ("  head_lr:", "  optimizer: Adam\n  head_lr:", "optimizer takes adamw or sgd, not 'Adam'; did you mean 'adamw'?"),
    ("  head_lr:", "  bn_policy: freeze\n  head_lr:", "not 'freeze'; did you mean 'frozen'?"),
    ("max_epochs", "epochs", "the key 'epochs' is not known; did you mean 'max_epochs'?"),
    ("trials: 4", "trials: 4.5", "must be a whole number, not 4.5"),
    ("trials: 4", "metric: accuracy", "the metric 'accuracy' is not known; did you mean 'val_accuracy'?"),
    ("trials: 4", "time_budget: 2 hours", "a duration is written like 2h, 30m"),
    ("./shapes}", "./shapes, split: {val: 20%}}", "data.split.val: must be a number, not '20%'"),
    ("./shapes}", "./shapes, image_size: 224x224}", "must be auto or a number, not '224x224'"),
    ("{resnet18: none}", "imagenet", "weights: must be a mapping of keys to values, not 'imagenet'"),
    ("resnet18: none", "resnet18: ./resnet18.pth", "resnet18.pth' does not exist"),
    ("name: shapes", "name: !!python/name:os.system x", "tags are not allowed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wrong")
    drive(make_plan(root / "runs/shapes-1", trials=4, sampler="random"), slots=2)
    write_shapes(root / "shapes")
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe")
    (root / "space.yaml").write_text(SPACE)
    (root / "notes.txt").write_text("buy flowers\n")
    (root / "photo.png").write_bytes((root / "shapes/train/circle/00.png").read_bytes())
    return root


@pytest.fixture(autouse=True)
def _registered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    entry = SearchEntry(
        search_id="shapes-1",
        experiment="shapes",
        directory=str(folder / "runs/shapes-1"),
        source="",
        tracking_uri=f"sqlite:///{folder}/absent.db",
        metric="val_accuracy",
        created=0.0,
    )
    register(entry)


def _message(*arguments: str) -> str:
    """What a wrong command prints, in one line."""
    done = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(app, arguments)
    assert isinstance(done.exception, SystemExit), f"{done.output}\n{done.exception!r}"
    assert done.exit_code == 2, done.output
    return re.sub(r"[\s│]+", " ", done.output)


@pytest.mark.parametrize(("command", "words"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_wrong_command_says_how_to_go_on(folder: Path, command: str, words: str) -> None:
    before = sorted(folder.iterdir())
    assert words in _message(*shlex.split(command))
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(("right", "wrong", "words"), EDITS, ids=[words for _, _, words in EDITS])
def test_a_wrong_file_says_how_to_go_on(folder: Path, tmp_path: Path, right: str, wrong: str, words: str) -> None:
    assert SPACE.count(right) == 1
    file = folder / "wrong.yaml"
    file.write_text(SPACE.replace(right, wrong))
    try:
        message = _message("check", file.name, "--no-model")
    finally:
        file.unlink()
    assert words in message and "wrong.yaml:" in message


def test_errors_of_a_file_and_their_number_go_to_standard_error(folder: Path) -> None:
    done = CliRunner().invoke(app, ["check", "notes.txt"])
    assert done.exit_code == 2 and done.stdout == ""
    assert "the file must be a mapping" in done.stderr and done.stderr.endswith("1 error\n")


def test_a_name_that_no_file_can_have_is_an_error_without_a_traceback() -> None:
    done = CliRunner().invoke(app, ["export", "x" * 300, "--format", "onnx"])
    assert done.exit_code == 1 and done.stderr.endswith("x: File name too long: give a shorter path\n")


def test_what_the_models_break_is_said_before_an_early_ray_has_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def starting_ray(address: str) -> Iterator[None]:
        typer.echo("Ray begins")
        try:
            yield
        finally:
            typer.echo("Ray ends")

    monkeypatch.setattr("tlsearch.search.starting_ray", starting_ray)
    message = _message("run", "space.yaml", "--set", "search.constraints={params_millions: {max: 1}}")
    assert re.search("Ray begins .*params_millions.* Ray ends", message), message
