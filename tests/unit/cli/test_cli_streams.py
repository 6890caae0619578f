"""Standard output that ends while a command runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import sys
from tlsearch.cli.streams import exit_code, open_streams, when_output_ends
output = open_streams()
when_output_ends(sys.argv[1])
import logging
logging.basicConfig(format="%(message)s")
print("x" * 100_000, flush=True)
print("goes on", file=sys.stderr)
print("x" * 100_000)
sys.stdout.buffer.write(b"x" * 100_000)
sys.stdout.buffer.flush()
sys.exit(exit_code(output, 0))
"""


@pytest.mark.parametrize("note", ["", "the search goes on"])
def test_a_reader_that_has_gone_ends_nothing(note: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", _SCRIPT, note]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    told = f"standard output is lost (Broken pipe); {note}\n" if note else ""
    assert (done.returncode, done.stderr) == (1, f"{told}goes on\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-c", _SCRIPT, ""]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "goes on\nstandard output cannot be written: No space left on device\n"


def test_streams_that_were_closed_before_the_start_are_the_null_device(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f"""
from tlsearch.cli.streams import exit_code, open_streams
output = open_streams()
file = open({str(seen)!r}, "w")
print("not into the file", flush=True)
raise SystemExit(exit_code(output, 0) or file.fileno())
"""
    (tmp_path / "script.py").write_text(script)
    command = f'exec "{sys.executable}" "{tmp_path}/script.py" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", command], check=False)
    assert done.returncode > 2  # the file's descriptor is none of the standard ones
    assert seen.read_text() == ""
