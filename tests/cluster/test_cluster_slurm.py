"""The sbatch files under stand-ins for srun, scontrol, ray and tlsearch that write down what they were told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cluster_rules as rules
import pytest

# One program for all names: it writes its arguments down, then does what the real one would do for the script.
STUB = """#!{python}
import json, os, subprocess, sys, time
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
token = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
record = {{
    "name": name, "arguments": arguments, "mode": os.environ.get("RAY_AUTH_MODE"),
    "wait": os.environ.get("RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT"), "tmp": os.environ.get("RAY_TMPDIR"),
    "token_mode": oct(os.stat(token).st_mode & 0o777) if os.path.exists(token) else None,
    "secret_in_environment": bool(token) and os.path.exists(token) and open(token).read() in os.environ.values(),
}}
with open(os.environ["STUB_LOG"], "a") as log:
    log.write(json.dumps(record) + "\\n")
if name == "scontrol" and "hostnames" in arguments:
    print("node1\\nnode2")
elif name == "srun":
    words = [one for one in arguments if not one.startswith("-")]
    if "symmetric-run" in words:
        if os.environ.get("STUB_RAY") == "fails":
            sys.exit(0)  # as the real one does where `ray start` failed
        if os.environ.get("STUB_RAY") == "hangs":
            time.sleep(3)
            sys.exit(0)
        sys.exit(subprocess.run(arguments[arguments.index("--") + 1:]).returncode)
    if "hostname" in words:
        print("127.0.1.1 fe80::1 10.1.2.3 172.17.0.1")
    elif "ray" in words:
        os.execvp("ray", arguments[arguments.index("ray"):])
elif name == "ray":
    if arguments[0] == "health-check":
        sys.exit(int(os.environ.get("STUB_HEALTH", "0")))
    if arguments[0] == "start":
        time.sleep(60)  # --block
elif name == "tlsearch":
    for _ in range(200):  # the real one takes longer than a worker's start
        started = open(os.environ["STUB_LOG"]).read().count('"ray", "arguments": ["start"')
        if started >= int(os.environ.get("STUB_NODES", "0")):
            break
        time.sleep(0.05)
    print(json.dumps({{"best": 3}}))
    sys.exit(int(os.environ.get("STUB_SEARCH", "0")))
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    code: int
    error: str
    output: str
    calls: list[dict[str, object]]
    runs: Path

    def of(self, name: str, word: str = "") -> list[list[str]]:
        """Arguments of the calls of a program that hold a word."""
        found: list[list[str]] = []
        for call in self.calls:
            arguments = call["arguments"]
            assert isinstance(arguments, list)
            if call["name"] == name and (not word or word in arguments):
                found.append(arguments)
        return found


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of two nodes with 8 CPUs and 2 GPUs each."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("srun", "scontrol", "ray", "tlsearch"):
        (programs / name).write_text(STUB.format(python=sys.executable))
        (programs / name).chmod(0o755)
    (programs / "sleep").write_text("#!/bin/sh\n")
    (programs / "sleep").chmod(0o755)
    (tmp_path / "activate").write_text("")
    return {
        "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "USER": "someone",
        "STUB_LOG": str(tmp_path / "calls.jsonl"),
        "TLSEARCH_ACTIVATE": str(tmp_path / "activate"),
        "TLSEARCH_RUNS": str(tmp_path / "runs with space"),
        "TLSEARCH_HEAD_TRIES": "3",
        "SLURM_JOB_ID": "4217",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "8",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_MEM_PER_NODE": "32000",
    }


