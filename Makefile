# make setup   create .venv and install everything, pinned      make demo    run the main job, results in demo/
# make test    lint, types, tests (minutes)                     make bench   measure speed, table in baselines/results/
# make test-all  slow suites too                              make results  measure again what README and docs quote (an hour)
# make test-adapters   train with every RL library there is an adapter for
# make tuned    search the baselines' options (an hour)         make forecasters forecasts   train and score them (half an hour)
# make searched learners learned   search, train and score PPO policies (hours)
# make federated dpem   averaging, privacy and attacks; the paper's system on mesh100 (two hours)
# make golden  record the golden episodes again, after rules changed on purpose
# make coverage  branch coverage of dpem_env, at least 95 %
# Data that is not shipped is used where DPEM_DATA names its folder (see: dpem list).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
RUN := $(BIN)/dpem run --policy local-reactive --policy central-reactive --delay 0 --delay 0.5

# Processes of the long targets
WORKERS ?= 2

# Options of tests/bench/peers.py, e.g. PEERS="--python python3.12"
PEERS ?=
SLOW := baselines/results/test-all.txt

SPACE := $(subst ,, )
COMMA := ,

# What needs Flower or Ray: tested in a virtual environment of its own, since Flower's pins are older than ours.
FLOWER := tests/agents/test_federated_flower.py tests/agents/test_federated_deployment.py
FLOWER += tests/notebooks/test_notebooks.py::test_a_notebook_runs[federation_and_privacy]
FLOWER += tests/experiments/test_workers.py

.PHONY: setup demo test test-all tuned forecasters forecasts searched learners learned results bench golden coverage

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(RUN) --seeds 5 --scenario mesh100-v0 --out demo/mesh100
	$(RUN) --seeds 5 --scenario surfnet-v0 --out demo/surfnet
ifneq ($(DPEM_DATA),)
	$(RUN) --seeds 5 --scenario abilene-trace-v0 --out demo/abilene-trace
else
	@echo "abilene-trace-v0 left out: set DPEM_DATA to the folder that holds the trace ($(BIN)/dpem list says where to get it)"
endif
	@echo "look at demo/mesh100/results.png"

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow" -n 2

test-all: test .adapters/flower/installed
	date -u +"slow suites, %Y-%m-%d" > $(SLOW)
	$(BIN)/python -m pytest -m slow $(FLOWER:%=--deselect %) --no-header -rpsfE >> $(SLOW) || (cat $(SLOW); false)
	.adapters/flower/bin/python -m pytest $(FLOWER) --no-header -rpsfE >> $(SLOW) || (cat $(SLOW); false)
	cat $(SLOW)

# Every rule with a search space; +FORECASTER has forecasts of another kind than its own.
RULES := local-predictive,local-predictive+mean-rates,acp,maxweight,central-reactive,central-predictive
RULES := $(RULES),central-predictive+mean-rates,central-maxweight,central-lp,q-cast,reps
SPLIT := maxweight+none,maxweight+mean-rates,central-maxweight+none
CEILING := local-predictive+oracle,maxweight+oracle,central-maxweight+oracle
ALL := idle,random-legal,local-reactive,$(RULES)
SCENARIOS := $(if $(DPEM_DATA),abilene-trace-v0 abilene-mixed-v0 coronet100-v0) surfnet-v0 mesh100-outages-v0 chain3-v0 star8-v0 mesh20-v0
CURVE := --delay 0 --delay 0.25 --delay 0.5 --delay 1 --delay 2
BENCHMARK := $(BIN)/dpem benchmark --workers $(WORKERS) --tuned baselines/tuned --score --reference "central-maxweight (delay 0.5 s)"

# Resumable: what was tuned or played is kept, and goes on.
tuned: setup
	$(BIN)/dpem tune --workers $(WORKERS) --out baselines/tuned --scenario mesh100-v0 $(CURVE) --policies $(RULES),$(SPLIT),$(CEILING)
	for scenario in $(SCENARIOS); do $(BIN)/dpem tune --workers $(WORKERS) --out baselines/tuned --scenario $$scenario --delay 0 --delay 0.5 --policies $(RULES) || exit; done
	$(BIN)/python docs/update.py

# Forecasters that nodes learn, on one network; then how good they are, and what they are worth.
LEARNT := agents/checkpoints
TRAIN := $(BIN)/dpem train-forecaster --topology 2000
AVERAGES := $(foreach w,20 40 60 80 160 320,--forecaster moving-average:$(w))
SCORE := $(BIN)/dpem forecast --topology 2000 --seeds 20 --forecaster persistence $(AVERAGES) --forecaster oracle
SCORES := baselines/results/forecasts
KNOWN := local-predictive+none,local-predictive+mean-rates,local-predictive,local-predictive+oracle,local-predictive+permuted-oracle
WORTH := $(BIN)/dpem benchmark coherence --workers $(WORKERS) --topology 2000 --seeds 20 --reference local-predictive+mean-rates

