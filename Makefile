# Every target sets up .venv by itself; nothing is needed but Python 3.11+, make and git.
PYTHON ?= python3
PYTHON311 ?= $(shell command -v python3.11 || echo $(PYTHON))
VENV := .venv
BIN := $(VENV)/bin
# One BLAS thread everywhere: tiny matrices only lose by more, and results stay the same on every machine.
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1

.PHONY: help demo test check bench fuzz fault fault-release models docs tflite-runtime format lock clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml requirements/dev.lock
	@echo "setting up $(VENV) (once, about two minutes)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(VENV)/.installed ## a simulated plant, the agent, faults and explained alarms, in under two minutes
	@$(BIN)/hark demo

test: $(VENV)/.installed ## every test, with a coverage report
	@$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered

check: $(VENV)/.installed ## format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/.installed ## put the code into the house's shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.installed ## latency, memory, throughput, features beside their peers (PART=features for one part)
	@$(BIN)/hark bench $(PART)

INPUTS ?= 1000000
SEED ?= 0
fuzz: $(VENV)/.installed ## hostile inputs for every decoder (INPUTS=1000000 SEED=0 TARGET=frames)
	@$(BIN)/python tests/fuzz.py --inputs $(INPUTS) --seed $(SEED) $(if $(TARGET),--target $(TARGET))

# FAULT=kill, power, full or corrupt for one kind; power cuts need root, and the packages named in .ci/run.
fault: $(VENV)/.installed ## killed, cut off, full and damaged: the store under faults, a minute (FAULT=power for one kind)
	@$(BIN)/python tests/faults.py --json $(if $(FAULT),--kind $(FAULT))

fault-release: $(VENV)/.installed ## the same in the counts of a release; most of it power cuts
	@$(BIN)/python tests/faults.py --json --release $(if $(FAULT),--kind $(FAULT))

# A shipped model meets machines that have some of its columns only; quadratic forms leave a column out exactly.
FORMS := --family pca --family mahalanobis --family limits --family rms_limit

models: $(VENV)/.installed ## rebuild the generic bundles in models/ from the simulator
	@$(BIN)/hark train --generic motor $(FORMS) --out models/motor/1.0.0
	@$(BIN)/hark train --generic pump $(FORMS) --out models/pump/1.0.0
	@$(BIN)/hark train --generic temperature --out models/temperature/1.0.0
	@$(BIN)/hark train --generic bearing_scalars --out models/bearing_scalars/1.0.0

quality: $(VENV)/.installed ## months of simulated machines: false alarms, faults found and named, sensors told; some twelve minutes
	@OPENBLAS_NUM_THREADS=1 $(BIN)/hark evaluate simulator --docs

docs: $(VENV)/.installed ## rewrite docs/ from the declarations of features and the simulator
	@$(BIN)/python -m training.feature_docs .

tflite-runtime: .venv-tflite/.installed ## the shipped bundles under tflite-runtime 2.14 itself (Python 3.11)
	@.venv-tflite/bin/python -m pytest tests/cell_tflite

.venv-tflite/.installed: requirements/tflite-runtime.txt pyproject.toml
	@$(PYTHON311) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "tflite-runtime 2.14 exists for Python 3.11 only; set PYTHON311=/path/to/python3.11")'
	@$(PYTHON311) -m venv .venv-tflite
	@.venv-tflite/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/tflite-runtime.txt
	@.venv-tflite/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lock: $(VENV)/.installed ## renew requirements/dev.lock (needs uv)
	@uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --group dev --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet -o requirements/dev.lock

clean: ## remove everything that was made here
	@rm -rf $(VENV) .venv-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
