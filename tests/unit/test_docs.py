"""The documentation is true where a program can tell: its messages, tests and links exist, and the site builds."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.cli.root import app

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


def test_each_file_that_the_map_of_the_rooms_names_exists() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", (DOCS / "architecture.md").read_text("utf-8")))
    assert len(named) >= 25
    assert not [name for name in named if not ((ROOT / name).is_file() or (ROOT / "tlsearch" / name).is_file())]


def _written_commands() -> list[str]:
    """Every command line of ours in the pages, without its comment and its pipe."""
    pages = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    lines = [
        line
        for page in pages
        if page.name != "commands.md"  # its usage lines have brackets, its examples a test of their own
        for line in re.findall(r"^(?:    |\$ )(tlsearch .*)$", page.read_text("utf-8"), re.MULTILINE)
    ]
    return sorted({re.split(r" [|>] |\s+# ", line)[0].strip() for line in lines})


def test_each_written_command_is_one_that_the_command_line_takes() -> None:
    root: Any = typer.main.get_command(app)
    written = _written_commands()
    assert len(written) >= 40
    context = root.make_context("tlsearch", [], resilient_parsing=True)
    for line in written:
        name, *arguments = shlex.split(line)[1:]
        if not name.startswith("-"):
            root.get_command(context, name).make_context(name, arguments)


def test_each_command_of_the_tutorial_has_what_it_printed() -> None:
    page = (DOCS / "tutorial.md").read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    assert not [block for block in blocks if not re.match(r"\$ [^\n]+\n[^$]", block)], "make docs writes it"
    assert "registered" in page and "Traceback" not in page


def test_a_page_is_run_and_written_with_what_it_prints(tmp_path: Path) -> None:
    executed = runpy.run_path(str(DOCS / "run_tutorial.py"))["executed"]
    code = "```python\nopen('a.txt', 'w').write('1\\n2\\n')\n```\n"
    page = code + "Then\n```console\n$ cat a.txt\nold\n$ pwd\n```\n    $ not run\n"
    assert executed(page, tmp_path) == page.replace("old", "1\n2").replace("$ pwd", "$ pwd\n/home/you/tutorial")
    with pytest.raises(RuntimeError, match="cat b.txt ended with 1:\n.*No such file"):
        executed("```console\n$ cat b.txt\n```\n", tmp_path)


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
