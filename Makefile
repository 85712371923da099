# `make demo` and `make test` work from a bare clone: they build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint types site dist install gpu-check

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,dense,stream,site,notebook]'
	touch $@

demo: install
	$(BIN)/python -m lit_splitmask.demo

# One process per core, a file of tests at a time: most tests use one thread.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# From docs/, README.md, CONTRIBUTING.md and the docstrings; a broken link or a wrong docstring fails. Asks no server for anything.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in build/site: open build/site/index.html, or, for the search too, run python3 -m http.server -d build/site"

# Wheel and source distribution, checked as PyPI would.
dist: install
	rm -rf dist
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/twine check --strict dist/*

check: lint types test site dist

# The tests and benchmarks that need a GPU, in less than ten minutes.
gpu-check: install
	$(BIN)/python benchmarks/gpu_check.py
