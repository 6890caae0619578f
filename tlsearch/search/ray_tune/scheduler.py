"""Tune's scheduler: passes reports to the controller, which stores and answers them; detects hung trials."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from tlsearch.core.text import last_line
from tlsearch.search.controller.controller import Controller
from tlsearch.search.ray_tune.resources import lasting_node_ids
from tlsearch.search.worker.messages import pack, unpack_message

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class Watch:
    """The trials that Tune holds, and the first error that came up inside Tune's calls.

    Tune swallows or rewraps exceptions of its plug-ins; here they are kept as they are, the run is
    brought to an end, and the engine raises them.
    """

    def __init__(self) -> None:
        self.handed_out: dict[str, int] = {}  # Tune's trial id -> trial number
        self.error: Exception | None = None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Keeps an exception of the body; the caller then answers so that the run ends."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error


class Silence:
    """Seconds since a trial began to run in its worker, or since its last word.

    A trial is found silent once; it is given a new limit when it runs again in another worker.
    """

    def __init__(self, limit_s: float | None, *, timer: Callable[[], float] = time.monotonic) -> None:
        """None for no limit."""
        self.limit_s = limit_s
        self._timer = timer
        self._since: dict[str, float] = {}
        self._hanging: set[str] = set()

    def broken(self, trial_id: str) -> None:
        """The trial has said something."""
        self._since.pop(trial_id, None)
        self._hanging.discard(trial_id)

    def too_long(self, running: Collection[str]) -> list[str]:
        """Those of the trials that run now which have just gone beyond the limit.

        Args:
            running: The trials that are in a worker; one that waits for a worker is not silent.
        """
        now = self._timer()
        self._since = {trial_id: self._since.get(trial_id, now) for trial_id in running}
        if self.limit_s is None:
            return []
        found = [t for t, since in self._since.items() if now - since > self.limit_s and t not in self._hanging]
        self._hanging.update(found)
        return found

    def verdict(self, trial_id: str) -> str:
        """Why the trial's worker was killed; empty if not for its silence. It may run again."""
        if trial_id not in self._hanging:
            return ""
        self.broken(trial_id)
        return f"killed after {self.limit_s:g} s without a report (search.trial_timeout)"


logger = logging.getLogger(__name__)

_WAITING = (Trial.PENDING, Trial.PAUSED)  # paused: for a whole device, after it ran out of memory in a fraction
_GRACE_S = 2.0  # how long a running epoch may go on after Ctrl-C
_COLOUR = re.compile(r"\x1b\[\d*m")
_UNSETTLED = " is unavailable: "  # the connection broke; whether worker or node has died is not known yet
_NODE = re.compile(r"[Nn]ode [Ii][Dd]: ([0-9a-f]{56})")


