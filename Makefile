# Tidegate. `make` alone lists the targets. `run`, `build` and `test` need Go and make, nothing else.
# Written for GNU make 3.81 and a POSIX shell, so that it runs on any developer's machine.

GO       ?= go
KILLS    ?= 200
FUZZTIME ?= 20s
ARGS     ?=
# auto: race detector where it is cheap, when a C compiler is there; all: every package, required; off.
RACE     ?= auto

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -X main.version=$(VERSION)
LINTER   := bin/tools/golangci-lint
# go-zero links the whole Kubernetes client unless told not to: twice the binary, for a discovery that is not used.
TAGS     := no_k8s

# The product has no cgo. Only the race detector asks for a C compiler, and tools/test.sh sets that itself.
export CGO_ENABLED := 0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: go
go:
	@command -v $(GO) >/dev/null 2>&1 || { echo "Go is not on the PATH: install the release that go.mod names, or a newer one." >&2; exit 1; }

.PHONY: build
build: go ## build bin/tidegate (static, no cgo)
	$(GO) build -tags '$(TAGS)' -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/tidegate ./cmd/tidegate

.PHONY: run
run: build ## start a demo trial in data/demo and print requests to paste (ARGS=…)
	@exec bin/tidegate demo --data data/demo $(ARGS)

.PHONY: cluster
cluster: build ## etcd, PostgreSQL and every role twice on this machine, in data/cluster (ARGS=…; needs PostgreSQL)
	$(GO) build -tags '$(TAGS)' -o bin/tools/cluster ./test/cluster/up
	@exec bin/tools/cluster $(ARGS)

.PHONY: services
services: go ## install what the long tests ask of the system: PostgreSQL, etcd, strace, … (needs root)
	@GO='$(GO)' sh test/services/install.sh

.PHONY: test
test: go ## vet and the quick tests, a few minutes (RACE=auto|all|off)
	$(GO) vet -tags '$(TAGS)' ./...
	@GO='$(GO)' TAGS='$(TAGS)' sh tools/test.sh '$(RACE)'
	$(MAKE) deploy-check

# A module of its own: what it needs of Docker, Compose and Kubernetes never enters the product's graph. Not from the
# test cache, which does not see files outside of that module.
.PHONY: deploy-check
deploy-check: go ## image, compose file, manifests, units, configurations: by their engines' own parsers
	cd deploy/check && $(GO) vet . && $(GO) test -count=1 -timeout 10m .

# CI runs this and nothing else. Cheap checks come first, so that a mistake is told early.
.PHONY: test-all
test-all: ## everything: test, lint, race everywhere, long and root tests (about 15 minutes)
	$(MAKE) test
	sh test/services/install.sh
	$(MAKE) lint
	$(MAKE) test RACE=all
	$(MAKE) test-long

# One package at a time: these tests measure time-outs and kill processes, so they need the machine to themselves.
.PHONY: test-long
test-long: go ## only the long tests under test/ (crash, power loss, …), skips printed with their reason
	TIDEGATE_LONG=1 TIDEGATE_KILLS=$(KILLS) $(GO) test -tags '$(TAGS)' -count=1 -p 1 -v -timeout 20m ./test/... ./internal/journal/sqlitejournal

.PHONY: crash
crash: go ## kill a loaded server KILLS times (default 200) and audit after each
	TIDEGATE_LONG=1 TIDEGATE_KILLS=$(KILLS) $(GO) test -tags '$(TAGS)' -count=1 -v -timeout 0 -run TestKills ./test/crash $(ARGS)

.PHONY: lint
lint: lint-tools ## golangci-lint with .golangci.yml, and the modules: tidy, checksums
	$(GO) mod tidy -diff
	$(GO) mod verify
	$(LINTER) run ./...
	$(LINTER) run --build-tags faultpoints,$(TAGS) ./internal/fault/...

.PHONY: lint-tools
lint-tools: go $(LINTER) ## build the linter into bin/tools (once, about two minutes)

$(LINTER): tools/go.mod tools/go.sum
	@echo "building golangci-lint from tools/go.mod (once, about two minutes)"
	cd tools && $(GO) build -trimpath -ldflags '-s -w' -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

.PHONY: bench
bench: build ## measure gateway, bare handler and the original design side by side
	$(GO) run -tags '$(TAGS)' ./bench $(ARGS)

.PHONY: cover
cover: go ## coverage of internal/ by its tests: cover.out, cover.html, total printed
	$(GO) test -tags '$(TAGS)' -coverpkg=./internal/... -coverprofile=cover.out ./internal/...
	$(GO) tool cover -html=cover.out -o cover.html
	@$(GO) tool cover -func=cover.out | tail -n 1

.PHONY: fuzz
fuzz: go ## run every fuzz target for FUZZTIME (default 20s) each
	@GO='$(GO)' TAGS='$(TAGS)' sh tools/fuzz.sh '$(FUZZTIME)'

.PHONY: generate
generate: go ## run the go:generate lines (their output is kept in the repository; needs protoc)
	$(GO) generate ./...

.PHONY: clean
clean: ## remove built binaries and coverage; data/ is left alone
	rm -rf bin cover.out cover.html
