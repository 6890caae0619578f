"""Points where a test may kill this process: TLSEARCH_CRASH_AT=NAME:COUNT, the COUNT-th time NAME is passed.

Of a search: the names in ``SEARCH``, and before its first trial those in ``SCREEN``. Of a promotion: those in
``PROMOTION``, in their order. Of an ensemble that is made: those in ``ENSEMBLE``; of a soup: those in ``SOUP``. Of a
model that is distilled: those in ``DISTILLATION``.
"""

from __future__ import annotations

import os
import signal

SEARCH = (
    "lock_taken",  # the search's lock is held, its holder's name not yet written
    "after_ask",  # a trial is proposed
    "shared_tensors",  # of what all trials share a file is written and not yet named; passed where the trial runs
    "model_tensors",  # the tensors of a new best epoch are there, no file names them; passed where the trial runs
    "after_checkpoint",  # a trial's checkpoint is ahead of its report; passed where the trial runs
    "before_report_write",
    "after_report_write",  # the report is stored with its decision, not yet sent to the trial
    "before_tell",
    "after_tell",
    "inside_append",  # half of a journal write is on disk
    "run_created",  # an MLflow run exists, and nothing is in it
    "kept_model_made",  # a model without files
    "kept_model_files",  # its files are there
    "kept_model_ready",  # complete, but its run does not show it
)
SCREEN = (
    "backbone_probed",  # the pass of one more backbone is recorded
    "screen_decided",  # which backbones are kept is recorded, the study does not exist yet
)
PROMOTION = (
    "test_recorded",  # the use of the test split is on record, no test image is decoded yet
    "test_evaluated",  # the evidence is kept
    "run_made",
    "model_made",  # an MLflow model without files
    "model_logged",  # its files are there
    "version_made",  # complete, but no alias points to it
    "previous_set",
    "alias_set",
)
SOUP = (
    "member_trained",  # a trial whose model was not kept is trained again; passed for an ensemble, too
    "soup_chosen",  # the trials are chosen, the old model is not replaced yet
    "soup_model",  # the model is whole, the search does not say so yet
)
ENSEMBLE = (
    "ensemble_chosen",  # the members are selected and trained, the old model is not replaced yet
    "ensemble_tensors",  # the tensors of a member are there, no file names them
    "ensemble_model",  # the model is whole, the search does not say so yet
)
DISTILLATION = (
    "soft_targets",  # the teacher's probabilities are kept, the student is not trained yet
    "student_trained",
    "distilled_chosen",  # the student's model is about to be copied, the old model is not replaced yet
    "distilled_model",  # the model is whole, the search does not say so yet
)

_VARIABLE = "TLSEARCH_CRASH_AT"
_passed: dict[str, int] = {}


def crash_due(name: str) -> bool:
    """Counts a pass of the point; True where the process must die here."""
    wanted = os.environ.get(_VARIABLE)
    if not wanted:
        return False
    point, _, count = wanted.partition(":")
    if point != name:
        return False
    _passed[name] = _passed.get(name, 0) + 1
    return _passed[name] == int(count or 1)


def die() -> None:
    """Ends the process as kill -9 does: nothing is flushed, closed or reported."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash_point(name: str) -> None:
    """Kills the process if the test asked for it here; costs one look-up otherwise."""
    if crash_due(name):
        die()
