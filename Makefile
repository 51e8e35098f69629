# Manifold. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CGO_ENABLED := 0
export MANIFOLD_CACHE ?= /var/cache/manifold
export MANIFOLD_TEST_STACKS ?= $(MANIFOLD_CACHE)/stacks

BIN     := bin
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unversioned)
BUILD   := go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# Builds reach the package registries as this machine does: what its Go and npm
# are set to goes into the environment, from which the coordinator hands it on.
MIRRORS = GOPROXY="$$(go env GOPROXY)" GOSUMDB="$$(go env GOSUMDB)" \
	npm_config_registry="$${npm_config_registry:-$$(npm config get registry 2>/dev/null || true)}"

# Debian packages, each for a reason that README.md gives.
RUN_PACKAGES  := ca-certificates git mmdebstrap erofs-utils e2fsprogs
TEST_PACKAGES := $(RUN_PACKAGES) gcc libc6-dev curl nftables iproute2 util-linux procps mount busybox-static openssh-client prometheus rsyslog rsyslog-gnutls qemu-system-x86
BENCH_PACKAGES := $(TEST_PACKAGES) runc bubblewrap

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

.PHONY: run
run: packages build ## Run the platform on this machine, push the sample app to it, stay in the foreground
	@$(MIRRORS) exec bin/manifold run

.PHONY: build
build: ## Build the three programs into bin/
	@go generate ./isolation
	@$(BUILD) -o $(BIN)/ ./cmd/...

# Where `make install` puts things. Units lie where systemd looks for them with
# either usual PREFIX: systemd.unit(5), sysusers.d(5).
DESTDIR :=
PREFIX  := /usr/local

