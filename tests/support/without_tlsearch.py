"""A script run in an environment of a few packages, without tlsearch: what an exported model meets elsewhere.

Nothing is downloaded: the environment links what is installed here of the packages that it names and of what they
require, and holds nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def run_without_tlsearch(script: Path, *arguments: str, cwd: Path, packages: Sequence[str]) -> str:
    """Runs a Python script to its end; gives its standard output.

    Args:
        packages: That the script may import, with what they require.
    """
    command = [str(environment_of(cwd, packages)), "-I", str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment_of(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of an environment in a folder that has these packages and their requirements, and no others."""
    root = folder / "-".join(("only", *packages))
    python = root / "bin" / "python"
    if python.exists():
        return python
    venv.create(root, symlinks=True)
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars={"base": str(root)}))
    for one in _with_requirements(packages):
        for entry in {Path(file).parts[0] for file in one.files or ()} - {os.pardir, "__pycache__"}:
            if not (site / entry).exists():  # several packages may share a folder
                (site / entry).symlink_to(Path(str(one.locate_file(entry))))
    missing = subprocess.run([python, "-I", "-c", "import tlsearch"], capture_output=True, check=False)
    assert b"No module named 'tlsearch'" in missing.stderr, missing.stderr
    return python


def _with_requirements(packages: Sequence[str]) -> Iterator[Distribution]:
    """The distributions of some packages and all that they require, without extras."""
    waiting, seen = list(packages), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # what another platform or an older Python requires
            continue
        yield found
        needed = [Requirement(text) for text in found.requires or ()]
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
