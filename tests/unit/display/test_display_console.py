"""Names are data on the terminal: no markup, no emoji codes, no control characters, whatever the encoding."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import rich.console
from hypothesis import given
from hypothesis import strategies as st

import tlsearch
from tlsearch.app.checks.check_file import CheckedBackbone
from tlsearch.cli.tables.data_tables import backbone_table, data_lines, data_table, prediction_table
from tlsearch.core.printable import printable
from tlsearch.core.types import ModelSpec
from tlsearch.data.inspect.data_card import DataCard, ImagePair, ImagePlace, SplitCounts
from tlsearch.display.console import Console, Table
from tlsearch.model import WeightsCard, describe_model
from tlsearch.results.inference.predictor import Prediction
from tlsearch.space import backbone_facts

MARKUP = [
    "[red]cat",
    "[/b] cow",
    "[old] dog",
    "IMG [copy].png",
    "[link=x]a[/link]",
    ":cat: :heart:",
    "[@click=f]x",
    "\\[b]",
]
names = st.one_of(
    st.sampled_from(MARKUP),
    st.text(st.characters(categories=("Cc", "Cf", "Cs", "Ll", "Zl", "So", "Ps", "Pe")), min_size=1, max_size=12),
)


def _shown(*renderables: Any) -> str:
    """What a console prints, wide enough for every table."""
    console = Console(stderr=False)
    console.file, console.width = io.StringIO(), 4000
    for one in renderables:
        console.print(one)
    return console.file.getvalue()


def _clean(text: str) -> bool:
    return not any(unicodedata.category(one) in ("Cc", "Cs") for one in text.replace("\n", ""))


def _card(label: str) -> DataCard:
    place = ImagePlace(path=label, split="train", label=label)
    return DataCard(
        source="folder",
        classes=(label,),
        digest="",
        splits={"train": SplitCounts(images=1, per_class={label: 1})},
        imbalance=1.0,
        leaks=(ImagePair(kind="exact", first=place, second=place),),
    )


@given(names)
def test_no_name_is_obeyed_in_a_table_or_a_line(name: str) -> None:
    prediction = Prediction(path=f"in/{name}", label=name, score=0.5, top=())
    card = _card(name)
    text = _shown(data_table(card), *data_lines(card), prediction_table([prediction]))
    assert _clean(text)
    shown = printable(name)
    # rich cuts blanks at a cell's ends, and a combining mark has no cell of its own
    assert "".join(shown.split()) in "".join(text.split())


@pytest.mark.parametrize("name", MARKUP)
def test_markup_in_a_name_is_shown_as_it_is(name: str) -> None:
    assert _shown(name) == f"{name}\n"
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    assert _shown(table).count(name) == 3


def test_a_titles_own_name_is_data_too() -> None:
    backbone = CheckedBackbone(
        described=describe_model(ModelSpec(backbone="resnet18", num_classes=2)),
        weights=WeightsCard(id="file:[red]my.pth"),
        facts=backbone_facts("resnet18"),
    )
    assert "file:[red]my.pth" in _shown(backbone_table(backbone))


@pytest.mark.parametrize("where", ["title", "caption"])
def test_a_table_is_as_wide_as_its_title_and_caption(where: str) -> None:
    table = Table(**{where: "longer than the only row of it"})
    table.add_column("a")
    table.add_row("b")
    for width in (80, 20):
        text = io.StringIO()
        rich.console.Console(file=text, width=width).print(table)
        assert ("longer than the only row of it" in text.getvalue()) == (width == 80)


def test_one_place_makes_tables_and_consoles() -> None:
    makers = re.compile(r"rich\.table|from rich import|rich\.console import .*\bConsole\(|\brich\.print")
    folder = Path(tlsearch.__file__).parent
    wrong = [one.name for one in folder.rglob("*.py") if one.name != "console.py" and makers.search(one.read_text())]
    assert wrong == [], "tables come from tlsearch.display.console, where names are data"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_ends_a_command(encoding: str, tmp_path: Path) -> None:
    from PIL import Image

    for label in ("кот", "[red]猫", "b\x1b[2Jad"):
        for number in range(6):
            folder = tmp_path / "d" / label
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (number, 9, 9)).save(folder / f"{number}.png")
    (tmp_path / "space.yaml").write_text(
        "name: n\ndata: {source: folder, path: ./d, split: {val: 0.2, test: 0}}\nweights: {resnet18: none}\n"
        "space: {backbone: resnet18, head_init: random}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tlsearch", "check", "--no-model", "space.yaml"],
        capture_output=True,
        cwd=tmp_path,
        env={"PYTHONIOENCODING": encoding, "PATH": "", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert b"Traceback" not in done.stderr and done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "\x1b" not in text and "b\\x1b[2Jad" in text
    assert ("кот" if encoding == "utf-8" else "\\u043a\\u043e\\u0442") in text
