# Set-up and daily work. Only Python 3.11+ and make are needed; everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip

.PHONY: setup demo test test-slow browser lint types format check bench docs

demo: .venv/.installed
	$(BIN)/diffsteer demo --out demo

# A thread a worker: two workers of two threads each, on two cores, wait for one another.
test: .venv/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.installed-test
	$(BIN)/python -m pytest -m slow

# The page in Chromium, where there is one. BROWSER="-k find_again" for the whole stories alone; SCREENSHOTS=folder keeps the pictures.
browser: .venv/.installed-test
	$(BIN)/python -m pytest -m slow tests/app/test_browser.py tests/app/test_browser_training.py $(BROWSER)

setup: .venv/.installed-dev
	$(BIN)/pre-commit install

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint types test

# BENCH="--full --out benchmarks/results" for more; see docs/benchmarks.md.
bench: .venv/.installed-test
	$(BIN)/python benchmarks/suite.py $(BENCH)

# Into site/: the pages, and each page of the guide as a notebook. The variable silences an advertisement of the theme's.
docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/guide.py notebooks site/notebooks

# torch first and alone: a pinned torch that is already there keeps pip from fetching another one for its dependants.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -q --disable-pip-version-check -c constraints.txt torch
	$(PIP) install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.installed-test: .venv/.installed
	$(PIP) install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

.venv/.installed-dev: .venv/.installed-test
	$(PIP) install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv/.installed-docs: .venv/.installed
	$(PIP) install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
