"""Manifests, compose file, Dockerfile and scripts, each by the tool that knows its kind; each tool bites."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cluster_rules as rules
import pytest


def tool(name: str) -> str:
    """The path of a checker of the extra ``dev``; skips where it could not be installed."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install -e '.[dev]' brings it")
    return found


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def planted(tmp_path: Path, source: str, change: Callable[[str], str]) -> Path:
    text = (rules.CLUSTER / source).read_text()
    changed = change(text)
    assert changed != text, "the fault's place is no longer in the file: renew it"
    path = tmp_path / Path(source).name
    path.write_text(changed)
    return path


PLAIN = ["kuberay/storage.yaml", "kuberay/mlflow.yaml", "kuberay/network-policy.yaml"]


def kubernetes_faults(text: str) -> list[str]:
    validate = pytest.importorskip("kubernetes_validate")
    found = []
    for tree in rules.documents(text):
        try:
            validate.validate(tree, "1.37", strict=True)
        except (validate.ValidationError, validate.InvalidSchemaError, validate.SchemaNotFoundError) as error:
            found.append(f"{tree['kind']}: {error}")
    return found


@pytest.mark.parametrize("name", PLAIN)
def test_manifests(name: str) -> None:
    assert kubernetes_faults((rules.CLUSTER / name).read_text()) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("kuberay/mlflow.yaml", "containerPort: 5432", "containerport: 5432"),
        ("kuberay/mlflow.yaml", "serviceName: postgres\n", "serviceNam: postgres\n"),
        ("kuberay/mlflow.yaml", "strategy: {type: Recreate}", "strategy: Recreate"),
        ("kuberay/storage.yaml", "storageClassName:", "storageclass:"),
        ("kuberay/network-policy.yaml", "policyTypes: [Ingress]", "policyTypes: Ingress"),
    ],
)
def test_manifest_faults_are_found(name: str, old: str, new: str) -> None:
    text = (rules.CLUSTER / name).read_text()
    assert old in text
    assert kubernetes_faults(text.replace(old, new, 1)) != []


def test_compose() -> None:
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", rules.CLUSTER / "docker/compose.yaml")
    assert done.returncode == 0, done.stdout


def test_a_compose_fault_is_found(tmp_path: Path) -> None:
    path = planted(tmp_path, "docker/compose.yaml", lambda text: text.replace("shm_size", "shmsize", 1))
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert done.returncode == 1
    assert "shmsize" in done.stdout


def test_dockerfile() -> None:
    done = run("hadolint", rules.CLUSTER / "docker/Dockerfile")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("FROM python:3.11-slim-bookworm", "FROM python:latest", "DL3007"),
        ('"boto3==1.44.5"', "boto3", "DL3013"),
        ("USER 0", "RUN sudo true\nUSER 0", "DL3004"),
    ],
)
def test_dockerfile_faults_are_found(tmp_path: Path, old: str, new: str, rule: str) -> None:
    done = run("hadolint", planted(tmp_path, "docker/Dockerfile", lambda text: text.replace(old, new, 1)))
    assert done.returncode == 1
    assert rule in done.stdout


SCRIPTS = ["slurm/tlsearch.sbatch", "slurm/tlsearch-shared.sbatch", "docker/make-secrets.sh", "docker/with-secrets"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name: str) -> None:
    done = run("shellcheck", rules.CLUSTER / name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "old", "new", "rule"),
    [
        ("slurm/tlsearch.sbatch", '"$RAY_AUTH_TOKEN_PATH"\n', "$RAY_AUTH_TOKEN_PATH\n", "SC2086"),
        ("docker/with-secrets", '"$file" ]', "$file ]", "SC2086"),
    ],
)
def test_script_faults_are_found(tmp_path: Path, name: str, old: str, new: str, rule: str) -> None:
    done = run("shellcheck", planted(tmp_path, name, lambda text: text.replace(old, new, 1)))
    assert done.returncode == 1
    assert rule in done.stdout


def test_with_secrets_reads_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3 cr'et")
    environment = {
        "PATH": "/usr/bin:/bin",
        "SECRETS_DIR": str(tmp_path),
        "PGPASSWORD_FILE": str(tmp_path / "password"),
        "SSL_CERT_FILE": "/etc/ssl/cert.pem",
    }
    script = str(rules.CLUSTER / "docker/with-secrets")
    show = ["sh", "-c", 'printf "%s|%s|%s" "$PGPASSWORD" "${PGPASSWORD_FILE-}" "$SSL_CERT_FILE"']
    done = subprocess.run([script, *show], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "s3 cr'et||/etc/ssl/cert.pem"
    environment["RAY_AUTH_TOKEN_FILE"] = str(tmp_path / "gone")
    done = subprocess.run([script, "true"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "gone of RAY_AUTH_TOKEN_FILE cannot be read" in done.stderr


def test_make_secrets_makes_each_once(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets.sh"
    shutil.copy(rules.CLUSTER / "docker/make-secrets.sh", script)
    subprocess.run(["bash", str(script)], check=True, capture_output=True, timeout=60)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert len(made) == 6
    assert len(set(made.values())) == 6 and all(len(one) == 64 for one in made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    subprocess.run(["bash", str(script)], check=True, capture_output=True, timeout=60)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
