"""The documentation is true where a program can tell: its messages, tests and links exist, and the site builds."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_each_message_of_troubleshooting_is_one_of_ours() -> None:
    source = "".join(path.read_text("utf-8") for path in sorted((ROOT / "tlsearch").rglob("*.py")))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)  # texts that are written in several pieces
    cells = re.findall(r"^\| (`.*?) \|", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(messages) >= 15
    assert not [message for message in messages if message not in joined]


def test_each_promise_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", (DOCS / "promises.md").read_text("utf-8"))
    assert len(named) >= 15
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text("utf-8"), (file, test)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr[-3000:]
    assert "open_search" in (tmp_path / "site/api/index.html").read_text("utf-8")
