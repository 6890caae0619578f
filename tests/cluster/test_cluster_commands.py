"""Commands that stand in cluster/: their options exist, and what they set is accepted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_rules as rules
import pytest
import yaml

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning:ray")  # ray's own

SPACE = "name: flowers\ndata: {source: digits}\nweights: {resnet18: none}\nspace: {backbone: resnet18}\n"


def commands(program: str, text: str) -> Iterator[list[str]]:
    """The command lines of a program in a file's text, comments too; continued lines are joined."""
    text = re.sub(r"\\\n\s*#?\s*", " ", text)
    text = re.sub(r"(entrypoint: >-|command: >-|- >-)\n", r"\1 ", text)
    text = re.sub(r"\n\s+(?=--)", " ", text)  # folded YAML
    for line in text.splitlines():
        for found in re.finditer(rf"(?<![\w/.-]){re.escape(program)} (?!\w*:)[^|&;`)]*", line):
            words = re.findall(r"\"[^\"]*\"|'[^']*'|\S+", found[0].split(" #")[0])
            yield [word.strip("'\"") for word in words]


def all_commands(program: str) -> list[tuple[str, list[str]]]:
    found = []
    for path in rules.all_files():
        found += [(path.name, words) for words in commands(program, path.read_text())]
    return found


def tlsearch_commands() -> dict[str, Any]:
    """Options of each command of ours."""
    import typer

    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
    from tlsearch.cli.root import app

    group: Any = typer.main.get_command(app)
    return {name: {one for p in c.params for one in p.opts} for name, c in group.commands.items()}


def test_our_own_commands_have_these_options() -> None:
    known = tlsearch_commands()
    seen = 0
    for name, words in all_commands("tlsearch"):
        if words[1:2] and words[1] in known:
            options = {one for one in words if one.startswith("--")}
            assert options <= known[words[1]], f"{name}: {shlex.join(words)}"
            seen += bool(options)
    assert seen >= 10


def test_what_the_files_set_is_accepted(tmp_path: Path) -> None:
    """Every ``--set`` of a literal value, in one space file."""
    from tlsearch.app.cluster.submit import SubmitOptions, checked_file

    (tmp_path / "space.yaml").write_text(SPACE)
    given = set()
    for _, words in all_commands("tlsearch"):
        given |= {words[i + 1] for i, word in enumerate(words[:-1]) if word == "--set" and "$" not in words[i + 1]}
    given = {one for one in given if not one.endswith("...")}
    assert {"storage=/shared/runs", "tracking.uri=http://mlflow:5000"} <= given
    for one in sorted(given):
        base = ["storage=/shared/runs", "tracking.uri=http://mlflow:5000"]
        checked_file(SubmitOptions(file=tmp_path / "space.yaml", address="", overrides=[*base, one]))


def test_ray_start_has_these_options() -> None:
    from ray.scripts.scripts import start

    known = {one for p in start.params for one in (*p.opts, *p.secondary_opts)}
    seen = 0
    texts = [path.read_text() for path in rules.all_files() if path.suffix != ".md"]
    for text in texts:
        for words in commands("ray start", text):
            options = {one.split("=")[0] for one in words if one.startswith("--") and one != "--"}
            assert options <= known, words
            seen += 1
    shared = (rules.CLUSTER / "slurm/tlsearch-shared.sbatch").read_text()
    listed = re.findall(r"(--[a-z-]+)=", shared[shared.index("ports=(") : shared.index("on_one=(")])
    assert len(listed) == 12 and set(listed) <= known
    assert seen >= 6


def test_symmetric_run_takes_our_options_for_head_and_workers() -> None:
    """Its own check refuses some; `ray start` on a worker refuses more (--include-dashboard)."""
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args as curate

    text = (rules.CLUSTER / "slurm/tlsearch.sbatch").read_text()
    (words,) = [one for one in commands("ray symmetric-run", text) if "--address" in one]
    ours = words[2 : words.index("--")]
    passed_on = curate(ours)
    assert [one.split("=")[0] for one in passed_on] == ["--num-cpus", "--num-gpus", "--object-store-memory"]
    with pytest.raises(Exception, match="--port"):
        curate([*ours, "--port"])


def test_the_runtime_environment_is_one_that_ray_takes() -> None:
    from ray.runtime_env import RuntimeEnv

    tree = yaml.safe_load((rules.CLUSTER / "runtime-env.yaml").read_text())
    assert RuntimeEnv(**(tree | {"working_dir": "s3://bucket/x.zip"}))["env_vars"] == {"PYTHONUNBUFFERED": "1"}
    with pytest.raises(Exception):  # noqa: B017
        RuntimeEnv(**(tree | {"env_vars": {"A": 1}, "working_dir": "s3://bucket/x.zip"}))


def test_the_shipped_package_runs_where_it_is_not_installed(tmp_path: Path) -> None:
    """What `submit` sends, packed by Ray and unpacked elsewhere, is a whole tlsearch."""
    from ray._private.runtime_env.packaging import create_package

    import tlsearch
    from tlsearch.search.cluster.jobs import JobRequest

    package = Path(tlsearch.__file__).parent
    request = JobRequest(job_id="a", entrypoint="b", working_dir=tmp_path, py_modules=(package,))
    target = tmp_path / "package.zip"
    create_package(
        str(package),
        target,
        include_gitignore=True,
        include_parent_dir=True,
        excludes=request.runtime_env["excludes"],
    )
    with zipfile.ZipFile(target) as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "node")
    assert not [one for one in names if "__pycache__" in one]
    assert {f"tlsearch/{p.relative_to(package)}" for p in package.rglob("*.py")} <= set(names)
    code = "import tlsearch.cli.commands.run as c, sys; print(c.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "node"), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path / "node"))


def test_the_image_is_built_of_files_that_exist_and_are_let_in() -> None:
    dockerfile = (rules.CLUSTER / "docker/Dockerfile").read_text()
    ignored = (rules.CLUSTER / "docker/Dockerfile.dockerignore").read_text().split()
    assert ignored[ignored.index("*")] == "*"
    sources = [w for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE) for w in line.split()[:-1]]
    sources = [one for one in sources if not one.startswith("--")]
    assert sources
    for source in sources:
        assert (rules.ROOT / source).exists(), source
        assert any(source == one[1:] or source.startswith(f"{one[1:]}/") for one in ignored if one[0] == "!"), source
    assert "cluster/docker/secrets" in ignored
    (version,) = re.findall(r"^ARG RAY_VERSION=(.+)$", dockerfile, re.MULTILINE)
    assert version == rules.pinned_ray()


def test_the_pin_is_the_ray_that_is_tested() -> None:
    import ray

    assert ray.__version__ == rules.pinned_ray()
