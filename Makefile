# One virtual environment in this folder does everything. PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PEERS := $(VENV)/installed-peers
RUN ?= quick

.PHONY: quickstart test check report race clean

quickstart: $(INSTALLED)  ## Install, run the quick matrix, write its report. A few minutes on two cores.
	$(BIN)/attnbench run quick; ended=$$?; $(BIN)/attnbench report quick && exit $$ended

test: $(INSTALLED)  ## The tests, in two processes.
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(INSTALLED)  ## Linter, formatter, types, and the contract of every variant.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/attnbench check --all

report: $(INSTALLED)  ## The report of a run: make report RUN=name
	$(BIN)/attnbench report $(RUN)

race: $(PEERS)  ## Every variant against the public implementation of its paper. A quarter of an hour on two cores.
	$(BIN)/python -m tests.benchmarks.race

clean:  ## Remove what was built. Runs and reports stay.
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,peers]'
	touch $@
