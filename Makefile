# Everything runs in .venv; every target makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAGES := $(patsubst stages/%/pyproject.toml,%,$(wildcard stages/*/pyproject.toml))
PACKAGES := lib runs $(addprefix stages/,$(STAGES)) $(wildcard workflows service)
CODE := $(foreach p,$(PACKAGES),$(wildcard $(p)/contimg*))
# On cp312, casatools has a wheel for a newer glibc whose bundled OpenSSL does not load on Debian 12.
PLATFORM := $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),--python-platform x86_64-manylinux_2_28,)
UV = $(if $(shell command -v uv),uv,$(BIN)/uv)
SPACE := $(subst ,, )

export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-slow science e2e lint bench render kernels lock tools clean images test-images new-stage docs docs-serve imports

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.made: requirements.lock $(addsuffix /pyproject.toml,$(PACKAGES))
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	$(UV) pip install --quiet --python $(BIN)/python $(PLATFORM) --compile-bytecode --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(foreach p,$(PACKAGES),-e ./$(p))
	@touch $@

demo: $(VENV)/.made tools ## Simulate a sky, run the whole chain on it, write images, light curves and a report
	$(BIN)/contimg demo --folder demo

test: $(VENV)/.made tools ## All tests but the slow ones
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not science and not cluster and not images"

test-slow: $(VENV)/.made tools ## The long science tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

science: $(VENV)/.made tools ## The figures of docs/explanation/numbers.md that take hours: each test prints its own
	$(BIN)/python -m pytest -n auto --dist loadfile -rP -m science

e2e: $(VENV)/.made ## The tests on a real cluster, the one of the current kube context, with the images of `make images`
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15 -m cluster tests/e2e/cluster

lint: $(VENV)/.made imports ## ruff, mypy --strict, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CODE)
	$(BIN)/mypy scripts docs/generate.py images $(wildcard charts/*.py charts/contimg/files/*.py)

imports: $(VENV)/.made ## Check that imports point down only, and that no stage imports a stage
	@mkdir -p .cache
	$(BIN)/python scripts/imports.py >.cache/importlinter.toml
	$(BIN)/lint-imports --config .cache/importlinter.toml

render: $(VENV)/.made ## Write charts/contimg/rendered/*.yaml and the chart's README; commit the difference
	$(BIN)/python -m contimg_workflows.render charts/contimg/rendered
	$(BIN)/python charts/readme.py charts/contimg

new-stage: ## Make a stage from the starter: make new-stage NAME=hello
	@$(PYTHON) scripts/new_stage.py "$(NAME)"

docs: $(VENV)/.made ## Build the documentation site into .cache/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir .cache/site

docs-serve: $(VENV)/.made ## Serve the documentation site on this machine, and build it again whenever a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

bench: $(VENV)/.made tools ## Measure a full-size group against the byte floor and a peer; prints ratios
	$(BIN)/python -m tests.bench

tools: ## Install WSClean and AOFlagger from Debian's packages, if this is permitted
	@sh tests/support/debian-tools.sh

images: $(VENV)/.made ## Build one image a stage by docker, podman or buildah (BUILD= BASE= INDEX= VERSION= REGISTRY= ONLY="flag image")
	@BUILD="$(BUILD)" BASE="$(BASE)" INDEX="$(INDEX)" VERSION="$(VERSION)" REGISTRY="$(REGISTRY)" PYTHON=$(BIN)/python sh images/build $(ONLY)

test-images: $(VENV)/.made ## Run each image restricted like a pod: its contents, one real job, its size
	$(BIN)/python -m pytest -n 2 --dist loadfile -rsfEP tests/images

kernels: $(VENV)/.made tools ## Write images/kernels.json, the functions that images compile, by a run of the chain; commit the difference
	rm -rf .cache/kernels .cache/chain/kernels
	NUMBA_CACHE_DIR=$(CURDIR)/.cache/kernels $(BIN)/python tests/support/chain.py kernels
	$(BIN)/python images/kernels.py record .cache/kernels
	rm -rf .cache/kernels .cache/chain/kernels

lock: ## Resolve the dependencies into requirements.lock (UPGRADE=--upgrade for newer versions)
	$(UV) pip compile $(UPGRADE) --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header $(foreach p,$(PACKAGES),--no-emit-package contimg$(if $(filter-out lib,$(notdir $(p))),-$(notdir $(p)))) \
	  --all-extras pyproject.toml $(addsuffix /pyproject.toml,$(PACKAGES)) --group dev --group docs -o requirements.lock

clean: ## Remove the virtual environment and what demo and tests wrote
	rm -rf $(VENV) demo .cache
