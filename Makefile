# The README's commands. Each sets up .venv first, so that it runs on a fresh machine.
PYTHON ?= python3
BIN = .venv/bin
RUN = $(BIN)/python
# of test-all: kills of each script, run-length cases, and damaged files of each format
KILLS = 50
CASES = 1000000
INPUTS = 3000

.PHONY: demo test test-all faults-kills faults-saves lint figures lock audit clean

demo: .venv/installed  ## phantom, fine-tuning and scores in a folder of its own
	$(RUN) demo.py

test: .venv/tested lint  ## lint and all tests, a file at a time in each of two processes
	$(RUN) -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test-all: .venv/tested  ## the long tests, two at a time: faults by the hundred
	$(MAKE) --jobs=2 faults-kills faults-saves

faults-kills: .venv/tested
	$(RUN) benchmarks/faults.py --kills $(KILLS) --saves 0

faults-saves: .venv/tested
	$(RUN) benchmarks/faults.py --kills 0 --saves $(KILLS)
	$(RUN) benchmarks/damaged.py --cases $(CASES) --inputs $(INPUTS)

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

figures: .venv/installed  ## redraw images/ from committed tables and phantoms
	$(RUN) benchmarks/figures.py

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
		f"Python {v[0]}.{v[1]} is not supported; give one of 3.11 to 3.13: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/tested: requirements/test.txt requirements/dicom.txt requirements/export.txt requirements/app.txt \
		requirements/tensorboard.txt requirements/raters.txt .venv/installed
	$(BIN)/python -m pip install --quiet --requirement requirements/test.txt
	touch $@

lock:  ## write requirements/lock.txt anew from requirements.txt
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet uv
	.venv-audit/bin/uv pip compile requirements.txt --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file requirements/lock.txt

audit:  ## ask the advisory database about every package of requirements/lock.txt (needs the internet)
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --requirement requirements/lock.txt --require-hashes --disable-pip

clean:  ## remove what the commands above made, but not the weights
	rm -rf demo .venv .venv-audit .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
