# The commands of this project. `make demo` and `make test` need CPython 3.11 to 3.14, make and the package index.
SHELL := /bin/sh
PY := .venv/bin/python
SOURCES := core operator workloads cli scripts hack tests benchmarks

.PHONY: help demo setup lint unit test pythons browser cluster e2e e2e-kind test-all mutants mutate simulate simulate-faults fuzz sweep repeat bench bench-compare bench-chain soak realchain lock manifests docs images clean

help: ## show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: ## run everything on this machine, send relays, check the earnings (KEEP=1 leaves it running, CHAOS=<seed> kills things, MINERS=<n> share the work, REDIS=sentinel or cluster)
	@scripts/setup runtime
	@$(PY) -m relayctl.main demo $(if $(KEEP),--keep) $(if $(CHAOS),--chaos $(CHAOS)) $(if $(MINERS),--miners $(MINERS)) $(if $(REDIS),--redis $(REDIS)) $(DEMO_ARGS)

setup: ## install everything developers need into .venv
	@scripts/setup dev

unit: setup ## the tests that start no process and need no Redis: seconds (EXAMPLES=<n>: n times as many of each property)
	@scripts/test unit

test: setup ## every test that needs no cluster: a few minutes (COVERAGE=1 measures each part of the money path)
	@scripts/test local

pythons: setup ## make unit with every other CPython 3.11 to 3.14 of this machine
	@scripts/other-pythons

cluster: setup ## the operator against a real API server (KUBEBUILDER_ASSETS, or hack/kubernetes/prepare once)
	@scripts/test cluster

test-all: ## everything: test, many examples, long, cluster, e2e, simulate, mutants and a demo with chaos, each step's seconds
	@scripts/steps "make test" "make unit EXAMPLES=10" "make pythons" "scripts/test long" "make demo CHAOS=7" "make simulate SEEDS=1000" "make sweep" "make fuzz" "make mutants" "scripts/test browser" "scripts/test cluster" "scripts/test realchain" "scripts/test e2e"

lint: setup ## style, types, layers, file sizes, English
	@.venv/bin/ruff check $(SOURCES)
	@.venv/bin/ruff format --check --quiet $(SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@$(PY) scripts/check_sizes.py
	@$(PY) scripts/generate_pb.py --check
	@$(PY) scripts/check_fragile.py
	@$(PY) scripts/check_prose.py
	@$(PY) scripts/generate_manifests.py --check
	@$(PY) scripts/generate_reference.py --check

mutants: setup ## break the money path line by line; each break must be caught by a named test
	@$(PY) scripts/mutants.py

mutate: setup ## generated mutants of the money path, each with the tests that run its line (SAMPLE=<n>, SEED, ONLY=<path>, CHANGED=<git range>, JOBS, MIN_SCORE; COVERED=1 after make test COVERAGE=1)
	@[ -n "$(COVERED)" ] || $(PY) scripts/mutation.py cover
	@SAMPLE=$${SAMPLE:-200} $(PY) scripts/mutation.py run

fuzz: setup ## mutated requests over every decoder of the relay port (FUZZ=<n>, 10000000 for the long run; SEED)
	@FUZZ=$${FUZZ:-300000} $(PY) -m pytest -q -n 0 --timeout 0 tests/unit/test_edge_decoders.py

sweep: setup ## one fault of every kind at every call of every boundary of the miner, and outages (SWEEP=<n> for a sample, SWEEP=<kinds or boundaries>, SWEEP_TABLE=<file>, JOBS)
	@SWEEP=$${SWEEP:-all} $(PY) -m pytest -q tests/sweep

browser: setup ## the console's pages in a headless Chromium, against a demo under chaos (SCREENSHOTS=1 renews docs/images)
	@scripts/test browser

realchain: setup ## relayer and miner against a node of the chain itself (REALCHAIN=<program that starts one>: docs/realchain.md)
	@scripts/test realchain

simulate: setup ## the whole system on a virtual clock, life by life (SEEDS=<n>, FIRST=<n>, JOBS=<n>; REPLAY=<seed> narrates one)
	@scripts/simulate

simulate-faults: setup ## plant faults in the product, one by one; lives must show each (SEEDS=<n>, ONLY=<text>, TABLE=<file>)
	@PYTHONPATH=tests/simulation:tests/support:tests/vectors $(PY) -m simulated.planted --seeds $${SEEDS:-200} $(if $(ONLY),--only "$(ONLY)") $(if $(TABLE),--table $(TABLE))

repeat: setup ## the tests RUNS times (100) in random orders, to find those that depend on it (FIRST, JOBS, TESTS)
	@scripts/repeat

bench: setup ## measure: crypto, trie, relayer, miner (table and benchmarks/results/*.json)
	@$(PY) -m benchmarks

bench-compare: setup ## another relayer and ours: TARGET=host:port (COMPARE_ARGS for more, see --help)
	@$(PY) -m benchmarks.compare --target $(TARGET) $(COMPARE_ARGS)

bench-chain: setup ## this relay miner and another one on a real node, in alternating rounds (REALCHAIN, PEER: docs/performance.md; CHAIN_ARGS for more, see --help)
	@PYTHONPATH=tests/support $(PY) -m benchmarks.chain_compare $(CHAIN_ARGS)

soak: setup ## steady load for a long time, memory and descriptors must stay flat (DURATION=seconds, RATE=relays per second); HOSTILE=1: attacks under load, DURATION each
	@$(PY) -m benchmarks.soak $(if $(HOSTILE),--hostile --seconds $${DURATION:-15} --rate $${RATE:-100},--seconds $${DURATION:-3600} --rate $${RATE:-300})

lock: setup ## refresh requirements/*.txt
	@scripts/lock --upgrade

manifests: setup ## write crds/, manifests/ and docs/reference/ from the models
	@$(PY) scripts/generate_manifests.py
	@$(PY) scripts/generate_reference.py

docs: setup ## build the documentation site into .site, every link checked (scripts/docs serve shows it)
	@scripts/docs build

images: setup ## build the container images with docker (PREFIX, TAG)
	@scripts/images

e2e: setup ## the trial with real pods on nodes of this machine (root, Debian's containerd and runc, Go once)
	@TEST_CLUSTER=$${TEST_CLUSTER:-node} scripts/test e2e

e2e-kind: setup ## the trial on a kind cluster that is made for it
	@scripts/e2e-kind

clean: ## remove what was installed and cached
	@rm -rf .venv .site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
