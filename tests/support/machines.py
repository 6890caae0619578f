"""Machines of a cluster on this one: network namespaces with mounts of their own, or, without rights, loopback.

In a namespace each machine has an address of its own and sees the shared folder at a path where the laptop (this
process) sees an empty one. A machine that is killed loses all its processes at once, as by a power cut.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_BIN = Path(sys.executable).parent
_OBJECT_STORE_BYTES = 80_000_000


@dataclass(kw_only=True)
class Machine:
    """One machine; ``prefix`` puts a command onto it, ``base_port`` is 0 where all ports are its own."""

    name: str
    address: str
    folder: Path
    prefix: Sequence[str] = ()
    base_port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Starts a process of this machine; its output goes into the machine's folder."""
        log = open(self.folder / f"{Path(command[0]).name}.log", "ab")  # the process holds it
        process = subprocess.Popen(
            [*self.prefix, *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.folder,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """Ends all its processes at once, with SIGKILL: those that were started here, and what they started."""
        found: dict[int, psutil.Process] = {}
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                found |= {one.pid: one for one in (parent, *parent.children(recursive=True))}
        if self.prefix:
            listed = subprocess.run(
                ["ip", "netns", "pids", self.prefix[3]], capture_output=True, text=True, check=False
            )
            for pid in map(int, listed.stdout.split()):
                with suppress(psutil.NoSuchProcess):
                    found[pid] = psutil.Process(pid)
        for one in found.values():
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        for process in self.processes:
            process.wait(60)
        self.processes.clear()


class Network:
    """The machines; ``shared`` is the path of the folder that they all see."""

    def __init__(self, *, namespaces: bool = True) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="tlm-", dir="/tmp"))  # short: Ray's sockets lie below
        self.root.chmod(0o755)
        self.backing, self.shared = self.root / "backing", self.root / "shared"
        for folder in (self.backing, self.shared):
            folder.mkdir()
        self.token_path = self.root / "token"
        self.token = secrets.token_hex(32)
        self.token_path.write_text(self.token)
        self.token_path.chmod(0o600)
        self.machines: list[Machine] = []
        self._tag, self._net = secrets.token_hex(3), f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(250)}"
        self.isolated = namespaces and self._bridge()
        if not self.isolated:
            self.shared.rmdir()
            self.shared.symlink_to(self.backing)
        self.laptop = f"{self._net}.1" if self.isolated else "127.0.0.1"  # the machines reach this process there

    def add(self, name: str, environment: Mapping[str, str] | None = None) -> Machine:
        """A new machine; it has the cluster's token and, of this process's environment, nothing but PATH."""
        number = len(self.machines) + 2
        folder = self.root / name
        folder.mkdir()
        machine = Machine(name=name, address="127.0.0.1", folder=folder)
        if self.isolated:
            machine.address = f"{self._net}.{number}"
            machine.prefix = self._namespace(f"tl{self._tag}{number}", machine.address, number)
        else:
            machine.base_port = _free_block(number)
        machine.environment = {
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_server_port_wait_time_s": "60",
            "RAY_worker_niceness": "0",  # 15 by default: on a busy machine its trials would hardly run
            "RAY_memory_monitor_refresh_ms": "0",  # all machines share this one's memory with whatever else runs
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "TLSEARCH_CACHE_DIR": str(machine.cache),
            "TLSEARCH_STATE_DIR": str(folder / "state"),
            **(environment or {}),
        }
        self.machines.append(machine)
        return machine

    def start_head(self, machine: Machine) -> tuple[str, str]:
        """Starts the head, which runs no trial; gives HOST:PORT of Ray and the dashboard's URL."""
        port = machine.base_port or 6379
        dashboard = port + 7 if machine.base_port else 8265
        options = ["--head", f"--port={port}", "--num-cpus=0", f"--dashboard-host={machine.address}"]
        machine.start("ray", "start", *options, f"--dashboard-port={dashboard}", *_ray_options(machine))
        return f"{machine.address}:{port}", f"http://{machine.address}:{dashboard}"

    def start_worker(self, machine: Machine, head: str, *, num_cpus: int = 1) -> None:
        machine.start("ray", "start", f"--address={head}", f"--num-cpus={num_cpus}", *_ray_options(machine))

    def close(self) -> None:
        """Ends every machine, and removes what was made."""
        for machine in self.machines:
            machine.kill()
            if machine.prefix:
                _ip("netns", "del", machine.prefix[3])
        if self.isolated:
            _ip("link", "del", f"tlb{self._tag}")
        shutil.rmtree(self.root, ignore_errors=True)

    def _bridge(self) -> bool:
        """Whether this process may make namespaces, and has made their bridge."""
        name = f"tlb{self._tag}"
        if os.getuid() != 0 or shutil.which("ip") is None or not _ip("link", "add", name, "type", "bridge"):
            return False
        return _ip("addr", "add", f"{self._net}.1/24", "dev", name) and _ip("link", "set", name, "up")

    def _namespace(self, name: str, address: str, number: int) -> list[str]:
        outer, inner = f"tlo{self._tag}{number}", f"tli{self._tag}{number}"
        inside = ("-n", name)
        steps = (
            ("netns", "add", name),
            ("link", "add", outer, "type", "veth", "peer", "name", inner),
            ("link", "set", inner, "netns", name),
            ("link", "set", outer, "master", f"tlb{self._tag}"),
            ("link", "set", outer, "up"),
            (*inside, "link", "set", "lo", "up"),
            (*inside, "addr", "add", f"{address}/24", "dev", inner),
            (*inside, "link", "set", inner, "up"),
            (*inside, "route", "add", "default", "via", self.laptop),
        )
        for step in steps:
            assert _ip(*step), f"ip {' '.join(step)} failed"
        mounted = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'  # `ip netns exec` gives mounts of its own
        return ["ip", "netns", "exec", name, "sh", "-c", mounted, "sh", str(self.backing), str(self.shared)]


@contextmanager
def network(*, namespaces: bool = True) -> Iterator[Network]:
    """A network that is gone afterwards, however the body ends."""
    made = Network(namespaces=namespaces)
    try:
        yield made
    finally:
        made.close()


def wait_until_open(address: str, *, process: subprocess.Popen[bytes] | None = None, timeout_s: float = 240) -> None:
    """Waits until something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, f"ended with {process and process.returncode}"
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
            return
        time.sleep(0.2)  # polls another process
    raise AssertionError(f"nothing listens at {address}")


def _ray_options(machine: Machine) -> list[str]:
    options = [
        f"--node-ip-address={machine.address}",
        f"--temp-dir={machine.folder}/ray",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        "--block",
    ]
    base = machine.base_port
    if base:  # all machines have one address, so no two may use one port
        names = ("node-manager", "object-manager", "runtime-env-agent", "metrics-export")
        options += [f"--{name}-port={base + number}" for number, name in enumerate(names, start=1)]
        options += [f"--dashboard-agent-listen-port={base + 5}", f"--dashboard-agent-grpc-port={base + 6}"]
        options += [f"--min-worker-port={base + 10}", f"--max-worker-port={base + 89}"]
    return options


def _free_block(number: int) -> int:
    """The first of a hundred ports whose first ten nobody uses, below those that the system gives out."""
    for attempt in range(30):
        base = 20_000 + (os.getpid() * 7 + number * 17 + attempt * 31) % 120 * 100
        try:
            for port in range(base, base + 10):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
