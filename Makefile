# `make` says what there is. Everything runs in .venv, made with plain venv and pip.

BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHON := .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-core check bench clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo       fetch the default models, ingest examples/, ask three questions'
	@echo 'make test       the whole test suite (core first, slow tests last)'
	@echo 'make test-core  only the tests that need no real model'
	@echo 'make check      lint, format, types, layers, sizes, generated documents'
	@echo 'make bench      every benchmark in its quick form'
	@echo 'make clean      remove the environment, caches and the demo data'

.venv/stamp: pyproject.toml
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or newer; set BASE_PYTHON")'
	@echo 'making the environment in .venv; this takes a minute or two'
	@$(BASE_PYTHON) -m venv .venv
	@$(PYTHON) -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: .venv/stamp
	@scripts/demo

test: .venv/stamp
	$(PYTHON) -m pytest

test-core: .venv/stamp
	$(PYTHON) -m pytest -m 'not slow'

check: .venv/stamp
	@scripts/check

bench: .venv/stamp
	@for name in $$(scripts/bench --list | cut -d' ' -f1); do \
		echo "== $$name"; scripts/bench "$$name" --quick || exit 1; \
	done

clean:
	rm -rf .venv .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
