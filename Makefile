# `make` lists the targets. Two of them need nothing but Go and this tree:
# `make demo` and `make test`.

SHELL       := /bin/sh
.DEFAULT_GOAL := help

GO          ?= go
BIN         := bin
TOOLS       := .bin
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -X main.version=$(VERSION)

# -race, as in CI: it needs a C compiler, and half as long again.
RACE        ?=
TESTFLAGS   ?=
TEST_TIMEOUT ?= 40m
PACKAGES    ?= ./...

# What the stock goose is built without: every database but PostgreSQL.
GOOSE_TAGS  := no_clickhouse no_libsql no_mssql no_mysql no_sqlite3 no_vertica no_ydb no_duckdb no_spanner no_starrocks

##@ Use

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z][a-z-]*:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/orphan-cleaner
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/orphan-cleaner ./cmd/orphan-cleaner

.PHONY: build-lab
build-lab: build ## build bin/lab, which drives bin/orphan-cleaner
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/lab ./cmd/lab

.PHONY: release
release: $(TOOLS)/cyclonedx-gomod $(TOOLS)/nfpm ## build dist/release: archives, .deb and .rpm for each platform, SBOMs and SHA256SUMS
	./tools/scripts/release.sh $(VERSION) dist $(TOOLS)

.PHONY: check-release
check-release: $(TOOLS)/cyclonedx-gomod $(TOOLS)/nfpm ## build what is released twice, in two places: it must be the same
	./tools/scripts/check-release.sh $(VERSION) $(TOOLS)

.PHONY: demo
demo: postgres build-lab ## see all of it on a throw-away PostgreSQL and auth-service
	@$(BIN)/lab demo

.PHONY: demo-targets
demo-targets: postgres build-lab ## see five more tables cleaned in one run: the content service of docs/targets.md
	@$(BIN)/lab demo --targets docs/targets.md

BENCHFLAGS  ?=
BENCH       = mkdir -p dist && $(BIN)/lab bench --json dist/bench.json --svg docs/bench.svg --markdown docs/performance.md

.PHONY: bench
bench: postgres build-lab ## measure whole runs beside a floor, in a quarter of an hour, into docs/performance.md
	@$(BENCH) $(BENCHFLAGS)

.PHONY: bench-all
bench-all: postgres build-lab ## the same up to ten million members, for hours
	@$(BENCH) --size 150,1500,15000,1m,10m $(BENCHFLAGS)

SIMULATEFLAGS ?=

.PHONY: simulate
simulate: postgres build-lab ## play a year in minutes: what lying auth-services cost, into docs/simulation.md
	@$(BIN)/lab simulate --markdown docs/simulation.md $(SIMULATEFLAGS)

.PHONY: postgres
postgres: ## install PostgreSQL where it is missing
	@./tools/scripts/postgres.sh

##@ Work

# The programs that the tests use, where they are there.
TEST_ENV     = ORPHAN_CLEANER_TEST_GOOSE=$(CURDIR)/$(TOOLS)/goose ORPHAN_CLEANER_TEST_GRPCURL=$(CURDIR)/$(TOOLS)/grpcurl \
	ORPHAN_CLEANER_TEST_PROMETHEUS=$(CURDIR)/$(TOOLS)/prometheus ORPHAN_CLEANER_TEST_NFPM=$(CURDIR)/$(TOOLS)/nfpm \
	ORPHAN_CLEANER_TEST_AXE=$(CURDIR)/$(TOOLS)/axe.min.js

.PHONY: test
# Without vet, which is lint's: with the race detector it would read all again.
test: postgres plpgsql-check fault-tools prometheus browser $(TOOLS)/goose $(TOOLS)/grpcurl $(TOOLS)/nfpm ## run all tests, on a real PostgreSQL; RACE=-race for data races, too
	$(TEST_ENV) \
		$(GO) test $(RACE) -vet=off -count=1 -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $(PACKAGES)

VERSIONS    ?= 16 17 18
# What an answer of the server decides: not what is the same with any of them.
VERSION_PACKAGES ?= ./cmd/orphan-cleaner ./internal/check/... ./internal/database ./internal/faults ./internal/model ./internal/run ./internal/telemetry ./migrations ./sql/runbook

