"""However a space file is broken, by hand, by a disk or on purpose: it loads, or its errors are listed."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from space_noise import noise
from test_space_mutations import FULL, SMALL

from tlsearch.core.errors import SpaceError
from tlsearch.space import load

SHIPPED = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))
MOST_TEXT = 2500  # letters of an error, its place included
MEMORY = 1_500_000_000


def texts() -> list[str]:
    return [SMALL, FULL, *(file.read_text(encoding="utf-8") for file in SHIPPED)]


def examine(folder: Path, seeds: range) -> None:
    """Loads mutants, as files and as overrides."""
    whole, seen = texts(), set()
    file = folder / "space.yaml"
    for seed in seeds:
        what, data = noise(whole, seed)
        file.write_bytes(data)
        try:
            load(file)
            seen.add("valid")
        except SpaceError as error:
            seen.add("faulty")
            assert error.faults, what
            assert all(one.line >= 1 and one.column >= 1 for one in error.faults if one.file and one.path), what
            assert max(len(str(one)) for one in error.faults) < MOST_TEXT, what
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
    assert seen == {"valid", "faulty"}


def test_a_hundred_broken_files(tmp_path: Path) -> None:
    examine(tmp_path, range(100))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_broken_files_in_bounded_memory(tmp_path: Path) -> None:
    code = f"from pathlib import Path; import test_space_noise as t; t.examine(Path({str(tmp_path)!r}), range(10_000))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_overrides_of_any_text_are_problems_or_taken(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SMALL)
    rng = random.Random(0)
    keys = ("search.trials", "space.head_lr", "space.backbone[0]", "a" * 5000, "[" * 3000, "name.0", "", "=", "..")
    for seed in range(60):
        _, data = noise([SMALL], seed)
        value = data.decode("utf-8", "replace")[: rng.choice((3, 40, 5000))]
        try:
            load(file, overrides=[f"{rng.choice(keys)}={value}"])
        except SpaceError as error:
            assert max(len(str(one)) for one in error.faults) < MOST_TEXT, seed
