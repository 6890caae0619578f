"""A signal at any time of a command's life: exit code 130, no traceback, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from default_signals import default_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# A command that says when it is where it is to be interrupted.
_SCRIPT = """
import os, signal, sys, time
from tlsearch.display import interrupts
def here(number=None):
    os.kill(os.getpid(), {number})
def command():
    {body}
interrupts.run_interruptible(command)
print("not reached")
"""
BODIES = {
    "anywhere": "here(); time.sleep(60)",
    "as another error": "\n    try: here(); time.sleep(60)\n    except BaseException: raise ImportError('no module')",
    "with an error of ours": "\n    try: here(); time.sleep(60)\n    except BaseException: sys.exit(1)",
    "in a destructor": "\n    class A:\n        def __del__(self): here()\n    a = A()\n    del a\n    time.sleep(60)",
    "in a stack": "\n    try: here(); time.sleep(60)\n    finally: sys.stdout.write('closed')",
}


def _no_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def run(script: str, folder: Path, *, before: Callable[[], None] = default_signals) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)},
        check=False,
        timeout=300,
        preexec_fn=before,
    )


@pytest.mark.parametrize("body", BODIES)
def test_an_interrupt_ends_the_command(body: str, tmp_path: Path) -> None:
    for number in SIGNALS:
        done = run(_SCRIPT.format(number=int(number), body=BODIES[body]), tmp_path)
        assert done.returncode == 130, (number, done.stderr)
        assert "Traceback" not in done.stderr and "not reached" not in done.stdout
        assert ("closed" in done.stdout) == (body == "in a stack")


def test_a_command_that_ends_well_after_a_signal_keeps_its_code(tmp_path: Path) -> None:
    body = "\n    try: here(); time.sleep(60)\n    except KeyboardInterrupt: sys.exit(0)"
    assert run(_SCRIPT.format(number=1, body=body), tmp_path).returncode == 0


def test_a_signal_after_the_end_changes_nothing(tmp_path: Path) -> None:
    body = "\n    import atexit\n    atexit.register(lambda: (here(), print('tidied')))\n    sys.exit(3)"
    done = run(_SCRIPT.format(number=15, body=body), tmp_path)
    assert done.returncode == 3 and done.stdout == "tidied\n" and done.stderr == ""


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    done = run(
        _SCRIPT.format(number=1, body="here(); sys.exit(0)"),
        tmp_path,
        before=_no_hangup,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_is_interrupted_while_it_imports(number: signal.Signals, tmp_path: Path) -> None:
    """The signal comes as the first import of a heavy library begins."""
    script = f"""
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
sys.argv = ["tlsearch", "check", "space.yaml"]
from tlsearch.cli import main
main()
"""
    done = run(script, tmp_path)
    assert done.returncode == 130 and done.stderr in ("", "interrupted\n") and list(tmp_path.iterdir()) == []
