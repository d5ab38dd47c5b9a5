# Two commands do everything from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The Pythons of pyproject.toml that are at hand: of each version pyenv's, else that on the PATH.
at_hand = $(shell for python in $(HOME)/.pyenv/versions/$(1).*/bin/python python$(1); do \
	$$python -c '' 2>/dev/null && echo $$python && break; done)
PYTHONS = $(or $(foreach version,3.11 3.12 3.13,$(call at_hand,$(version))), \
	$(error no Python 3.11 to 3.13 is at hand, neither from pyenv nor on the PATH))

.PHONY: demo test suite oldest newest lowest parity check bench clean

demo: $(VENV)/.installed
	$(BIN)/arena study=who_moves_first

test: $(VENV)/.installed check suite

suite: $(VENV)/.installed
	$(BIN)/python -m pytest

# `make test` on the oldest Python at hand.
oldest:
	$(MAKE) test PYTHON=$(firstword $(PYTHONS))

# The newest Python at hand. Torch for it may be a build of 5 GB: one for CUDA.
newest:
	$(MAKE) suite PYTHON=$(lastword $(PYTHONS)) VENV=.venv-newest

# The oldest Python at hand, with the lowest release of each dependency, torch among them (8 GB).
lowest:
	$(MAKE) suite PYTHON=$(firstword $(PYTHONS)) VENV=.venv-lowest CONSTRAINTS=.venv-lowest.txt

# What takes minutes: published models, the reference libraries beside ours, and Ray.
parity: $(VENV)/.peers
	$(BIN)/python -m pytest -m "slow or peers"

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m tests.bench

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) --version
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c $(CONSTRAINTS) -e '.[test]'
	@touch $@

.venv-lowest.txt: pyproject.toml tests/lowest.py
	$(PYTHON) -m tests.lowest > $@

# adv-lib declares a plotter that does not install; the attacks that are compared do not use it.
$(VENV)/.peers: $(VENV)/.installed
	$(PIP) -c $(CONSTRAINTS) -e '.[test,peers,ray]'
	$(PIP) --no-deps adv-lib==0.2.8
	@touch $@

clean:
	rm -rf .venv .venv-* dist
