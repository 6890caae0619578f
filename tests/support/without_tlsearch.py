"""A script run where tlsearch, Ray, Optuna and MLflow cannot be imported: what an exported model meets elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_BLOCKED = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tlsearch", "ray", "optuna", "mlflow"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Block())
script = sys.argv[1]
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""


def run_without_tlsearch(script: Path, *arguments: str, cwd: Path) -> str:
    """Runs a Python script to its end; gives its standard output."""
    command = [sys.executable, "-c", _BLOCKED, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
