# Everything starts here on a fresh clone. Nothing has to be installed but make and Python 3.11 to 3.13.
#
#   PYTHON=/usr/bin/python3.12   the Python that .venv is made from
#   VARIANT=cpu|gpu              default: gpu where an NVIDIA card is found
#   ARGS="-k calculator -x"      further arguments for pytest

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint types setup clean

export PYTHON
BOOTSTRAP := $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 $(PYTHON),$(shell command -v $(name))))
SETUP = $(if $(BOOTSTRAP),$(BOOTSTRAP) .ci/setup.py --variant "$(VARIANT)",echo "setup: needs Python 3.11, 3.12 or 3.13, and found none; install one." >&2; false)
BIN := .venv/bin

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Set up, then watch an agent call tools, stop, and resume
	@$(SETUP) demo
	@$(BIN)/vllm-agent demo

test: lint types ## Set up, then run linter, type checker and all tests
	$(BIN)/python -m pytest $(ARGS)

lint: setup ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Check types, strictly
	$(BIN)/mypy

setup: ## Make .venv with everything for development, and the embedded model
	@$(SETUP) test

clean: ## Remove .venv and build leftovers; conversations and the model stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