def submit(script: str, environment: dict[str, str], *arguments: str) -> Job:
    path = rules.CLUSTER / "slurm" / script
    done = subprocess.run(
        ["bash", str(path), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return _job(done.returncode, done.stdout, done.stderr, environment)


def _job(code: int, output: str, error: str, environment: dict[str, str]) -> Job:
    log = Path(environment["STUB_LOG"])
    calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return Job(code=code, output=output, error=error, calls=calls, runs=Path(environment["TLSEARCH_RUNS"]))


def test_exclusive_nodes(slurm: dict[str, str]) -> None:
    job = submit("tlsearch.sbatch", slurm, "space.yaml", "--set", "data.path=/data/my flowers")
    assert job.code == 0, job.error
    (step,) = job.of("srun", "symmetric-run")
    own, search = step[: step.index("--")], step[step.index("--") + 1 :]
    assert own[: own.index("ray")] == [
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--kill-on-bad-exit=1",
    ]
    # the first address that other nodes can reach; a port of this job's own
    address = "10.1.2.3:24217"
    assert own[own.index("ray") :] == [
        *("ray", "symmetric-run", "--address", address, "--min-nodes", "2"),
        *("--num-cpus=8", "--num-gpus=2", "--object-store-memory=1000000000"),
    ]
    (told,) = job.of("tlsearch")
    assert told == [
        *("run", "space.yaml", "--name", "slurm-4217", "--or-resume", "--address", address),
        *("--set", f"storage={job.runs}", "--json", "--set", "data.path=/data/my flowers"),
    ]
    assert search[-len(told) :] == told
    results = job.runs / ".jobs/slurm-4217/results.json"
    assert json.loads(results.read_text()) == {"best": 3}
    assert str(results) in job.output
    assert not (results.parent / "ray_token").exists()


@pytest.mark.parametrize("script", ["tlsearch.sbatch", "tlsearch-shared.sbatch"])
def test_authentication_is_on_and_the_token_is_the_jobs_own(slurm: dict[str, str], script: str) -> None:
    job = submit(script, slurm, "space.yaml")
    calls = [call for call in job.calls if call["name"] in ("ray", "tlsearch") or "symmetric-run" in str(call)]
    assert calls
    for call in calls:
        assert call["mode"] == "token"
        assert call["token_mode"] == "0o600"
        assert call["secret_in_environment"] is False
        assert call["tmp"] == "/tmp/ray-4217"
    assert (job.runs / ".jobs/slurm-4217").stat().st_mode & 0o777 == 0o700
    assert not (job.runs / ".jobs/slurm-4217/ray_token").exists()


def test_a_ray_that_did_not_start_is_a_failed_job_though_srun_says_0(slurm: dict[str, str]) -> None:
    job = submit("tlsearch.sbatch", slurm | {"STUB_RAY": "fails"}, "space.yaml")
    assert job.code == 1
    assert "did not finish" in job.error
    assert "tlsearch resume slurm-4217" in job.error


def test_a_result_of_an_earlier_start_does_not_count(slurm: dict[str, str]) -> None:
    assert submit("tlsearch.sbatch", slurm, "space.yaml").code == 0
    assert submit("tlsearch.sbatch", slurm | {"STUB_RAY": "fails"}, "space.yaml").code == 1


@pytest.mark.parametrize("script", ["tlsearch.sbatch", "tlsearch-shared.sbatch"])
def test_a_failed_search_is_a_failed_job(slurm: dict[str, str], script: str) -> None:
    job = submit(script, slurm | {"STUB_SEARCH": "130"}, "space.yaml")
    assert job.code == 130
    assert not (job.runs / ".jobs/slurm-4217/results.json").exists()


@pytest.mark.parametrize(("restarts", "again"), [("0", True), ("2", True), ("3", False)])
def test_near_the_time_limit_the_job_goes_back_into_the_queue(
    slurm: dict[str, str], restarts: str, again: bool
) -> None:
    environment = slurm | {"STUB_RAY": "hangs", "SLURM_RESTART_COUNT": restarts}
    script = str(rules.CLUSTER / "slurm/tlsearch.sbatch")
    running = subprocess.Popen(
        ["bash", script, "space.yaml"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = Path(slurm["STUB_LOG"])
    for _ in range(200):
        if log.exists() and "symmetric-run" in log.read_text():
            break
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGUSR1)
    output, error = running.communicate(timeout=60)
    job = _job(running.returncode, output, error, environment)
    assert job.of("scontrol", "requeue") == ([["requeue", "4217"]] if again else [])
    assert job.code == 1  # until Slurm ends it, it has no result


@pytest.mark.parametrize("script", ["tlsearch.sbatch", "tlsearch-shared.sbatch"])
def test_without_a_space_file_the_usage_is_told(slurm: dict[str, str], script: str) -> None:
    job = submit(script, slurm)
    assert job.code != 0
    assert f"usage: sbatch {script} space.yaml" in job.error
    assert job.calls == []


def test_shared_nodes(slurm: dict[str, str]) -> None:
    job = submit("tlsearch-shared.sbatch", slurm | {"STUB_NODES": "2"}, "space.yaml")
    assert job.code == 0, job.error
    head, worker = job.of("ray", "start")
    assert "--head" in head and "--node-ip-address=10.1.2.3" in head and "--port=21700" in head
    assert "--address=10.1.2.3:21700" in worker and "--head" not in worker
    assert [one for one in job.of("srun", "start") if "--nodelist=node2" in one and "--overlap" in one]
    for node in (head, worker):
        assert {"--block", "--num-cpus=4", "--num-gpus=2", "--memory=25600000000"} <= set(node)
        ports = {name: int(value) for name, _, value in (one.partition("=") for one in node) if name.endswith("-port")}
        assert len(set(ports.values())) == len(ports)
        assert all(21700 <= port < 21800 for port in ports.values()), ports
    assert not {8265, 10001, 6379} & {int(p) for one in head for p in one.split("=") if p.isdigit()}
    assert "--dashboard-host=127.0.0.1" in head
    (told,) = job.of("tlsearch")
    assert told[told.index("--address") + 1] == "10.1.2.3:21700"
    assert "symmetric-run" not in str(job.calls)
    assert job.of("ray", "stop") == []  # it would end other people's Ray


def test_a_head_that_never_answers_ends_the_job(slurm: dict[str, str]) -> None:
    job = submit("tlsearch-shared.sbatch", slurm | {"STUB_HEALTH": "1"}, "space.yaml")
    assert job.code == 1
    assert "does not answer" in job.error
    assert job.of("tlsearch") == []
    assert len(job.of("ray", "health-check")) == 4


def test_a_stub_bites(slurm: dict[str, str], tmp_path: Path) -> None:
    """The same check on a script with a trap left in: success by the exit code alone."""
    text = (rules.CLUSTER / "slurm/tlsearch.sbatch").read_text()
    script = tmp_path / "naive.sbatch"
    script.write_text(text.replace("if [[ ! -s $results ]]; then", "if ((code != 0)); then"))
    done = subprocess.run(
        ["bash", str(script), "space.yaml"], env=slurm | {"STUB_RAY": "fails"}, capture_output=True, check=False
    )
    assert done.returncode == 0  # wrong, and seen: the tests above would fail
