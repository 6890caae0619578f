"""Screens the backbones of a search before its first trial: one pass over the images for each, as a task on Ray.

What a pass says is kept in the search's folder before the next one ends, so that a start that was killed loses only the
passes that ran. Once it is decided which backbones are kept, every start of the search goes by that: a study has one
list of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np

from tlsearch.app.catalog.screen_file import read_screen, write_screen
from tlsearch.app.checks.feasibility import weights_digests
from tlsearch.app.searches.prepare import Prepared
from tlsearch.config import SpaceFile
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import Infeasible, SearchStopped, UserError
from tlsearch.core.types import ModelSpec, ProbedBackbone, Screen, ScreenObserver, TrialAssignment, TrialConfig
from tlsearch.data import seen_digest
from tlsearch.search.scheduling.screening import decide
from tlsearch.search.study.stop_request import heeding_stop_requests
from tlsearch.space import is_screened, with_backbones

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """One backbone's pass; travels to workers."""

    assignment: TrialAssignment
    key: str
    num_classes: int
    with_latency: bool

    @property
    def backbone(self) -> str:
        """Its name."""
        return self.assignment.config.backbone


@contextmanager
def screened(
    prepared: Prepared, *, stop: threading.Event, observer: ScreenObserver | None = None
) -> Iterator[Prepared | None]:
    """The search over the backbones that its screen has kept; where there is nothing to screen, as it is.

    Where passes are made, their connection to Ray stays open while the body runs: the trials use it, too.

    Args:
        prepared: Its lock is held; `tlsearch stop` ends the screening, too.
        stop: When set, no pass begins any more.
        observer: Hears of each pass and of the decision.

    Yields:
        None where ``stop`` was set before all passes were made.

    Raises:
        UserError: Data or weights break a rule.
        SearchStopped: A pass failed.
        ClusterError: Ray cannot be reached.
    """
    if not is_screened(prepared.space) or prepared.file.search.listed:
        yield prepared
        return
    with ExitStack() as connection:
        decided = _decided(prepared, connection, stop, observer)
        yield None if decided is None else replace(prepared, space=with_backbones(prepared.space, decided.kept))


def _decided(
    prepared: Prepared, connection: ExitStack, stop: threading.Event, observer: ScreenObserver | None
) -> Screen | None:
    running = prepared.lock.run()
    try:
        with heeding_stop_requests(prepared.entry.folder, running.holder, stop):
            decided = screen(prepared, connection, stop=stop, observer=observer)
    finally:
        running.release()  # the search's trials take it again
    if decided is None:
        return None
    write_screen(prepared.entry, decided)
    crash_point("screen_decided")
    logger.info("the screen has kept %d of %d backbones", len(decided.kept), len(decided.backbones))
    if observer is not None:
        observer.screened(decided)
    return decided


def screen(
    prepared: Prepared,
    connection: ExitStack,
    *,
    tried: Sequence[str] = (),
    stop: threading.Event | None = None,
    observer: ScreenObserver | None = None,
) -> Screen | None:
    """Makes the passes that are not recorded yet, then decides; the caller records the decision.

    Args:
        connection: Takes the connection to Ray, where one is needed, until the stack is closed.
        tried: Backbones that have trials, which are kept.
        stop: As for ``screened``, as are ``observer`` and what it raises.

    Returns:
        None where ``stop`` was set before all passes were made.
    """
    passes = _passes(prepared)
    recorder = _Recorder(prepared, passes, observer)
    done = {one.backbone for one in recorder.made()}
    if missing := [one for one in passes if one.backbone not in done]:
        from tlsearch.search.cluster.connect import connected
        from tlsearch.search.ray_tune.tasks import run_tasks

        logger.info("screening %d backbones, %d of them now", len(passes), len(missing))
        resources, address = prepared.file.resources, prepared.address
        connection.enter_context(connected(address))
        run_tasks(_probe, missing, resources, address=address, done=recorder.note, stop=stop)
    made = recorder.made()
    if len(made) < len(passes):
        return None
    whole = Screen(backbones=prepared.space.backbones(), passes=tuple(made), seconds=recorder.spent_s)
    always = _always_kept(prepared.file, tried)
    return decide(whole, limits=prepared.file.search.constraints.limits, always=always)


