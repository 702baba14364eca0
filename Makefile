# Everything a developer does with this tree. `make` alone lists it.
#
# Only Go is needed, but for `make test-c` and `make test-js` (and so `make check`): the
# first compiles a guest written in C and wants clang with lld, the second reads events
# and OpenAPI documents with tools in JavaScript and wants Node.js with npm.

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -s -w -X main.version=$(VERSION)
FUZZTIME  ?= 10s
BENCHTIME ?= 5s
GROWTH    ?= 1000000,10000000
ADDRESS   ?= 127.0.0.1:8080
DATA      ?= build/data

# How long a proof is, if not as long as it says itself, and what repeats a run.
TIME      ?= 0
ROUNDS    ?= 0
SEED      ?= 0

# runtests is go test that fails when no test ran, and keeps how long each test took.
RUNTESTS := build/tools/runtests
TEST      = GO='$(GO)' $(RUNTESTS) -times build/times/$@.json
# A proof is a test that imports internal/prove; it is long with -prove only. With
# -short the other tests of its package are not longer than in `make quick`.
PROVE     = $(TEST) -count=1 -p 1 -timeout 3h -v -short
LENGTH    = -prove -prove.time $(TIME) -prove.rounds $(ROUNDS) -prove.seed $(SEED)
PROOFS    = $(shell $(GO) list -f '{{$$p := .ImportPath}}{{range .TestImports}}{{.}}:{{$$p}} {{end}}{{range .XTestImports}}{{.}}:{{$$p}} {{end}}' ./... \
	| tr ' ' '\n' | sed -n 's|^.*/internal/prove:||p' | sort -u)

