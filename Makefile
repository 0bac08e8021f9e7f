# Everything here works from a fresh clone with nothing but Python, unless a target says otherwise.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GENERATED := client/python/sealserve/v1
PROTOS := $(sort $(wildcard protos/sealserve/v1/*.proto))
SERVICES := $(addprefix protos/sealserve/v1/,keys.proto model.proto prediction.proto)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-long check docs protos freeze-protos lock bench bench-full bench-twice bench-profile \
	bench-publish data audit sbom azurite image push-image podman deploy-aci smoke-aci delete-aci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make the environment in .venv

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sealserve needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## train, serve, encrypt, score and decrypt scikit-learn's digits
	$(BIN)/sealserve demo

# Times are those of two cores.
test: setup azurite ## the test suite: less than ten minutes
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: setup azurite docs-tools ## fuzzing, fault and container tests: less than forty minutes
	$(BIN)/pytest -m 'slow and not long'

test-long: setup azurite notebook-tools ## soaks, large property runs, other tools' environments: hours, and not run by CI
	$(BIN)/pytest -m long

check: setup ## check style, types and protos, and that the generated code matches the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking protos --against $(BASELINE)
	@rm -rf build/protos && mkdir -p build/protos
	@$(MAKE) --no-print-directory protos OUT=build/protos
	diff -r -x __pycache__ $(GENERATED) build/protos/sealserve/v1

# The tools have an environment of their own, as those of the audit have. A notebook also runs the service in it.
DOCS := build/docs
docs: docs-tools ## build the site of the documentation in build/site; dead links fail
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet
	@echo "open build/site/index.html, or run $(DOCS)/bin/mkdocs serve"

.PHONY: docs-tools notebook-tools
docs-tools: $(DOCS)/.installed
$(DOCS)/.installed: requirements-docs.lock
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@

notebook-tools: $(DOCS)/.serves
$(DOCS)/.serves: $(DOCS)/.installed requirements-service.lock
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-service.lock
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

BASELINE := protos/baseline.binpb
freeze-protos: setup ## make the present protos the baseline that later ones must not break
	$(BIN)/buf build protos --exclude-source-info --output $(BASELINE)

OUT ?= client/python
protos: setup ## generate the Python code from the protos
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(OUT) --pyi_out=$(OUT) $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -I protos --grpc_python_out=$(OUT) $(SERVICES)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock'
lock: ## resolve the locks again: for development, the image, building the project, auditing, the documentation
	$(BIN)/pip install --quiet uv
	$(COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	$(COMPILE) -c requirements.lock --extra service --extra ei --output-file requirements-service.lock pyproject.toml
	$(COMPILE) -c requirements.lock --group build --output-file requirements-build.lock
	$(COMPILE) -c requirements.lock --group audit --output-file requirements-audit.lock
	$(COMPILE) -c requirements.lock --group docs --output-file requirements-docs.lock

# The tools have an environment of their own: what they need is not what is developed or served with.
AUDIT := build/audit
LOCKS := requirements-build.lock requirements-service.lock requirements.lock requirements-audit.lock requirements-docs.lock
$(AUDIT)/.installed: requirements-audit.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.lock
	@touch $@

audit: $(AUDIT)/.installed ## look up known vulnerabilities of all locks; not part of check, which a new one would fail
	$(AUDIT)/bin/python .ci/audit.py $(AUDIT)/bin/pip-audit $(LOCKS)

sbom: $(AUDIT)/.installed ## list what each lock installs, in CycloneDX, in build/sbom
	@mkdir -p build/sbom
	for lock in $(LOCKS); do $(AUDIT)/bin/cyclonedx-py requirements $$lock --pyproject pyproject.toml \
		--output-reproducible --output-file build/sbom/$${lock%.lock}.cdx.json || exit 1; done

bench: setup ## the benchmarks, ten minutes: tables, plots and JSON files in build/bench
	$(BIN)/python -m benchmarks

bench-full: setup ## the benchmarks without a time limit: also Concrete ML, and how everything scales
	$(BIN)/python -m benchmarks --full

bench-twice: setup ## run the benchmarks twice and show how far apart their ratios are
	$(BIN)/python -m benchmarks --twice

bench-profile: setup ## profile one request: tables and flame graphs in build/bench
	$(BIN)/python -m benchmarks --profile

bench-publish: setup ## write the results into docs/benchmarks.json, and from there into README and docs
	$(BIN)/python -m benchmarks.publish

data: setup ## download the MNIST test set into build/data and check it
	$(BIN)/python -m tests.support.mnist

AZURITE := build/azurite
azurite: $(AZURITE)/.installed ## install the emulator of Azure Blob storage, for the tests that need it

$(AZURITE)/.installed: tests/azure/package.json tests/azure/package-lock.json | setup
	@mkdir -p $(AZURITE) && cp $^ $(AZURITE)
	@PATH="$(abspath $(BIN)):$$PATH" npm ci --prefix $(AZURITE) --ignore-scripts --no-audit --no-fund --loglevel=error \
		&& touch $@ || echo "npm failed: the tests of Azurite are skipped (with CI=true, they fail); install Node.js and npm"

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' client/python/sealserve/__init__.py)
IMAGE ?= sealserve:$(VERSION)
BASE_IMAGE ?= python:3.11-slim
IMAGE_FLAGS ?=
# Docker if its daemon runs, else podman. --format docker makes podman keep the HEALTHCHECK.
CONTAINERS ?= $(shell if docker info >/dev/null 2>&1; then echo docker; else echo podman; fi)
image: ## build the service's image IMAGE from BASE_IMAGE, with docker or podman
	$(CONTAINERS) build $(if $(findstring podman,$(CONTAINERS)),--format docker) --platform linux/amd64 $(IMAGE_FLAGS) \
		--build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg VERSION=$(VERSION) --file service/Dockerfile --tag $(IMAGE) .

push-image: ## push IMAGE, whose name must begin with the registry
	$(CONTAINERS) push $(IMAGE)

podman: ## install podman, for the container tests (Debian, as root)
	.ci/install_podman

# deploy/aci/README.md says what these targets need. An installed sealserve takes precedence over the
# one in .venv.
ACI := PATH="$$PATH:$(CURDIR)/$(BIN)" IMAGE="$(IMAGE)" deploy/aci
deploy-aci: ## deploy IMAGE to Azure Container Instances, wait for health, print the address
	@$(ACI)/deploy

smoke-aci: ## ask the service at ADDRESS for its health and an encrypted prediction
	@$(ACI)/smoke "$(ADDRESS)"

delete-aci: ## delete the container group
	@$(ACI)/delete

clean: ## remove everything that make has made
	rm -rf $(VENV) build
