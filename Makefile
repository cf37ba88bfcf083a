# One environment (.venv), one set of data (data/), one place for runs (results/).
# What follows in TRAIN goes to notebook 08, in DATA to the script that makes the clips:
#     make train TRAIN="-p epochs 40 -p output results/longer"        make train DATA="--clips 30,6,6" TRAIN="-p epochs 1"
PYTHON ?= python3
BIN := .venv/bin
LOG := --log-output --no-progress-bar
# Whole files go to a few processes of one thread each. On two cores three of them, because at times one only waits.
WORKERS := $(shell test "$$(getconf _NPROCESSORS_ONLN)" -lt 3 && echo 3 || echo 4)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
PYTHON_FILES := pcma_lib pcma_data data_scripts maintain notebooks/solutions site tests conftest.py
export PYTHONHASHSEED := 0
# Of a JupyterLab whose notebook or terminal calls make: what is started here does not run in it, and prints lines.
unexport JPY_SESSION_NAME
APT := Debian, Ubuntu: sudo apt-get install

.PHONY: env data train stamps test code lessons lint slow browser gpu wheel notebooks lab site site-links colab clean

env: .venv/.complete

.venv/.complete: pyproject.toml constraints.txt
	@command -v git > /dev/null || echo "Git is missing ($(APT) git; macOS: xcode-select --install). The lessons run without it."
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is missing. $(APT) python3 python3-venv; macOS: brew install python@3.12."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Python 3.11, 3.12 or 3.13 is needed, and" \
		"$(PYTHON) is $$($(PYTHON) --version). Name another one: make env PYTHON=python3.12 ($(APT) python3.12 python3.12-venv; macOS: brew install python@3.12)."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON) can't make environments. $(APT) python3-venv."; exit 1; }
	@echo "Installing PyTorch, JupyterLab and the rest into .venv: about 3 GB from the network, 6 GB on the disk. pip shows how far it is."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[notebooks,test]'
	@$(BIN)/python -m pcma_data weights --only tf_efficientnet_lite0 || echo "Lesson 02 and make stamps will fetch this encoder again."
	@touch $@
	@echo "The environment is ready."

data: env
	$(BIN)/python data_scripts/make_demo.py --out data/demo $(DATA)

# A run that was interrupted goes on; one that is finished is kept and shown.
train: data
	@mkdir -p results/demo
	$(BIN)/papermill notebooks/08_training.ipynb results/demo/08_training.ipynb -p preset demo -p resume True $(LOG) $(TRAIN)

stamps: env
	$(BIN)/python -m pcma_data weights --only tf_efficientnet_lite0
	$(BIN)/python data_scripts/make_stamps.py --out data/stamps $(DATA)
	@mkdir -p results/stamps
	$(BIN)/papermill notebooks/08_training.ipynb results/stamps/08_training.ipynb -p preset stamps -p resume True $(LOG) $(TRAIN)

# In a temporary folder, see conftest.py: your data/ and results/ stay as they are. Both at once, so that no core waits.
test: env
	CUDA_VISIBLE_DEVICES= $(PYTEST) --nbval -p no:cacheprovider tests notebooks

code: env
	$(PYTEST) tests

lessons: env
	$(PYTEST) --nbval -p no:cacheprovider notebooks

lint: env
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)

slow: env
	$(BIN)/python -m pytest -m slow tests

# The wheel is built, installed elsewhere and used there.
wheel: env
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_package.py

# Runs every notebook, stores its outputs without what differs from run to run, and draws the diagrams anew.
notebooks: env
	for notebook in $(NOTEBOOKS); do \
		$(BIN)/jupyter nbconvert --to notebook --execute --inplace $$notebook && $(BIN)/python tests/normalise.py $$notebook || exit 1; \
	done
	$(BIN)/python maintain/picture_series.py docs/series.jpg
	$(BIN)/python maintain/diagrams.py docs/diagrams

lab: env
	$(BIN)/jupyter lab notebooks

.venv/.site: .venv/.complete
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[site]'
	@touch $@

# Web pages of everything in site/_build/html, built without running a notebook. They link to the repository, to Colab and
# to Binder when they are told where it is: make site REPOSITORY=owner/name
site: .venv/.site
	$(BIN)/python site/build.py --repository '$(REPOSITORY)'

# Copies of the lessons that run on Colab become the branch `colab` of the repository, which the buttons of the site open:
# make colab REPOSITORY=owner/name
colab:
	$(PYTHON) site/colab.py '$(REPOSITORY)' --push

# Follows the links to other sites, which takes a network.
site-links: .venv/.site
	$(BIN)/python site/build.py --links

browser: .venv/.site
	$(BIN)/python -m pytest -m browser tests

# What is different on a GPU, then how fast it is: tables in results/gpu.md.
gpu: data
	$(BIN)/python -m pytest -m gpu tests
	@mkdir -p results
	for what in 'inference --batch 1 8 32 --compile' 'inference --gated data/demo' 'inference --network avs' 'training --tune --compile' \
		'training --backbone pvt_v2_b5 --tune' 'loading --data data/demo --workers 8'; do \
		echo "$$what" && $(BIN)/python -m pcma_lib.benchmark $$what || exit 1; \
	done > results/gpu.md
	@cat results/gpu.md

# Not what can't be had again in minutes: data/, weights/ and results/ are yours to delete.
clean:
	rm -rf .venv site/_build .pytest_cache .ruff_cache *.egg-info
