"""Watches every process that is started with this folder on PYTHONPATH, Ray's workers too.

TLSEARCH_AUDIT_LOG names a file to which a line is added for every file that is opened below TLSEARCH_AUDIT_FOLDER, and
for every import of ray or optuna where TLSEARCH_AUDIT_IMPORTS is set.
"""

import os
import sys

_LOG = os.environ.get("TLSEARCH_AUDIT_LOG")
_FOLDER = os.environ.get("TLSEARCH_AUDIT_FOLDER")
_IMPORTS = os.environ.get("TLSEARCH_AUDIT_IMPORTS")


def _write(line):
    descriptor = os.open(_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{os.getpid()} {line}\n".encode())
    finally:
        os.close(descriptor)


def _hook(event, arguments):
    if event == "open" and _FOLDER:
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
        if os.path.abspath(path).startswith(_FOLDER + os.sep):
            _write(f"open {os.path.abspath(path)}")
    elif event == "import" and _IMPORTS and arguments[0].split(".")[0] in ("ray", "optuna"):
        _write(f"import {arguments[0]}")


if _LOG:
    sys.addaudithook(_hook)
    _write(f"start {' '.join(sys.argv[:2]) if hasattr(sys, 'argv') else ''}")