class StudyScheduler(TrialScheduler):
    """Runs trials in order; every decision is the controller's."""

    def __init__(
        self,
        controller: Controller,
        watch: Watch,
        *,
        resources: Callable[[Mapping[str, Any]], dict[str, float]],
        timeout_s: float | None,
    ) -> None:
        """``resources`` says what Ray holds for a trial, by its config."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._resources = resources
        self._controller = controller
        self._watch = watch
        self._silence = Silence(timeout_s)
        self._halt_since: float | None = None
        self._fresh: dict[str, Trial] = {}  # waiting, not yet offered to Tune
        self._offered: dict[str, Trial] = {}  # waiting, with a worker of their own on its way
        self._given_up: list[Trial] = []
        self._nodes: dict[int, str] = {}  # the node a trial was last heard from

    @property
    def _halting(self) -> bool:
        return self._controller.halting or self._watch.error is not None

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """A trial waits for a worker; again after its worker died."""
        self._offered.pop(trial.trial_id, None)
        self._fresh[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """A worker's message: stored, decided and passed on before this returns."""
        goes_on = False
        self._silence.broken(trial.trial_id)
        with self._watch.guard():
            message = unpack_message(result)
            self._nodes[message.number] = message.node
            if message.report is not None:
                goes_on = self._controller.report(message.number, message.report, measured=message.measured)
            elif message.outcome is not None:
                again = self._controller.fail(message.number, message.outcome, measured=message.measured)
                if again and not self._halting:
                    tune_controller.pause_trial(trial, should_checkpoint=False)
                    self._renew(trial, message.number)
                    self._fresh[trial.trial_id] = trial
                    return str(TrialScheduler.NOOP)
        return str(TrialScheduler.CONTINUE if goes_on and not self._halting else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """A worker died; Tune is about to queue the trial again."""
        with self._watch.guard():
            number = self._watch.handed_out.get(trial.trial_id)
            if number is None:
                return
            message = _error_of(trial)
            lost = _NODE.search(message)
            node = lost.group(1) if lost else self._nodes.get(number, "")
            summary, settled = self._silence.verdict(trial.trial_id) or _summary(message), _UNSETTLED not in message
            if self._controller.worker_died(
                number, node=node, message=summary, alive=lasting_node_ids, settled=settled
            ):
                self._renew(trial, number)
            else:
                self._given_up.append(trial)

    def _renew(self, trial: Trial, number: int) -> None:
        """Gives a trial that is in no worker its job as it is now, with what it needs of a GPU."""
        trial.set_config(pack(self._controller.job(number)))
        trial.update_resources(self._resources(trial.config))

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """The study knows when the last message came."""

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """A waiting trial is taken away."""
        self._fresh.pop(trial.trial_id, None)
        self._offered.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """The trial to run next; called at every turn, so it also carries out ends.

        A worker that has become free goes to the newest trial first. Given to one whose own worker
        is still starting, it would end that start, and with short trials a second worker would
        never come up.
        """
        while self._given_up:
            tune_controller.stop_trial(self._given_up.pop())
        if self._halting:
            self._halt(tune_controller)
            return None
        self._kill_silent(tune_controller)
        for trial_id in list(self._fresh):
            trial = self._offered[trial_id] = self._fresh.pop(trial_id)
            if trial.status in _WAITING:
                return trial
        for trial_id, trial in list(self._offered.items()):
            if trial.status in _WAITING:
                return trial
            del self._offered[trial_id]
        return None

    def _kill_silent(self, tune_controller: TuneController) -> None:
        """Kills workers that have said nothing for too long; Tune then tells of their deaths."""
        if self._silence.limit_s is None:
            return
        running = {t.trial_id: t for t in tune_controller.get_live_trials() if t.status == Trial.RUNNING}
        for trial_id in self._silence.too_long(running):
            worker = running[trial_id].temporary_state.ray_actor
            if worker is not None:
                ray.kill(worker)

    def _halt(self, tune_controller: TuneController) -> None:
        """Takes waiting trials away at once, and running ones after a short grace, worker and all."""
        now = time.monotonic()
        self._halt_since = self._halt_since if self._halt_since is not None else now
        late = now - self._halt_since >= _GRACE_S
        for trial in list(tune_controller.get_live_trials()):
            if trial.status in _WAITING:
                tune_controller.stop_trial(trial)
            elif late and trial.status == Trial.RUNNING:
                worker = trial.temporary_state.ray_actor
                tune_controller.stop_trial(trial)
                if worker is not None:
                    ray.kill(worker)

    def debug_string(self) -> str:
        """For Tune's own output, which is off."""
        return "tlsearch"

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only truth."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its own description of the run, which is never read


def _error_of(trial: Trial) -> str:
    """The text of a trial's last error; Tune hands it on through a file that holds all of them."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return ""
    return _COLOUR.sub("", text.rsplit("Failure #", 1)[-1])


def _summary(error: str) -> str:
    """The last line, which names the cause, without Ray's advice."""
    return last_line(error, "unknown error").partition(" Some common causes")[0]
