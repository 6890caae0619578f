# Two commands do all the set-up on a fresh machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Integration tests run one after another, other tests beside them.
PARALLEL := -n auto --maxprocesses 4 --dist loadgroup

.PHONY: demo docs reference test test-all lint install clean

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
	$(BIN)/python -m tlsearch.app.views.space_reference docs/space_file.md
	$(BIN)/python -m tlsearch.cli.help docs/commands.md

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

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