.PHONY: test-versions
test-versions: postgres fault-tools prometheus $(TOOLS)/goose $(TOOLS)/grpcurl ## run the tests that a server decides on PostgreSQL 16, 17 and 18 (Linux on x86_64)
	@$(TEST_ENV) ./tools/scripts/test-versions.sh $(TOOLS) $(VERSIONS) -- -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $(VERSION_PACKAGES)

.PHONY: faults
faults: postgres fault-tools ## meet every fault in full, 200 kills among them, and print the matrix
	@ORPHAN_CLEANER_TEST_FAULTS=full ORPHAN_CLEANER_TEST_FAULT_MATRIX=$(CURDIR)/dist/fault-matrix.txt \
		$(GO) test -count=1 -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./internal/faults && cat dist/fault-matrix.txt

.PHONY: fault-tools
fault-tools: # PgBouncer and libfaketime, where they can be installed
	@./tools/scripts/fault-tools.sh

SOAK        ?= 1h
SOAK_LOT    ?= 25

.PHONY: soak
soak: postgres ## play random histories against the model, for SOAK=1h
	ORPHAN_CLEANER_TEST_SOAK=$(SOAK) $(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' ./internal/model \
		-rapid.checks=$(SOAK_LOT) -rapid.shrinktime=3m $(TESTFLAGS)

FUZZTIME    ?= 30s

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZTIME=30s
	@grep -roE '^func Fuzz[A-Za-z]+' --include='*_test.go' cmd internal \
		| sed -E 's|^(.*)/[^/]*:func (.*)$$|\1 \2|' \
		| while read -r dir target; do \
			echo "$$target in $$dir"; \
			$(GO) test "./$$dir" -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $(TESTFLAGS) || exit 1; \
		done

.PHONY: cover
cover: postgres fault-tools prometheus $(TOOLS)/goose $(TOOLS)/grpcurl ## run all tests and show what they do not reach
	$(TEST_ENV) \
		$(GO) test -count=1 -timeout $(TEST_TIMEOUT) -coverpkg=./cmd/...,./internal/... \
		-coverprofile=coverage.out $(TESTFLAGS) $(PACKAGES)
	$(GO) tool cover -func=coverage.out | tail -n 1
	$(GO) tool cover -html=coverage.out -o coverage.html

.PHONY: lint
lint: check-generated squawk check-deploy $(TOOLS)/golangci-lint ## gofmt, vet, linters of Go and of migrations, alerts, and gen/ up to date
	$(GO) vet ./...
	$(TOOLS)/golangci-lint run --config tools/lint/golangci.yaml

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint ## format the Go code
	$(TOOLS)/golangci-lint fmt --config tools/lint/golangci.yaml

.PHONY: generate
# buf first: it clears gen/ before it writes.
generate: $(TOOLS)/sqlc $(TOOLS)/buf $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## write gen/ from proto/ and queries/, and the plans to look at
	$(TOOLS)/buf generate proto --template proto/buf.gen.yaml
	rm -f gen/db/*.sql.go
	$(TOOLS)/sqlc generate
	./tools/scripts/explain.sh > sql/runbook/explain_queries.sql

.PHONY: check-generated
check-generated: postgres $(TOOLS)/sqlc $(TOOLS)/buf $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## fail where gen/ is not up to date; prepare every query
	./tools/scripts/check-generated.sh $(TOOLS)

MEMBERS ?= 10000000
.PHONY: dba-measure
dba-measure: postgres $(TOOLS)/goose ## measure what each migration costs a messaging-service at work
	@./tools/scripts/dba-measure.sh $(TOOLS)/goose $(MEMBERS)

.PHONY: squawk
squawk: $(TOOLS)/squawk ## lint the migrations
	./tools/scripts/squawk.sh $(CURDIR)/$(TOOLS)/squawk

.PHONY: check-deploy
check-deploy: $(TOOLS)/promtool ## check the alerts, that each fires and clears, and the Kubernetes manifests
	$(TOOLS)/promtool check rules deploy/prometheus/rules.yaml
	$(TOOLS)/promtool test rules deploy/prometheus/rules_test.yaml
	$(GO) -C tools/k8s test -count=1 ./...

.PHONY: k8s-rules
k8s-rules: # write deploy/prometheus/rules.yaml for the Prometheus operator and into the chart
	cp deploy/prometheus/rules.yaml deploy/helm/rules.yaml
	@{ printf '%s\n' '# Written by `make k8s-rules` from deploy/prometheus/rules.yaml: edit that.' \
		'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: orphan-cleaner' 'spec:' && \
		sed -e '/^#/d' -e 's/^./  &/' deploy/prometheus/rules.yaml; } > deploy/k8s/components/alerts/prometheusrule.yaml

.PHONY: plpgsql-check
plpgsql-check: # installs plpgsql_check, where that is easy, for the test of the functions' bodies
	@./tools/scripts/plpgsql-check.sh

.PHONY: browser
browser: # a headless Chromium and axe-core, where they can be installed, for the tests of the status page
	@./tools/scripts/browser.sh $(TOOLS)

.PHONY: screenshots
screenshots: postgres ## take the pictures of the commands and of the status page in docs/ anew
	ORPHAN_CLEANER_TEST_UPDATE=1 $(GO) test -count=1 -timeout 10m -run '^TestPictures$$' ./cmd/orphan-cleaner
	@./tools/scripts/browser.sh $(TOOLS) --fonts
	CI=true ORPHAN_CLEANER_TEST_SCREENSHOTS=$(CURDIR)/docs $(TEST_ENV) $(GO) test -count=1 -timeout 10m -run '^TestInBrowser$$' ./internal/page

.PHONY: clean
clean: ## remove what was built, except the tools
	rm -rf $(BIN) coverage.out coverage.html

##@ Tools

.PHONY: prometheus
prometheus: $(TOOLS)/prometheus ## fetch Prometheus for the tests

# Each tool is built when the module that pins it changes. The touch is for go
# build, which leaves a program alone that is up to date.
.PHONY: tools
tools: $(addprefix $(TOOLS)/,sqlc goose protoc-gen-go protoc-gen-go-grpc buf golangci-lint grpcurl) ## build the pinned tools into .bin

$(TOOLS)/sqlc $(TOOLS)/goose $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc: tools/go.mod tools/go.sum
$(TOOLS)/buf: tools/buf/go.mod tools/buf/go.sum
$(TOOLS)/squawk: tools/squawk/package.json
$(TOOLS)/golangci-lint: tools/lint/go.mod tools/lint/go.sum
$(TOOLS)/grpcurl: tools/grpcurl/go.mod tools/grpcurl/go.sum
$(TOOLS)/cyclonedx-gomod: tools/sbom/go.mod tools/sbom/go.sum
$(TOOLS)/nfpm: tools/nfpm/go.mod tools/nfpm/go.sum

# Those that the tests use are built as the product is: what they share is compiled once.
$(TOOLS)/goose $(TOOLS)/grpcurl $(TOOLS)/nfpm: export CGO_ENABLED = 0

# $(call tool,MODULE,PACKAGE,FLAGS): builds $@.
define tool
	@mkdir -p $(TOOLS)
	$(GO) -C $(1) build -trimpath -o $(CURDIR)/$@ $(3) $(2)
	@touch $@
endef

$(TOOLS)/sqlc:
	$(call tool,tools,github.com/sqlc-dev/sqlc/cmd/sqlc)
$(TOOLS)/goose:
	$(call tool,tools,github.com/pressly/goose/v3/cmd/goose,-tags '$(GOOSE_TAGS)')
$(TOOLS)/protoc-gen-go:
	$(call tool,tools,google.golang.org/protobuf/cmd/protoc-gen-go)
$(TOOLS)/protoc-gen-go-grpc:
	$(call tool,tools,google.golang.org/grpc/cmd/protoc-gen-go-grpc)
$(TOOLS)/buf:
	$(call tool,tools/buf,github.com/bufbuild/buf/cmd/buf)
$(TOOLS)/golangci-lint:
	$(call tool,tools/lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
$(TOOLS)/grpcurl:
	$(call tool,tools/grpcurl,github.com/fullstorydev/grpcurl/cmd/grpcurl)
$(TOOLS)/squawk:
	./tools/scripts/squawk-install.sh $(TOOLS)
	@touch $@
$(TOOLS)/cyclonedx-gomod:
	$(call tool,tools/sbom,github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod,-buildvcs=false)
$(TOOLS)/nfpm:
	$(call tool,tools/nfpm,github.com/goreleaser/nfpm/v2/cmd/nfpm)
$(TOOLS)/promtool: tools/scripts/prometheus.sh
	./tools/scripts/prometheus.sh $(TOOLS)
	@touch $@
$(TOOLS)/prometheus: $(TOOLS)/promtool
