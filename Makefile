# Every target makes the environment that it needs, once, in .venv.
# Another interpreter: make test PYTHON=python3.12. More arguments: make demo ARGS=--help.

PYTHON ?= python3
ARGS =
BIN = .venv/bin
INSTALLED = .venv/.installed

# Tests run on every core, in at most WORKERS processes; in this one with ARGS='-n 0'.
WORKERS = 8

.PHONY: help demo test lint benchmark clean

help: ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## fit a solver to a bundled model and show what it gains
	@$(BIN)/fewstep demo $(ARGS)

test: lint ## lint, types and the tests
	@echo "== pytest"
	@$(BIN)/python -m pytest -q -n auto --maxprocesses $(WORKERS) --dist worksteal $(ARGS)

lint: $(INSTALLED) ## ruff (rules and format) and mypy
	@echo "== ruff check"
	@$(BIN)/ruff check
	@echo "== ruff format"
	@$(BIN)/ruff format --check
	@echo "== mypy"
	@$(BIN)/mypy

benchmark: $(INSTALLED) ## compare fitted solvers with classical ones
	@$(BIN)/python benchmarks/learned_solvers.py $(ARGS)

clean: ## remove the environment, caches and builds
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@echo "== installing into .venv, once (a few minutes where torch must be downloaded)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
