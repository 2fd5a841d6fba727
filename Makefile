# Everything happens in .venv, made once and again when pyproject.toml changes. pip's own settings are honoured.

PYTHON ?= python3
DEMO_OVERRIDES ?=
PYTEST_ARGS ?=
SINCE ?=

BIN := .venv/bin
READY := .venv/.ready

# Where the environment forbids bytecode on the disk, each of the many processes of the tests would compile the package.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test integration quick kill-test check format docs bench bench-sweeps clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv and install everything into it

demo: $(READY) ## the main job: the best CNN for the embedded digits in two minutes (DEMO_OVERRIDES="key=value ...")
	$(BIN)/da6401 train --multirun sweep=tune_a data.image_size=32 augmentation.flip=0 sweep.minutes=2 $(DEMO_OVERRIDES)

test: $(READY) ## the tests of the code, in about six minutes (PYTEST_ARGS="-k name")
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not integration" $(PYTEST_ARGS)

integration: $(READY) ## the tests of whole workflows and with other programs: CONTRIBUTING.md names them
	$(BIN)/python -m pytest -n auto --dist worksteal -m integration $(PYTEST_ARGS)

quick: $(READY) ## the tests that a change most likely breaks, in less than a minute (SINCE=COMMIT)
	$(BIN)/python -m tests.quick $(SINCE)

kill-test: $(READY) ## 25 runs, and a sweep 25 times, killed (SIGKILL) at random moments, resumed, and compared
	DA6401_KILLS=25 $(BIN)/python -m pytest tests/run/test_kill.py tests/sweep/test_worker_crash.py -k random

check: $(READY) ## format, lint, strict types, direction of the imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_import_layers.py

format: $(READY) ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## the documentation as a site, site/index.html; a wrong link or anchor is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: $(READY) ## is the data as fast as the device? about five minutes; table in benchmarks/README.md
	$(BIN)/python -m pip install --quiet -e '.[dev,offline,bench]'
	$(BIN)/python -m benchmarks.data

bench-sweeps: $(READY) ## pruning, overhead, slots: an hour and more; ROOT=<clothing-small>; page in benchmarks/sweeps.md
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.slots
	$(BIN)/python -m benchmarks.pruning --root $(ROOT)
	$(BIN)/python -m benchmarks.sweeps

clean: ## remove .venv and every cache; runs under outputs/ stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "da6401 needs Python 3.11 or newer; '$(PYTHON)' is missing or older. Use: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -e '.[dev,offline]'
	@$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true # pip would compile with one core alone
	@touch $@