def _always_kept(file: SpaceFile, tried: Sequence[str]) -> dict[str, str]:
    wanted = {str(entry["backbone"]): "in search.start_with" for entry in file.search.start_with if "backbone" in entry}
    return {**dict.fromkeys(tried, "it has trials"), **wanted}


class _Recorder:
    """Keeps what the passes say in the search's folder, beside what earlier starts have left there."""

    def __init__(self, prepared: Prepared, passes: Sequence[_Pass], observer: ScreenObserver | None) -> None:
        self._entry, self._passes, self._observer = prepared.entry, passes, observer
        self._before = read_screen(prepared.entry) or Screen(backbones=prepared.space.backbones())
        self._known = {one.backbone: one for one in self._before.passes}
        self._began = time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds of all starts."""
        return round(self._before.seconds + time.monotonic() - self._began, 3)

    def made(self) -> list[ProbedBackbone]:
        """What is known of the passes that are wanted now."""
        found = [(self._known.get(one.backbone), one.key) for one in self._passes]
        return [known for known, key in found if known is not None and known.key == key]

    def note(self, one: _Pass, found: ProbedBackbone) -> None:
        """Records a pass that has ended."""
        self._known[one.backbone] = found
        passes = tuple(self._known.values())
        write_screen(self._entry, replace(self._before, passes=passes, seconds=self.spent_s))
        crash_point("backbone_probed")
        logger.info("%s screened: %s", one.backbone, found.error or f"accuracy {found.accuracy or 0:.4f}")
        if self._observer is not None:
            self._observer.backbone_probed(found, len(self.made()), len(self._passes))


def _passes(prepared: Prepared) -> list[_Pass]:
    """The pass of each backbone, at the image size and with the features of its default trial.

    Nothing deeper than the head's boundary is stored on the way: most backbones will not be trained.
    """
    from tlsearch.features import library_versions
    from tlsearch.trial import PROBE_VERSION, probed_images

    file, space, index = prepared.file, prepared.space, prepared.index
    names = space.backbones()
    digests = weights_digests(file, names)
    setup = replace(file.trial_setup(), depths=(), folds=0, data_digest=seen_digest(index), weights_digests=digests)
    images, with_latency = probed_images(index).digest, "latency_ms" in file.search.constraints.limits
    found = []
    for name in names:
        default = space.to_config(space.complete({"backbone": name}))
        config = TrialConfig(backbone=name, image_size=default.image_size, features=default.features)
        transform = file.weights_of(name).transform
        depends = [PROBE_VERSION, images, digests[name], transform, file.data.image_size, asdict(config), with_latency]
        text = json.dumps([*depends, library_versions(name)])
        found.append(
            _Pass(
                assignment=TrialAssignment(number=0, seed=file.search.seed, config=config, setup=setup, directory=""),
                key=hashlib.sha256(text.encode()).hexdigest()[:16],
                num_classes=len(index.classes),
                with_latency=with_latency,
            )
        )
    return found


def _probe(one: _Pass, gpus: float) -> ProbedBackbone:
    """The pass itself, in a worker.

    Args:
        gpus: See `TrialAssignment`.
    """
    from tlsearch.model import describe_model
    from tlsearch.trial import probe_backbone, trial_latency

    assignment = replace(one.assignment, gpus=gpus)
    name = one.backbone
    try:
        described = describe_model(ModelSpec.of(assignment.config, assignment.setup.data, one.num_classes))
        probed = probe_backbone(assignment)
        latency = {"latency_ms": trial_latency(assignment)} if one.with_latency else {}
    except Infeasible as error:
        return ProbedBackbone(backbone=name, key=one.key, error=str(error))
    except UserError:
        raise
    except Exception as error:
        raise SearchStopped(f"{name} could not be screened: {type(error).__name__}: {error}") from error
    sizes = {"params_millions": described.parameters / 1e6, "checkpoint_mb": described.state_bytes / 1e6}
    return ProbedBackbone(
        backbone=name,
        key=one.key,
        parameters=described.parameters,
        num_train=probed.num_train,
        num_val=len(probed.hits),
        hits=np.packbits(probed.hits.numpy()).tobytes().hex(),
        penalty=probed.penalty,
        measured=sizes | latency,
        seconds=round(probed.seconds, 3),
    )
