# The two commands of the README, and what they stand on. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: study test bench lint clean

study: .venv/ready          ## train, compare, judge: all studies at scale small; prints the path of their report
	$(BIN)/closerlook study all --scale small

test: .venv/ready lint      ## style, types and the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

bench: .venv/ready          ## speed, as interleaved ratios; writes benchmarks/results
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# torch first and alone: nothing that comes later may choose another build of it.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
