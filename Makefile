# `make` alone prints the menu. Every target sets up what it needs, in .venv, from constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
export TORCH_BUILD ?= cpu
export TORCH_INDEX ?= https://download.pytorch.org/whl/$(TORCH_BUILD)
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4
FOLDERS := common envs gcrl marl scenarios
LINKS := $(FOLDERS:%=.typecheck/presage/%)
PEERS := $(patsubst benchmarks/peers/requirements-%.txt,.peers/%/.ready,$(wildcard benchmarks/peers/requirements-*.txt))

.DEFAULT_GOAL := menu
.PHONY: menu setup test test-full check lint format types docs wheel older-pettingzoo floors demo bench claims quotes peers clean

menu: # this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*# \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: $(READY) # build .venv from constraints.txt (TORCH_BUILD=cu130 for another build of torch)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "presage needs Python 3.11 or later; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) setuptools wheel
	.ci/install-torch $(BIN)/python constraints.txt --constraint constraints.txt
	$(PIP) --no-build-isolation --editable ".[dev,docs]"
	@touch $@

demo: $(READY) # train a small example from scratch and show what came out
	$(BIN)/presage demo

test: $(READY) # run the tests (ARGS="-k replay -x" goes to pytest)
	$(PYTEST) $(ARGS)

test-full: $(READY) # run the tests that train for minutes, too
	$(PYTEST) -m "full or not full" $(ARGS)

check: lint types docs wheel older-pettingzoo test # everything that CI runs

lint: $(READY) # ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) # let ruff repair and format what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) $(LINKS) # mypy, strict
	$(BIN)/mypy

# mypy and the docs look packages up by folder name, and there is no folder called presage: links stand in for it.
$(LINKS): .typecheck/presage/%:
	@mkdir -p .typecheck/presage
	@ln -sfn ../../$* $@

docs: $(READY) $(LINKS) # build the site into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(READY) # build the wheel, install it apart and test it outside the checkout
	.ci/wheel

older-pettingzoo: $(READY) # play PettingZoo's games under PettingZoo 1.25, without mpe2
	.ci/older-pettingzoo

floors: $(READY) # test with the lowest versions that pyproject.toml allows
	.ci/floors

bench: $(READY) # make a measurement again: make bench NAME=...
	@test -f "benchmarks/$(NAME).py" || { echo "make bench NAME=..., where NAME is one of:" \
		$(filter-out __init__ bare_products claims confirm goal_curves long_runs peer_process quotes sample_efficiency,$(basename $(notdir $(wildcard benchmarks/*.py)))); exit 1; }
	$(BIN)/python -m benchmarks.claims --ready
	$(BIN)/python -m benchmarks.$(NAME) $(ARGS)
	$(BIN)/python -m benchmarks.quotes

claims: $(READY) # print every measured figure beside its aim
	@$(BIN)/python -m benchmarks.claims

quotes: $(READY) # rewrite the measured figures in README and docs from benchmarks/results
	$(BIN)/python -m benchmarks.quotes

peers: $(PEERS) # build the environments of the libraries that we are measured against

.peers/%/.ready: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv .peers/$*
	.ci/install-torch .peers/$*/bin/python $< --constraint $<
	.peers/$*/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --requirement $<
	@touch $@

clean: # remove build outputs and caches; keeps .venv, .peers and runs
	rm -rf build dist site .floors .typecheck .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find $(FOLDERS) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
