# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: env demo test lint types unit bench bench-scaling bench-passes chaos lock clean

env: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

demo: env  ## fit two photographs and a store larger than memory; pictures and models go to demo-output/
	$(BIN)/daskmix demo --out demo-output --overwrite

test: lint types unit  ## everything that must hold before a commit

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

# A file's tests stay in one process, in the order of their names: those that take long come early, and what one file
# measures (memory of children, files left in scratch, clusters) is not disturbed by its own other tests.
unit: env
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Spark (which needs Java) and scikit-learn-intelex are timed where they are installed, and are not in the lock:
#   .venv/bin/pip install pyspark scikit-learn-intelex
bench: env  ## ratios to peers and to the limits of this machine, in one run of hours; writes docs/performance.md
	$(BIN)/python -m benchmarks --write docs/performance.md

bench-scaling: env  ## a model of a pass, fitted and checked on this machine in five minutes; writes docs/scaling.md
	$(BIN)/python -m benchmarks.simulate --write docs/scaling.md

bench-passes: env  ## passes to a solution, counted, in a quarter of an hour; writes docs/passes.md
	$(BIN)/python -m benchmarks.passes --write docs/passes.md

# The object store that these tests need lives apart: its packages are not ours to choose versions of.
CHAOS := .chaos

$(CHAOS)/.installed: chaos/requirements.txt
	$(PYTHON) -m venv $(CHAOS)
	$(CHAOS)/bin/pip install --quiet --requirement chaos/requirements.txt
	touch $@

chaos: env $(CHAOS)/.installed  ## faults done to real processes; as root also to networks and disks
	$(BIN)/pytest chaos --durations=0 --durations-min=1 -rs

lock:  ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-emit-package daskmix --extra dev --extra bench pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) $(CHAOS) chaos-logs demo-output .pytest_cache .mypy_cache .ruff_cache
