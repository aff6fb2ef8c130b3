# Three commands matter: `make demo`, `make compare` and `make test`. They set up what is missing and can be repeated.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:  # the steps share one environment, and the test summary must come last
.PHONY: help setup demo compare test lint check format clean

# Variables: PYTHON (3.10 or newer; creates the environment), VENV (the environment; an existing one may be named),
# EXTRAS (what to install), OPS=1 (compile mmcv's operators), CUDA=1 (compile them for CUDA even if no GPU is visible),
# TORCH_BACKEND (cpu, cu130, auto, ...: the build of torch, from PyTorch's index), TESTS (processes of `make test`).
newer = $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { echo $$p; break; }; done)
PYTHON ?= $(or $(newer),python3)
VENV ?= .venv
EXTRAS ?= all dev
TESTS ?= 2
BIN := $(VENV)/bin
INSTALL = $(PYTHON) tools/install.py --venv $(VENV) --extras $(EXTRAS) $(if $(filter-out 0,$(OPS)),--ops) \
	$(if $(filter-out 0,$(CUDA)),--cuda) $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND))
PAIR := work_dirs/compare
seeds = $(PAIR)/$(1)_0,$(PAIR)/$(1)_1,$(PAIR)/$(1)_2

help:  ## list the targets
	@echo 'usage: make TARGET [PYTHON=python3.12] [VENV=.venv] [OPS=1] [CUDA=1] [TORCH_BACKEND=cpu]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup:  ## create the environment and install everything; seconds when it is done already
	@$(INSTALL)

demo: setup  ## train the demo detector on generated images and print its AP table
	@$(BIN)/mmres2net train demo/faster_rcnn_r2n50 --overwrite

# Two runs at a time, each on one core; a run that has its last checkpoint is kept.
compare: setup  ## train both demo detectors with three seeds, about 25 minutes on 2 cores, and write the report
	@mkdir -p $(PAIR)
	@for run in 0 1 2; do echo r50 $$run; echo r2n50 $$run; done | OMP_NUM_THREADS=1 xargs -n 2 -P 2 $(SHELL) -c \
		'd=$(PAIR)/$$0_$$1; test -f $$d/epoch_4.pth && exit; echo "training $$d, its log is $$d.log"; \
		$(BIN)/mmres2net train demo/faster_rcnn_$$0 --seed $$1 --work-dir $$d --overwrite >$$d.log 2>&1'
	@$(BIN)/mmres2net compare ResNet-50=$(call seeds,r50) Res2Net-50=$(call seeds,r2n50) --out $(PAIR)/report

test: setup  ## run the default tests
	@$(BIN)/python -m pytest -n $(TESTS) --dist loadfile

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
