# Two commands do all the set-up on a fresh machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Integration tests run one after another, other tests beside them.
PARALLEL := -n auto --maxprocesses 4 --dist loadgroup

.PHONY: demo docs reference test test-all gpu gpu-wheels lint install clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# An existing environment is reused; it is brought up to date when pyproject.toml has changed.
$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

install: $(VENV)/.dev

demo: $(VENV)/.demo
	$(BIN)/tlsearch demo --folder demo

# The references of the space file and the commands, from the code that reads them.
reference: $(VENV)/.dev
	$(BIN)/python docs/write_references.py docs

# The tutorial's commands run again, which takes some minutes; then the documentation as a site in site/.
docs: $(VENV)/.dev
	$(BIN)/python docs/run_tutorial.py docs/tutorial.md
	$(BIN)/mkdocs build --strict

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest $(PARALLEL) -m "not slow and not gpu"

test-all: lint
	$(BIN)/pytest $(PARALLEL)

# The wheels that a machine with a GPU needs beside its own torch and torchvision: the versions of this environment.
gpu-wheels: $(VENV)/.dev
	mkdir -p gpu-wheels
	$(BIN)/python -m pip freeze --all --exclude-editable | grep -vE '^(torch|torchvision|triton|nvidia|cuda)' > gpu-wheels/versions.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir gpu-wheels -r gpu-wheels/versions.txt
	$(BIN)/python -m pip wheel --quiet --wheel-dir gpu-wheels hatchling editables

# What needs a GPU: tests and figures, there from its own torch and gpu-wheels/; an existing environment is reused.
WHEELS := $(if $(wildcard gpu-wheels/*.whl),--no-index --find-links gpu-wheels)
$(VENV)/.gpu: pyproject.toml
	test -e $(BIN)/python || $(PYTHON) -m venv --system-site-packages $(VENV)
	test -e $(VENV)/.dev || $(BIN)/python -m pip install --quiet $(WHEELS) -e '.[dev]'
	touch $@

gpu: $(VENV)/.gpu
	$(BIN)/pytest -m gpu -rs tests/gpu tests/unit/train tests/unit/trial
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(VENV) gpu-wheels build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
