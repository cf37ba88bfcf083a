# One environment (.venv), one set of data (data/), one place for runs (results/).
PYTHON ?= python3
BIN := .venv/bin
# Ten of the 48 classes that make_stamps.py knows: enough clips of each for a quarter of an hour of training.
STAMPS := cow,duck,rooster,frog,lion,elephant,drum_kit,cymbal,violin,bassoon
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
export PYTHONHASHSEED := 0

.PHONY: env data train stamps test notebooks lab clean

env: .venv/.complete

.venv/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or 3.12 is needed, found " + sys.version.split()[0] if not (3, 11) <= sys.version_info < (3, 13) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebooks,test]'
	touch $@

data: env
	$(BIN)/python data_scripts/make_demo.py --out data/demo

train: data
	mkdir -p results/demo
	$(BIN)/papermill notebooks/08_training.ipynb results/demo/08_training.ipynb -p preset demo -p output results/demo --log-output

stamps: env
	$(BIN)/python data_scripts/make_stamps.py --out data/stamps --size 112 --classes $(STAMPS)
	mkdir -p results/stamps
	$(BIN)/papermill notebooks/08_training.ipynb results/stamps/08_training.ipynb -p preset stamps -p output results/stamps --log-output

test: env
	$(BIN)/python -m pytest tests
	$(BIN)/python -m pytest --nbval -p no:cacheprovider notebooks

# Runs every notebook from top to bottom and stores its outputs without what differs from run to run.
notebooks: env
	for notebook in $(NOTEBOOKS); do \
		$(BIN)/jupyter nbconvert --to notebook --execute --inplace $$notebook && $(BIN)/python tests/normalise.py $$notebook || exit 1; \
	done
	$(BIN)/python data_scripts/picture_series.py docs/series.jpg

lab: env
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf .venv data results .pytest_cache .ruff_cache *.egg-info
