"""Runs the tutorial: every command in a new folder, with what it prints written below it.

    python docs/run_tutorial.py docs/tutorial.md

Code of ``python`` blocks runs as it is. In ``console`` blocks a line that begins with ``$`` is a command, the lines
below it are what it printed in the last run. A command that fails ends the run, and the page stays as it was.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = "/home/you/tutorial"  # in place of the folder it ran in
_OWN = ("TLSEARCH_", "MLFLOW_", "RAY_", "XDG_")  # settings of the user's that a newcomer has not made


def executed(page: str, folder: Path) -> str:
    """The page after its commands have run in ``folder``.

    Raises:
        RuntimeError: A command failed; the message has what it printed.
    """
    folder = folder.resolve()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**kept, "HOME": str(folder), "PATH": path, "COLUMNS": "100"}

    def output(command: list[str], written: str) -> list[str]:
        print(f"$ {written}", file=sys.stderr, flush=True)
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{written} ended with {done.returncode}:\n{done.stdout}")
        return [line.rstrip() for line in done.stdout.strip().replace(str(folder), _SHOWN).splitlines()]

    def run(block: re.Match[str]) -> str:
        kind, text = block[1], block[2]
        if kind == "python":
            output([sys.executable, "-c", text], "python")
            return block[0]
        lines = []
        for line in text.splitlines():
            if line.startswith("$ "):
                lines += [line, *output(["bash", "-c", line[2:]], line[2:])]
        return "\n".join(["```console", *lines, "```"])

    return _BLOCK.sub(run, page)


def main(page: Path) -> None:
    """Runs a page and writes it again."""
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        text = executed(page.read_text("utf-8"), Path(folder))
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