.PHONY: install
install: build ## Put programs, units, settings, man pages, completions and docs in place (DESTDIR, PREFIX)
	@install -Dt '$(DESTDIR)$(PREFIX)/bin' $(BIN)/manifold $(BIN)/manifold-agent $(BIN)/manifold-coordinator
	@install -Dm644 -t '$(DESTDIR)$(PREFIX)/lib/systemd/system' cmd/units/manifold*.{service,socket,slice}
	@sed -i 's,/usr/\(bin\|share\)/,$(PREFIX)/\1/,' '$(DESTDIR)$(PREFIX)'/lib/systemd/system/manifold-*.service
	@install -Dm644 cmd/units/manifold.sysusers '$(DESTDIR)$(PREFIX)/lib/sysusers.d/manifold.conf'
	@for f in cmd/units/etc/*.env; do \
		[ -e "$(DESTDIR)/etc/manifold/$${f##*/}" ] || install -Dm600 -t '$(DESTDIR)/etc/manifold' $$f; done
	@umask 022 && $(BIN)/manifold man '$(DESTDIR)$(PREFIX)/share'
	@install -Dm644 -t '$(DESTDIR)$(PREFIX)/share/doc/manifold' README.md docs/*.md
	@[ -n '$(DESTDIR)' ] || echo 'Installed. Next: systemd-sysusers && systemctl daemon-reload, then $(PREFIX)/share/doc/manifold/hosts.md'

# Sorts by age: that of the commit.
DEB_VERSION := 0.$(shell git log -1 --format=%cd --date=format:%Y%m%d.%H%M%S 2>/dev/null || echo 0)+$(VERSION)
DEB         := $(BIN)/manifold.deb

.PHONY: deb
deb: ## Build a Debian package of it all: bin/manifold.deb
	@root=$$(mktemp -d); chmod 755 "$$root"; trap 'rm -rf "$$root"' EXIT; \
	$(MAKE) install DESTDIR="$$root" PREFIX=/usr; \
	mkdir "$$root/DEBIAN"; cp cmd/units/deb/* "$$root/DEBIAN/"; \
	(cd "$$root" && find etc -type f -printf '/%p\n') >"$$root/DEBIAN/conffiles"; \
	sed -i -e 's/@VERSION@/$(DEB_VERSION)/' -e "s/@SIZE@/$$(du -sk "$$root" | cut -f1)/" "$$root/DEBIAN/control"; \
	dpkg-deb --root-owner-group -Zzstd -z3 --build "$$root" '$(DEB)'

.PHONY: packages
packages: ## Install the Debian packages that running needs, if any is missing
	@test/packages $(RUN_PACKAGES)

.PHONY: test
test: ## Format, static checks, unit, kernel and end-to-end tests, the VM rig beside them (as root)
	@TEST_PACKAGES='$(TEST_PACKAGES)' test/all

.PHONY: test-vm
test-vm: ## Kernel tests and systemd units on an emulated Debian 12 with cgroup v2 (as root)
	@test/packages $(TEST_PACKAGES)
	@go test -count=1 -timeout 60m -v ./test/vm

.PHONY: test-cli
test-cli: export MANIFOLD_TEST_CLIS := 11.10.0 10.17.0 9.5.1
test-cli: build ## The heroku CLI, command by command, as a table; what everyone types in three generations of it (as root)
	@test/packages $(TEST_PACKAGES)
	@test/heroku-cli
	@go test -count=1 -timeout 30m -v -run '^(TestHerokuLevel1|TestHerokuApps|TestHerokuAccount|TestHerokuLogin|TestHerokuBuildpacks|TestBuildsAPI|TestReleasePhase)$$|^TestRun$$/^all_else$$/^(stop|inside)$$|^TestLogs$$/^drains$$' ./test

.PHONY: test-hostile
test-hostile: ## Hostile apps on a platform of their own beside a timed neighbour, as a table (as root)
	@test/packages $(TEST_PACKAGES)
	@go test -count=1 -timeout 30m -v ./test/hostile

.PHONY: test-survive
test-survive: ## The agent killed 200 times and dynos replaced in every way under load, as a table (as root)
	@test/packages $(TEST_PACKAGES)
	@MANIFOLD_SURVIVE=full go test -count=1 -timeout 30m -v ./test/survive

.PHONY: test-deploys
test-deploys: ## 50 deploys under 300 requests a second, no request failed (as root)
	@test/packages $(TEST_PACKAGES)
	@MANIFOLD_TEST_DEPLOYS=50 go test -count=1 -timeout 30m -v -run '^TestDeploysUnderLoad$$' ./test

.PHONY: lint
lint: build ## Format, vet, staticcheck, tidy
	@test/lint

.PHONY: fmt
fmt: ## Format the Go files
	@gofmt -w $$(git ls-files '*.go')

.PHONY: bench
bench: build ## Benchmarks
	@test/packages $(BENCH_PACKAGES)
	@go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-start
bench-start: build ## Request to first instruction of an app: ours, runc's, bubblewrap's; a slug of 200 MB and of 1 MB (as root)
	@test/packages $(BENCH_PACKAGES)
	@go test -run '^$$' -bench '^(BenchmarkStart|BenchmarkSlug)$$' -benchtime 200x -timeout 10m ./agent

.PHONY: bench-idle
bench-idle: build ## What 100 idle dynos cost: memory each, the agent's CPU and memory, size of the programs (as root)
	@test/packages $(BENCH_PACKAGES)
	@go test -run '^$$' -bench '^BenchmarkIdle$$' -benchtime 1x -timeout 10m ./agent
	@ls -l bin | awk '/manifold/ {printf "%-24s %.1f MB\n", $$NF, $$5 / 1e6}'

.PHONY: bench-api
bench-api: ## The API under 200 clients at once on 1,000 apps of 50 releases, beside etcd alone; the store's size
	@go test -run '^$$' -bench '^BenchmarkAPI$$' -benchtime 1x -timeout 15m ./coordinator | grep -E '^( |[0-9]+ clients|---|FAIL|ok)'

.PHONY: bench-logs
bench-logs: ## 10,000 log lines/s of four dynos for 60 s to two tails and a drain: losses, latency, CPU (as root)
	@test/packages $(TEST_PACKAGES)
	@BENCH_LOGS_SECONDS=60 go test -count=1 -timeout 10m -v -run 'TestLogs/four' ./test | grep -E 'measured|^(---|ok|FAIL|PASS)'

.PHONY: clean
clean: ## Remove what was built (state in $MANIFOLD_HOME and caches stay)
	@rm -rf bin isolation/launcher/pid1
