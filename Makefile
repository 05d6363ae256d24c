# `make` lists the targets; README.md explains them.
# Settings: CONFIG, RESULTS, PORT, PYTHON, PYTEST_ARGS, BENCH_ARGS, as in
# `make reproduce CONFIG=config/paper.yaml`.
# COTDISTILL_DATA (the folder of the published data) is taken from the environment.

CONFIG ?= config/demo.yaml
RESULTS ?= results
PORT ?= 5000
PYTEST_ARGS ?=
BENCH_ARGS ?=

# The lock is made with 3.11, so that comes first. Each candidate is run, as a version manager's
# shim may stand for an interpreter that is not installed; the base executable is taken because a
# rebuilt .venv must not be built by itself.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; print(sys._base_executable)' 2>/dev/null && exit; done; echo python3)

# Run from the environment without activating it.
RUN := PATH="$$(pwd -P)/.venv/bin:$$PATH"

# A .venv whose interpreter is gone, or that was moved with its folder, is not ready.
$(shell [ "$$(cat .venv/.ready 2>/dev/null)" = "$$(pwd -P)" ] && .venv/bin/python -c '' 2>/dev/null \
	|| rm -f .venv/.ready)

# The shell reads these as variables, never as its own words: a path may hold spaces, quotes and the like.
export CONFIG RESULTS
export PIP_DISABLE_PIP_VERSION_CHECK := 1
.DEFAULT_GOAL := help
.PHONY: help setup reproduce test bench lint figures mlflow lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: .venv/.ready ## build .venv from requirements.lock
	@echo "ready: .venv/bin/cotdistill"

# While .ready is missing the environment is half-made and is built anew; where it is only older
# than the lock it is brought up to date in place.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		2>/dev/null || { echo "error: '$(PYTHON)' is not Python 3.11, 3.12 or 3.13 with venv;" \
		"install one (Debian: python3.11-venv) or run 'make setup PYTHON=/path/to/python3.11'" >&2; exit 1; }
	@test -f $@ || { echo "building .venv with $(PYTHON)"; $(PYTHON) -m venv --clear .venv; }
	@rm -f $@
	@echo "installing requirements.lock (a few minutes the first time)"
	@.venv/bin/python -m pip install -q -r requirements.lock
	@.venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@pwd -P > $@

reproduce: .venv/.ready ## run the whole experiment of CONFIG (config/demo.yaml) and print its table
	@$(RUN) .venv/bin/cotdistill reproduce --config "$$CONFIG"

figures: .venv/.ready ## draw the figures of CONFIG
	@$(RUN) .venv/bin/snakemake --configfile "$$CONFIG" --cores all figures

mlflow: .venv/.ready ## browse the runs of RESULTS (results) at http://localhost:PORT
	@test -f "$$RESULTS/mlflow.db" || { echo "error: no MLflow store at $$RESULTS/mlflow.db;" \
		"run 'make reproduce' first, or name the folder with RESULTS=" >&2; exit 1; }
	@echo "http://localhost:$(PORT) (Ctrl-C stops it)"
	@$(RUN) .venv/bin/mlflow ui --backend-store-uri "sqlite:///$$RESULTS/mlflow.db" --port $(PORT)

# One thread a process: two workers share the machine, and sums do not depend on its cores.
test: .venv/.ready ## run the tests; PYTEST_ARGS='-m "not slow"' for the quick ones
	@$(RUN) OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

bench: .venv/.ready ## measure speed and memory against the published way; BENCH_ARGS='--part steps' for less
	@$(RUN) .venv/bin/python -m benchmarks.speed $(BENCH_ARGS)

lint: .venv/.ready ## ruff, mypy, the floors of the package and snakemake --lint
	@$(RUN) .venv/bin/ruff check .
	@$(RUN) .venv/bin/mypy
	@$(RUN) .venv/bin/lint-imports --no-cache
	@$(RUN) .venv/bin/snakemake --lint

# The CUDA libraries stay out: torch pins its own exactly, and only Linux has them. A local part
# such as '+cpu' goes, so that the lock holds for every build of the same version.
lock: ## resolve pyproject.toml anew in a fresh environment and write requirements.lock
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(PYTHON) -m venv "$$tmp/v"; \
	"$$tmp/v/bin/python" -m pip install -q -e '.[dev]'; \
	{ echo "# Every package of the environment, made by 'make lock' from pyproject.toml; do not edit."; \
	  "$$tmp/v/bin/python" -m pip freeze --all --exclude pip --exclude-editable \
	  | sed -e 's/+[a-z0-9.]*$$//' -e '/^nvidia-/d' -e '/^cuda-/d' -e '/^triton==/d'; \
	} > "$$tmp/lock"; cp "$$tmp/lock" requirements.lock

clean: ## remove caches and build leftovers; results, data and .venv stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find src tests workflow -name __pycache__ -type d -prune -exec rm -rf {} +
