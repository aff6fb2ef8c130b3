# Two commands matter: `make demo` and `make test`. Both do whatever set-up is missing and are safe to repeat.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:  # the steps share one environment, and the test summary must come last
.PHONY: help setup demo test lint check format clean

# Variables: PYTHON (3.10 or newer, makes the environment), VENV (the environment; an existing one may be named),
# EXTRAS (what to install), CUDA=1 (insist on CUDA ops), CUDA=0 (CPU ops even where a GPU is visible).
newer = $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { echo $$p; break; }; done)
PYTHON ?= $(or $(newer),python3)
VENV ?= .venv
EXTRAS ?= all,dev
BIN := $(VENV)/bin
INSTALL = $(PYTHON) tools/install.py --venv $(VENV) --extras $(EXTRAS) $(if $(filter 1,$(CUDA)),--cuda) $(if $(filter 0,$(CUDA)),--no-cuda)

help:  ## list the targets
	@echo 'usage: make TARGET [PYTHON=python3.12] [VENV=.venv] [CUDA=1]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup:  ## make the environment and install everything; seconds when it is done already
	@$(INSTALL)

demo: setup  ## train the demo detector on generated images and print its AP table
	@$(BIN)/python tools/train.py configs/demo/faster_rcnn_r2n50.py

test: setup  ## run the default tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup  ## ruff, format, types, Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/hadolint docker/Dockerfile && echo 'docker/Dockerfile: no findings'

check: lint test  ## all that CI runs: lint, then test

format:  ## rewrite the sources in the project's format
	@test -x $(BIN)/ruff || $(INSTALL)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove build products and caches; the environment, data/ and work_dirs/ stay
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
