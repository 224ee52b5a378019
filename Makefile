# Everything a developer does here. `make` alone says what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
DEMO_ARGS := $(if $(MODEL),--model $(MODEL))

.DEFAULT_GOAL := help
DOCKER_ARGS ?= --network host
BUILD := docker build --quiet $(DOCKER_ARGS) $(if $(BASE),--build-arg BASE=$(BASE))
VERSION := 0.1.0
AGENT := fairlead-agent:$(VERSION)
# The time that files of the agent's and the sandbox's image bear: when something that they are made from last changed.
EPOCH = $(shell git log -1 --format=%ct -- agent_image operator/fairlead/sandbox requirements sandbox_image tools 2>/dev/null || echo 0)

.PHONY: help setup demo test soak check fmt bench image images generate lock clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# What is installed is what the pinned, hashed requirements say; they are complete, and nothing is resolved: pip would take the
# newest release of what another package wants with extras, and then refuse it. The two projects themselves come after.
define install
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not there; install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; give a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $(1) into $(VENV) (takes a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		-r requirements/build.txt -r requirements/$(1).txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e agent_image -e .
	@touch $(VENV)/.$(1)
endef

$(VENV)/.local: requirements/build.txt requirements/local.txt pyproject.toml agent_image/pyproject.toml
	$(call install,local)

$(VENV)/.dev: requirements/build.txt requirements/dev.txt pyproject.toml agent_image/pyproject.toml
	$(call install,dev)

setup: $(VENV)/.dev  ## install everything a developer needs into a virtual environment

demo: $(VENV)/.local  ## start Fairlead on this machine and run the quickstart (MODEL=… to use a cloud model)
	@$(BIN)/fairlead demo $(DEMO_ARGS)

test: $(VENV)/.dev  ## run the tests; what needs a server that is not there is skipped with a reason
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

soak: $(VENV)/.dev  ## kill every process everywhere, for hours (make test takes a sample)
	$(BIN)/python -m pytest -m soak -n auto --dist worksteal $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=new -n auto --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.dev  ## formatting, lint, types, layers, sizes, generated files, examples
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python -m fairlead.api.crdgen --check crds
	$(BIN)/python tools/reference.py --check
	$(BIN)/fairlead validate configs

fmt: $(VENV)/.dev  ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

image:  ## build the agent's image, and its bill of materials below build/ (BASE=… for another Python image)
	$(BUILD) --build-arg SOURCE_DATE_EPOCH=$(EPOCH) --file agent_image/Dockerfile --tag $(AGENT) .
	@mkdir -p build
	@id=$$(docker create $(AGENT)) && \
		docker cp $$id:/usr/share/fairlead-agent/sbom.cdx.json build/fairlead-agent-$(VERSION).cdx.json >/dev/null; \
		copied=$$?; docker rm $$id >/dev/null; exit $$copied

images: image  ## build all images (tools/local_base.sh makes a base where no registry is reached)
	$(BUILD) --build-arg SOURCE_DATE_EPOCH=$(EPOCH) --file sandbox_image/Dockerfile --tag fairlead-sandbox:$(VERSION) .
	$(BUILD) --build-arg SERVICE=operator --tag fairlead-operator:$(VERSION) .
	$(BUILD) --build-arg SERVICE=gateway --tag fairlead-gateway:$(VERSION) .

generate: $(VENV)/.dev  ## write crds/ and the reference pages anew from the code
	$(BIN)/python -m fairlead.api.crdgen crds
	$(BIN)/python tools/reference.py

bench: $(VENV)/.dev  ## measure, as ratios in one run, and write docs/reference/benchmarks.md
	$(BIN)/python -m tests.bench

lock:  ## resolve the pinned requirements anew (needs uv)
	tools/lock.sh

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