forecasters: setup
	$(TRAIN) --scenario mesh100-v0 --out $(LEARNT)/mesh100-gru.npz
	$(TRAIN) --scenario mesh100-v0 --model ridge --out $(LEARNT)/mesh100-ridge.npz
	$(TRAIN) --scenario mesh100-v0 --set predictability=0.5 --out $(LEARNT)/mesh100-half-gru.npz
	$(TRAIN) --scenario mesh100-v0 --set predictability=0.0 --out $(LEARNT)/mesh100-steady-gru.npz
	$(TRAIN) --scenario mesh100-v0 --set arrivals=periodic --hidden 12 --out $(LEARNT)/mesh100-periodic-gru.npz
ifneq ($(DPEM_DATA),)
	$(TRAIN) --scenario abilene-trace-v0 --out $(LEARNT)/abilene-gru.npz
	$(TRAIN) --scenario abilene-trace-v0 --model ridge --out $(LEARNT)/abilene-ridge.npz
endif

forecasts: setup
	$(SCORE) --scenario mesh100-v0 --forecaster ridge:$(LEARNT)/mesh100-ridge.npz --forecaster gru:$(LEARNT)/mesh100-gru.npz --forecaster bayes-filter --out $(SCORES)/sessions
	$(SCORE) --scenario mesh100-v0 --set predictability=0.5 --forecaster gru:$(LEARNT)/mesh100-half-gru.npz --forecaster bayes-filter --out $(SCORES)/half
	$(SCORE) --scenario mesh100-v0 --set predictability=0.0 --forecaster gru:$(LEARNT)/mesh100-steady-gru.npz --forecaster bayes-filter --out $(SCORES)/steady
	$(SCORE) --scenario mesh100-v0 --set arrivals=periodic --forecaster gru:$(LEARNT)/mesh100-periodic-gru.npz --forecaster bayes-filter --out $(SCORES)/periodic
	$(WORTH) --policies $(KNOWN),local-predictive+bayes-filter,local-predictive+gru:$(LEARNT)/mesh100-gru.npz --out baselines/results/worth-mesh100
ifneq ($(DPEM_DATA),)
	$(SCORE) --scenario abilene-trace-v0 --forecaster ridge:$(LEARNT)/abilene-ridge.npz --forecaster gru:$(LEARNT)/abilene-gru.npz --out $(SCORES)/trace
	$(WORTH) --scenario abilene-trace-v0 --policies $(KNOWN),local-predictive+gru:$(LEARNT)/abilene-gru.npz --out baselines/results/worth-trace
endif
	$(BIN)/python docs/update.py

# PPO policies: a search over hyperparameters, whose best trial is the preset; trainings with five seeds each (resumable);
# then their curves, and the policies beside tuned rules on evaluation episodes.
LEARNING := baselines/results/learning
AVERAGE := --forecaster moving-average
SEEDS := printf '%s\n' 0 1 2 3 4 | xargs -P $(WORKERS) -I SEED
TRAINED = $(SEEDS) $(BIN)/dpem train $(AVERAGE) --validation-episodes 10 --seed SEED --out $(LEARNT)/$(1)/seedSEED
MESH20 := --scenario mesh20-v0 --timesteps 2000000
MESH100 := --scenario mesh100-v0 --timesteps 4000000 --learn minibatches=60
LEARNED := $(BIN)/dpem benchmark --workers $(WORKERS) --tuned baselines/tuned
RIVALS := local-reactive,local-predictive,maxweight,central-maxweight

searched: setup
	$(BIN)/dpem tune-ppo $(MESH20) $(AVERAGE) --workers $(WORKERS) --runs runs/search --out $(LEARNING)/search.json

learners: setup
	$(call TRAINED,ppo-mesh20) $(MESH20)
	$(call TRAINED,ppo-mesh100) $(MESH100)
	for delay in 0 0.5; do $(call TRAINED,central-ppo-mesh20-$$delay) $(MESH20) --mode central --delay $$delay || exit; done
	$(call TRAINED,central-ppo-mesh100-0.5) $(MESH100) --mode central --delay 0.5

