# Two commands do everything from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test parity check bench clean

demo: $(VENV)/.installed
	$(BIN)/arena study=who_moves_first

test: $(VENV)/.installed check
	$(BIN)/python -m pytest

# What takes minutes: published models, the reference libraries beside ours, and Ray.
parity: $(VENV)/.peers
	$(BIN)/python -m pytest -m "slow or peers"

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m tests.bench

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# adv-lib declares a plotter that does not install; the attacks that are compared do not use it.
$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,peers,ray]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps adv-lib==0.2.8
	@touch $@

clean:
	rm -rf $(VENV) dist