# A guest is any plugins/<name>/wasm: the main package around the service in plugins/<name>.
GUESTS := $(patsubst plugins/%/wasm,build/guests/%.wasm,$(wildcard plugins/*/wasm))

# Tools are pinned with their checksums apart from go.mod, so that who embeds the
# host does not inherit them.
# S1016 would have a command converted to the event that happens to look like it;
# U1000 does not know exports (go:wasmexport).
STATICCHECK := build/tools/staticcheck -checks inherit,-S1016

.DEFAULT_GOAL := help
.PHONY: help build guests run quick test test-alone test-race test-c test-js hostile slow crash prove fuzz bench bench-growth lint check node clean \
	$(GUESTS) $(RUNTESTS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/bulkhead, static, so that it needs nothing of the system that it runs on
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/bulkhead ./host/cmd/bulkhead

guests: $(GUESTS) ## build build/guests/<name>.wasm for each plugin

# Always run: the go command knows better than make what has changed.
$(GUESTS): build/guests/%.wasm:
	@mkdir -p build/guests
	GOOS=wasip1 GOARCH=wasm $(GO) build -buildmode=c-shared -trimpath -ldflags '-s -w' -o $@ ./plugins/$*/wasm

run: build guests ## start a host on loopback with the bank deployed, and say what to try next
	bin/bulkhead serve --data $(DATA) --listen $(ADDRESS) --demo build/guests/bank.wasm

$(RUNTESTS):
	@$(GO) build -o $@ ./internal/runtests

quick: $(RUNTESTS) ## vet, and the tests that need neither a whole host nor much time: the loop while you work
	$(GO) vet ./...
	$(TEST) -short ./...

test: test-alone ## run all tests that need nothing but Go
	$(TEST) -tags '$(TAGS)' -timeout 30m $$($(GO) list ./... | grep -v /host/internal/hostile$$)

# What a neighbour feels beside hostile guests is measured without other tests beside it.
test-alone: $(RUNTESTS)
	$(TEST) -timeout 30m ./host/internal/hostile

test-race: $(RUNTESTS) ## run the tests that have concurrency under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(TEST) -race -timeout 40m ./...

test-c: $(RUNTESTS) ## run the tests of the guest written in C (needs clang and lld)
	$(TEST) -tags cguest ./abi/... ./host/internal/conform/... ./host/internal/metering/kernels

test-js: $(RUNTESTS) node ## read events with the JavaScript SDK of CloudEvents, and OpenAPI documents with Redocly and Ajv (needs Node.js and npm)
	$(TEST) -tags node -run JavaScript ./host/service ./host/hosttest

# npm ci installs what the lock file says, by checksum, and runs no scripts of packages.
node:
	@mkdir -p build/js
	cp .ci/js/package.json .ci/js/package-lock.json build/js/
	npm ci --prefix build/js --ignore-scripts --no-audit --no-fund --silent

hostile: $(RUNTESTS) ## everything hostile at once beside a service that behaves, with little memory, few files and a small disk: TIME=1m
	$(PROVE) ./host/internal/hostile $(LENGTH)

slow: $(RUNTESTS) ## search for modules that run for long between two checks of the host: TIME=5m, SEED=n repeats a run
	$(PROVE) ./host/internal/sandbox $(LENGTH)

crash: $(RUNTESTS) ## kill -9 a loaded host at random moments: ROUNDS=50, SEED=n repeats a run
	$(PROVE) ./host/internal/crash $(LENGTH)

prove: $(RUNTESTS) ## all proofs at full length: kills, power cuts, damaged files, models, linearizability, hostile services; TIME=3m for each that is timed
	$(PROVE) $(PROOFS) $(LENGTH)

fuzz: ## fuzz every target for FUZZTIME=10s
	GO='$(GO)' FUZZTIME='$(FUZZTIME)' sh .ci/fuzz

bench: build guests ## measure: load on a bank of 100,000 accounts, group commit, codecs, journal, engine, hydration, metering, uploads, verifications, sandboxes, neighbours, readers, many services
	bin/bulkhead bench --module build/guests/bank.wasm --duration $(BENCHTIME)
	$(GO) test -run '^$$' -bench . -skip '^BenchmarkBadger$$/^bounds' -benchmem -benchtime 1s ./abi/... ./journal/... ./host ./host/internal/engine/... ./host/hosttest/...
	@# With fewer commits a bound is spared the tables that it puts off.
	$(GO) test -run '^$$' -bench '^BenchmarkBadger$$/^bounds' -benchtime 1000000x -timeout 1h ./journal/badgerlog
	$(GO) test -run '^$$' -bench . -benchtime 60x ./host/internal/metering/kernels
	$(GO) test -run '^$$' -bench 'Upload|Neighbour' -benchtime 5x ./host/internal/sandbox
	$(GO) test -run '^$$' -bench 'Border|Start|Reset|Ending' -benchtime 3x ./host/internal/sandbox
	$(GO) test -run '^$$' -bench Slices -benchtime 3x ./host/internal/sandbox
	$(GO) test -run '^$$' -bench Neighbours -benchtime 1x ./host/hosttest
	$(GO) test -run '^$$' -bench "Neighbours|BytesInFlight" -benchtime 10x -timeout 2h ./host/internal/hostile
	$(GO) test -run '^$$' -bench . -benchtime 1s ./host/internal/fair ./host/internal/stream ./host/service
	$(GO) test -run '^$$' -bench Readers -benchtime 1x -timeout 1h ./host/internal/gateway

lint: ## gofmt, go mod tidy, go vet and staticcheck, for this machine and for wasip1
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path './.*' -not -path './build/*')); \
		test -z "$$unformatted" || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) vet -tags cguest,node ./...
	GOOS=wasip1 GOARCH=wasm $(GO) vet ./abi ./guest-sdk/... ./plugins/...
	$(GO) build -modfile=.ci/tools.mod -o build/tools/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(STATICCHECK) ./...
	GOOS=wasip1 GOARCH=wasm $(STATICCHECK),-U1000 ./abi ./guest-sdk/... ./plugins/...

# The tests of the guest in C and those with tools in JavaScript run among the others.
check: lint build guests node ## everything that must pass before a change goes in
	@rm -rf build/times
	$(MAKE) test TAGS=cguest,node
	$(MAKE) test-race
	$(MAKE) fuzz FUZZTIME=3s
	$(MAKE) crash ROUNDS=5
	@echo 'The ten slowest tests:'
	@$(RUNTESTS) -slowest 10 build/times/*.json

bench-growth: ## measure journals of GROWTH=1000000,10000000 events against each other (10 GB of disk, some minutes)
	$(GO) test -run '^$$' -bench Growth -timeout 2h ./journal/storage -events $(GROWTH)

clean: ## remove what was built
	rm -rf bin build