# $(1) is a mesh, $(2) the control delays: learning curves beside rules on the same episodes; then all on evaluation episodes.
define SCORED
	$(LEARNED) small --scenario $(1)-v0 --split validation --seeds 10 --policies $(RIVALS) --delay 0 --delay 0.5 --out $(LEARNING)/$(1)/rules
	$(BIN)/dpem curve --runs 'shared=$(LEARNT)/ppo-$(1)/seed*' $(foreach delay,$(2),--runs 'central $(delay) s late=$(LEARNT)/central-ppo-$(1)-$(delay)/seed*') --beside $(LEARNING)/$(1)/rules/summary.json --out $(LEARNING)/$(1)
	$(LEARNED) small --scenario $(1)-v0 --seeds 20 --policies '$(RIVALS),central-lp,ppo:$(LEARNT)/ppo-$(1)/seed*' --delay 0 --delay 0.5 --out $(LEARNING)/$(1)/evaluation
	for delay in $(2); do $(LEARNED) small --scenario $(1)-v0 --seeds 20 --policies "local-predictive,central-ppo:$(LEARNT)/central-ppo-$(1)-$$delay/seed*" --delay $$delay --out $(LEARNING)/$(1)/central-$$delay || exit; done
endef

learned: setup
	$(call SCORED,mesh20,0 0.5)
	$(call SCORED,mesh100,0.5)
	$(LEARNED) sizes --seeds 5 --policies 'local-reactive,maxweight,ppo:$(LEARNT)/ppo-mesh100/seed*' --out $(LEARNING)/sizes
	$(BIN)/python docs/update.py

# What averaging brings, what privacy costs, what attacks do, and the paper's system: trainings on one network of mesh100,
# with settings chosen on another. make -j trains several at once; all of it is resumable.
FEDERATED := baselines/results/federated
ON2000 := --scenario mesh100-v0 --topology 2000
HEAD := --mode federated $(AVERAGE) --federate period=8 --federate server_lr=3 --federate share=head
WHOLE := --mode federated $(AVERAGE) --federate period=8 --federate server_lr=3 --federate share=whole
OPTIONS_alone := --mode independent $(AVERAGE)
OPTIONS_head-off := $(HEAD) --federate privacy=off
OPTIONS_head-epsilon8 := $(HEAD) --federate clip_norm=0.1 --federate epsilon=8
OPTIONS_head-epsilon2 := $(HEAD) --federate clip_norm=0.1 --federate epsilon=2
OPTIONS_head-local8 := $(HEAD) --federate clip_norm=0.1 --federate epsilon=8 --federate privacy=local
OPTIONS_whole-off := $(WHOLE) --federate privacy=off
OPTIONS_whole-clip := $(WHOLE) --federate privacy=off --federate clip_norm=0.2
OPTIONS_whole-epsilon8 := $(WHOLE) --federate clip_norm=0.2 --federate epsilon=8
OPTIONS_whole-epsilon2 := $(WHOLE) --federate clip_norm=0.2 --federate epsilon=2
FIVE_SEEDS := alone head-off head-epsilon8 head-epsilon2 head-local8
THREE_SEEDS := whole-off whole-clip whole-epsilon8 whole-epsilon2
ARMS := $(FIVE_SEEDS) $(THREE_SEEDS)
TRAININGS := $(foreach seed,0 1 2,$(ARMS:%=runs/privacy/%/seed$(seed))) $(foreach seed,3 4,$(FIVE_SEEDS:%=runs/privacy/%/seed$(seed)))
.PHONY: federated federated-trainings dpem

federated-trainings: $(TRAININGS:%=%/policy.npz)

define training_of_arm
runs/privacy/$(1)/%/policy.npz: | setup
	$(BIN)/dpem train $(ON2000) --timesteps 2000000 --validation-episodes 2 $(OPTIONS_$(1)) --seed $$(*:seed%=%) --out $$(@D)
endef
$(foreach arm,$(ARMS),$(eval $(call training_of_arm,$(arm))))

federated: setup
	$(MAKE) -j $(WORKERS) federated-trainings
	$(BIN)/dpem curve $(foreach arm,$(ARMS),--runs '$(arm)=runs/privacy/$(arm)/seed*') --out $(FEDERATED)/privacy
	$(LEARNED) small $(ON2000) --seeds 20 --delay 0.5 --policies '$(subst $(SPACE),$(COMMA),$(ARMS:%=ppo:runs/privacy/%/seed*) local-reactive maxweight central-reactive central-maxweight)' --out $(FEDERATED)/privacy
	$(BIN)/dpem federate noise --rounds 19 --weights 68 --weights 1220 --nodes 20 --nodes 100 --nodes 1000 --nodes 10000 $(foreach epsilon,1 2 4 8 16,--epsilon $(epsilon)) --out $(FEDERATED)/noise.json
	$(BIN)/dpem federate attacks --scenario mesh100-v0 --training runs/privacy/whole-off/seed0 --period 2 --clip-norm 0.2 --workers $(WORKERS) --out $(FEDERATED)/attacks.json
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/update.py

