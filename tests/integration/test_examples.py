"""The examples run as they are: two scripts and the notebook, shortened by their number of trials."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from homes import Home, need_demo_weights, write_digit_images

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    need_demo_weights()
    return Home(tmp_path)


def script(home: Home, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=home.environment,
        cwd=home.root,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_folder_of_images(home: Home) -> None:
    write_digit_images(home.root / "images", per_class=20)
    printed = script(home, "images_in_folders.py", "images", "1")
    assert "best of 1 trials: 0." in printed and "report.html" in printed
    assert printed.count(".png: ") == 3


@pytest.mark.slow
def test_a_table_of_labels(home: Home) -> None:
    write_digit_images(home.root / "images", per_class=20)
    images = sorted((home.root / "images").rglob("*.png"))
    rows = [f"{path.relative_to(home.root)},{path.parent.name}" for path in images]
    (home.root / "table.csv").write_text("\n".join(["path,label", *rows, f"{images[0].relative_to(home.root)},rare"]))
    printed = script(home, "table_of_labels.py", "table.csv", "1")
    assert "10 classes" in printed and "unfreeze_depth" in printed


def test_the_notebook(home: Home) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    book = nbformat.read(EXAMPLES / "search_in_a_notebook.ipynb", as_version=4)
    kernel = home.root / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    manager = nbclient.NotebookClient(book, timeout=500, resources={"metadata": {"path": str(home.root)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home.root / "jupyter"))
        for name, value in home.environment.items():
            patch.setenv(name, value)
        manager.execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", [])]
    texts = [str(output.get("data", {})) for output in shown]
    assert any("4 trials ended" in text for text in texts), "the live table of the resumed search"
    assert any("finished, 4 trials" in text for text in texts) and any("image/png" in text for text in texts)
    assert any("Prediction(path='image 0', label='0'" in text for text in texts)
