# `make demo` and `make test` need only Python 3.11+ and make. Either may come first; a second run installs
# nothing.
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) 2>/dev/null || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
# How many test processes: one for each core; `make test JOBS=0` runs all in one.
JOBS   ?= auto

# Each of the thousands of processes that the tests start would compile edgeq again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-devices lint format clean help
help:
	@echo "make demo          install into .venv and run the demo: train, convert, deploy over SSH, measure, report"
	@echo "make test          install into .venv and run the guards and the tests that are not marked slow"
	@echo "make test-all      run all tests"
	@echo "make test-devices  run the lab: namespaces, ARM under qemu (root); EDGEQ_LAB=vm adds a virtual machine"
	@echo "make lint          run only ruff, mypy and the import layers"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgeq needs Python 3.11 or newer; found " + sys.version.split()[0] + " (set PYTHON=/path/to/python3.11)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

# The stamps make the second run fast: they are older than pyproject.toml only if it changed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/edgeq demo

# A file's tests run in one process, in their order; files run side by side, in the order of tests/file_order.py.
FILES  := -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not slow' $(FILES)

# Devices of the lab are slow enough without other tests beside them; a few tests assert a time and run alone.
test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not lab and not alone' $(FILES)
	$(BIN)/python -m pytest -m 'lab and not alone' $(FILES)
	$(BIN)/python -m pytest -m 'alone'

test-devices: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/devices

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