DPEM := $(LEARNT)/dpem-mesh100/seed0
dpem: setup
	mkdir -p $(DPEM) && cp -n $(LEARNT)/mesh100-gru.npz $(DPEM)/gru.npz  # layer 1, as make forecasters trains it
	$(BIN)/dpem train $(ON2000) --preset dpem --timesteps 4000000 --validation-episodes 5 --federate share=whole --federate period=16 --federate server_lr=3 --federate clip_norm=0.25 --out $(DPEM)
	$(BIN)/dpem curve --runs 'DPEM=$(DPEM)' --out $(FEDERATED)/dpem
	$(LEARNED) small $(ON2000) --seeds 20 --delay 0 --delay 0.5 --policies 'ppo:$(DPEM),$(RIVALS),central-reactive,central-lp' --out $(FEDERATED)/dpem
	$(BIN)/python docs/update.py

results: setup
	$(RUN) --seeds 20 --scenario mesh100-v0 --out baselines/results/mesh100-reactive
	$(BENCHMARK) delay-curve --policies $(ALL),$(SPLIT),$(CEILING) --seeds 20 --out baselines/results/delay-curve
	$(BENCHMARK) loads --policies $(ALL) --delay 0.5 --seeds 10 --out baselines/results/loads
	$(BENCHMARK) networks --policies $(ALL) --seeds 20 --out baselines/results/networks
	$(BENCHMARK) small --policies $(ALL) --seeds 30 --out baselines/results/small
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/update.py

# Every RL library in a virtual environment that it gets on with; needs a registry, minutes and gigabytes.
SETS := main benchmarl agilerl
LIBRARIES_main := torch torchrl tianshou 'ray[rllib]'
LIBRARIES_benchmarl := torch benchmarl
LIBRARIES_agilerl := torch agilerl peft
LIBRARIES_flower := torch 'flwr[simulation]' nbclient ipykernel
EXTRAS_flower := [flower]
ADAPTERS_main := cleanrl torchrl torchrl_pettingzoo rllib tianshou
ADAPTERS_benchmarl := benchmarl
ADAPTERS_agilerl := agilerl
TRIALS := $(foreach set,$(SETS),$(ADAPTERS_$(set):%=trial-%))
.PHONY: test-adapters $(TRIALS)

test-adapters: setup $(TRIALS)
	.adapters/main/bin/python -m pytest tests/adapters -m "not slow"
	$(BIN)/python docs/update.py

define trials_of_set
$(ADAPTERS_$(1):%=trial-%): trial-%: .adapters/$(1)/installed
	.adapters/$(1)/bin/python -m dpem_agents.adapters.trial $$* --out baselines/results/adapters/$$*.json
endef
$(foreach set,$(SETS),$(eval $(call trials_of_set,$(set))))

.adapters/%/installed: pyproject.toml tests/adapters/constraints-%.txt
	$(PYTHON) -m venv .adapters/$*
	.adapters/$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/adapters/constraints-$*.txt $(LIBRARIES_$*) pytest --editable '.$(EXTRAS_$*)'
	touch $@

bench: setup
	$(BIN)/python tests/bench/speed.py --out baselines/results/speed.json
	$(BIN)/python tests/bench/scale.py --out baselines/results/scale.json
	$(BIN)/python tests/bench/parts.py --out baselines/results/parts.json
	$(BIN)/python tests/bench/solve_times.py --out baselines/results/solve_times.json
	$(BIN)/python tests/bench/federated.py --out baselines/results/federated/cost.json
	$(BIN)/python tests/bench/peers.py --out baselines/results/peers.json $(PEERS)
	$(BIN)/python docs/update.py

golden: setup
	PYTHONPATH=tests $(BIN)/python -m golden.record

# Compiled code is measured while it runs as plain Python, where numpy warns that the words of randomness.py wrap around.
COMPILED := tests/simulator tests/network/test_routes.py tests/observations/test_features.py tests/envs/test_control.py

coverage: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow" --ignore tests/test_packaging.py
	NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest $(COMPILED) -m "not slow" -k "not mesh100" -W ignore:overflow:RuntimeWarning
	$(BIN)/coverage combine
	$(BIN)/coverage report
