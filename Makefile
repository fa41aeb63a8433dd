# make setup   create .venv and install everything, pinned     make demo    play a small network, results in demo/
# make quick   lint, types and the quickest tests (a minute)   make test    lint, types, tests (minutes)
# make test-all  slow suites, with Flower and Ray, too; dated     make test-adapters   train with every RL library
# make coverage  branch coverage of dpem_env, at least 95 %    make golden  record the golden episodes again
# make bench   measure speed and memory                        make release build and try what is published
# make site    build the documentation as a site, in site/     make lock    lock versions of users with their hashes
# make licences  list the licences of all that is installed
# Experiments are declared: .venv/bin/dpem reproduce --help. Data that is not shipped is used where DPEM_DATA says.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := python -m pip install --quiet --disable-pip-version-check
REPRODUCE := $(BIN)/dpem reproduce
SLOW := baselines/results/test-all.txt
unexport PYTHONDONTWRITEBYTECODE # tests start hundreds of processes, each of which would compile all modules again

# What needs Flower or Ray: tested in a virtual environment of its own, since Flower's pins are older than ours.
FLOWER := tests/agents/test_federated_flower.py tests/agents/test_federated_deployment.py tests/experiments/test_workers.py
FLOWER += tests/notebooks/test_notebooks.py::test_a_notebook_runs[federation_and_privacy]
QUICK := tests/simulator tests/observations tests/scenarios tests/envs/test_session.py tests/test_architecture.py
# Compiled code is measured while it runs as plain Python, where numpy warns that the words of randomness.py wrap around.
COMPILED := tests/simulator tests/network/test_routes.py tests/observations/test_features.py tests/envs/test_control.py

.PHONY: setup demo quick test test-all test-adapters coverage golden bench licences lock release lint site
setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/playable
	$(BIN)/dpem demo --out demo
$(VENV)/playable: pyproject.toml constraints.txt # no torch, and no tools of those who build it
	test -e $(VENV)/installed || ($(PYTHON) -m venv $(VENV) && $(BIN)/$(PIP:--quiet=) --constraint constraints.txt --editable .)
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
quick: lint
	$(BIN)/python -m pytest -m "not slow" $(QUICK)
test: lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup

test-all: test .adapters/flower/installed
	date -u +"slow suites, %Y-%m-%d" > $(SLOW)
	DPEM_FUZZ=6 $(BIN)/python -m pytest tests/hostile --no-header -rpsfE -q >> $(SLOW) || (cat $(SLOW); false)
	$(BIN)/python -m pytest -m slow $(FLOWER:%=--deselect %) --no-header -rpsfE >> $(SLOW) || (cat $(SLOW); false)
	.adapters/flower/bin/python -m pytest $(FLOWER) --no-header -rpsfE >> $(SLOW) || (cat $(SLOW); false)
	cat $(SLOW)

# Every RL library in a virtual environment that it gets on with; needs a registry, minutes and gigabytes.
LIBRARIES_main := torch torchrl tianshou 'ray[rllib]'
LIBRARIES_benchmarl := torch benchmarl
LIBRARIES_agilerl := torch agilerl peft
LIBRARIES_flower := torch 'flwr[simulation]' nbclient ipykernel
EXTRAS_flower := [flower]

test-adapters: setup $(foreach set,main benchmarl agilerl,.adapters/$(set)/installed)
	$(REPRODUCE) adapters
	.adapters/main/bin/python -m pytest tests/adapters -m "not slow"
	for set in benchmarl agilerl; do .adapters/$$set/bin/python -m pytest tests/adapters -k "installed and $$set" || exit 1; done
.adapters/%/installed: pyproject.toml tests/adapters/constraints-%.txt
	$(PYTHON) -m venv .adapters/$*
	.adapters/$*/bin/$(PIP) --constraint tests/adapters/constraints-$*.txt $(LIBRARIES_$*) pytest --editable '.$(EXTRAS_$*)'
	touch $@
coverage: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow" --ignore tests/test_packaging.py
	NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest $(COMPILED) -m "not slow" -k "not mesh100" -W ignore:overflow:RuntimeWarning
	$(BIN)/coverage combine && $(BIN)/coverage report
golden: setup
	PYTHONPATH=tests $(BIN)/python -m golden.record
bench: setup
	$(REPRODUCE) speed && $(REPRODUCE) pages
site: setup
	$(BIN)/python docs/site/notebooks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml
licences: setup .adapters/licences/installed .adapters/flower/installed
	$(BIN)/python docs/licences.py .adapters/licences .adapters/flower
.adapters/licences/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .adapters/licences
	.adapters/licences/bin/$(PIP) --constraint constraints.txt --editable '.[dev,statistics,ray,gpu]'
	touch $@
# On Linux PyTorch comes from its own index (docs/versioning.md): the general one has it there with gigabytes for CUDA.
LOCK := $(BIN)/uv pip compile pyproject.toml --constraint constraints.txt --universal --python-version 3.11
LOCK += --generate-hashes --quiet --custom-compile-command "make lock"
lock: setup
	$(LOCK) --output-file requirements.txt
	sed -n "s/^torch==.*/& ; sys_platform != 'linux'/p" constraints.txt | $(LOCK) --override /dev/stdin \
		--extra agents --extra federated --extra statistics --output-file requirements-agents.txt
release: test
	rm -rf dist && $(BIN)/python -m build --no-isolation && $(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv dist/try && dist/try/bin/$(PIP) --constraint constraints.txt dist/*.whl && dist/try/bin/dpem list
