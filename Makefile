# Everything a newcomer needs: make demo, make test. Both make the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA := $(abspath $(firstword $(wildcard ../shared/data)))
export ENVGYM_DATA ?= $(DATA)

.PHONY: demo test check format docs coverage clean help

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

demo: $(VENV)/.installed  ## train the built-in model on four environments, before and after
	$(BIN)/envgym train recipes/quickstart.toml

test: $(VENV)/.installed  ## every test, in parallel
	$(BIN)/python -m pytest -n 3 --dist worksteal

check: $(VENV)/.installed  ## style, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the documentation in site/, its links and anchors checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

coverage: $(VENV)/.installed  ## what the tests reach
	$(BIN)/python -m pytest -n 3 --dist worksteal --cov --cov-report=term:skip-covered

clean:  ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site .coverage .coverage.*
