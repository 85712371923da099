# `make demo` and `make test` work from a bare clone: they build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint types install gpu-check

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,dense]'
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

check: lint types test

# The tests and benchmarks that need a GPU, in less than ten minutes.
gpu-check: install
	$(BIN)/python benchmarks/gpu_check.py
