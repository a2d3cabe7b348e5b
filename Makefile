# Every target makes the environment that it needs, once, in .venv.
# Another interpreter: make test PYTHON=python3.12. More arguments: make demo ARGS=--help.

PYTHON ?= python3
ARGS =
BIN = .venv/bin
INSTALLED = .venv/.installed
PIP = $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
# Its build, for a CPU or one kind of GPU, is chosen by the indexes that pip is set up with, and so has no hash here.
TORCH = torch==2.13.0
RESOLUTION = highest

# Tests run on every core, in at most WORKERS processes; in this one with ARGS='-n 0'.
WORKERS = 8

.PHONY: help demo test lint docs benchmark bounds licences lock clean

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

docs: $(INSTALLED) ## build the documentation into site/; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "open site/index.html, or run $(BIN)/mkdocs serve"

benchmark: $(INSTALLED) ## compare fitted solvers with classical ones
	@$(BIN)/python benchmarks/learned_solvers.py $(ARGS)

# Versions that we did not choose may warn.
bounds: ## tests with the newest versions allowed, by uv; RESOLUTION=lowest-direct takes the oldest
	@uv venv --quiet --clear --python $(PYTHON) .venv-bounds
	@uv pip install --quiet --python .venv-bounds --resolution $(RESOLUTION) -e '.[dev]'
	@.venv-bounds/bin/python -m pytest -q -o filterwarnings= -n auto --maxprocesses $(WORKERS) --dist worksteal $(ARGS)

licences: $(INSTALLED) ## list the licences of all that is installed, dependencies of dependencies too
	@$(BIN)/pip-licenses --from=mixed --order=license --with-urls $(ARGS)

lock: ## resolve requirements.txt anew, by uv; ARGS=--upgrade takes new versions
	@UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra dev --universal \
		--python-version 3.10 --generate-hashes --no-annotate --no-emit-package torch --quiet \
		--output-file requirements.txt $(ARGS)
	@awk '/^[a-z]/ { kept = !/^(cuda|nvidia|triton)/ } /^#/ || kept' requirements.txt > requirements.tmp
	@mv requirements.tmp requirements.txt

clean: ## remove the environment, caches and builds
	@rm -rf .venv .venv-bounds .mypy_cache .pytest_cache .ruff_cache build dist site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml requirements.txt
	@echo "== installing into .venv, once (a few minutes where torch must be downloaded)"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes --no-deps -r requirements.txt
	@$(PIP) install $(TORCH)
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
