# `make` lists the targets. `make demo` and `make test` need nothing before them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

CARGO ?= cargo
KERNELS ?=
# What build, deb and test-deb are made with.
PROFILE ?= release
BUILT := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# With the tests, so that features are as they have them, and what they built is not built again.
WITH_TESTS := $(if $(filter dev,$(PROFILE)),--tests)
LOAD_SECONDS ?= 60
BENCH_ARGS ?=
FUZZ_TARGETS ?= policy_yaml compile_vs_oracle image_reader frames requests
FUZZ_SECONDS ?= 20
FUZZ_ARGS ?=
PROPERTY_CASES ?= 50000
SCRIPTS := $(shell grep -lE '^.!.*\<(ba)?sh$$' scripts/* tests/kernels/* .ci/run fuzz/seed)
export CLANGS ?= 14 15 16 19
export TESTS ALLOWED_FAIL

# Root tests say so when they are skipped; only --show-output lets that be seen.
SHOW_SKIPPED := $(if $(filter-out 0,$(shell id -u)),-- --show-output)

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: setup
setup: ## install what is missing: compiler, headers, protoc, ...
	@scripts/setup

.PHONY: build
build: setup ## the release binaries, in target/release (PROFILE=dev: target/debug)
	$(CARGO) build --profile $(PROFILE) --workspace --bins $(WITH_TESTS)

.PHONY: demo
demo: build ## the firewall at work between network namespaces, then a fleet of three nodes (root)
	@scripts/demo
	@scripts/demo-fleet

.PHONY: test
test: setup ## all tests; those that need root are skipped without it
	@scripts/tally $(CARGO) test --workspace --no-fail-fast $(SHOW_SKIPPED)

.PHONY: test-pure
test-pure: ## the half without kernel: no root, no clang, any OS
	@scripts/tally $(CARGO) test -p xdpgate --no-default-features --no-fail-fast

.PHONY: test-load
test-load: ## a thousand bans a second through the API for a minute, with watchers and traffic (root; LOAD_SECONDS=60)
	XDPGATE_LOAD_SECONDS=$(LOAD_SECONDS) $(CARGO) test --workspace --test root_grpc_load -- --nocapture

.PHONY: test-kernels
test-kernels: ## the tests on 5.10, 6.1, 6.12, 6.18 and the newest kernel in QEMU, and lanes (KERNELS="5.10 jit-off")
	@scripts/setup --kernels
	@tests/kernels/test $(KERNELS)

.PHONY: test-kernels-self
test-kernels-self: ## see the kernel matrix fail: a hang, a panic, a broken program, another skip
	@scripts/setup --kernels
	@tests/kernels/self-test

.PHONY: kernel-table
kernel-table: ## verified instructions by clang and kernel, into docs/kernel-support.md (root)
	@scripts/setup --kernels --clangs
	@scripts/kernel-table

.PHONY: test-clangs
test-clangs: ## compile with each clang, load, compare (root; CLANGS="14 19")
	@scripts/setup --clangs
	@scripts/clang-matrix

.PHONY: test-properties
test-properties: ## the pure property tests with new random numbers and many cases (PROPERTY_CASES=50000)
	PROPTEST_CASES=$(PROPERTY_CASES) $(CARGO) test -p xdpgate --lib --test packet_random --test image \
		--test policy_roundtrip --test address_set --test recompile
	PROPTEST_CASES=$(PROPERTY_CASES) $(CARGO) test -p xdpgated --test service

.PHONY: fuzz
fuzz: ## every fuzz target for a moment (root; FUZZ_SECONDS=20; needs cargo-fuzz)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || \
		{ echo "cargo-fuzz is missing: cargo install --locked cargo-fuzz" >&2; exit 1; }
	@fuzz/seed
	@for target in $(FUZZ_TARGETS); do \
		echo "== $$target"; \
		(cd fuzz && $(CARGO) fuzz run --sanitizer none --codegen-units 16 $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=60 $(FUZZ_ARGS)); \
	done

.PHONY: fuzz-long
fuzz-long: ## every fuzz target for minutes, then the kernel and the oracle on 3 million frames (root)
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=300
	XDPGATE_ORACLE_POLICIES=2000 $(CARGO) test -p xdpgate --test root_oracle -- --nocapture

.PHONY: mutations
mutations: ## break the code in one place at a time and see a test fail for it (root, minutes)
	@scripts/mutations

.PHONY: bench
bench: setup ## the datapath benchmark (root; BENCH_ARGS="...")
	$(CARGO) bench -p xdpgate --bench datapath -- $(BENCH_ARGS)

NODES ?= 10000
.PHONY: bench-fleet
bench-fleet: setup ## a controller with simulated nodes: memory, latency, storms (NODES=10000; BENCH_ARGS="...")
	$(CARGO) bench -p xdpgate-controller --bench fleet -- --nodes $(NODES) $(BENCH_ARGS)

.PHONY: deb
deb: man completions ## the Debian packages of daemon and controller, in target/debian (needs cargo-deb; PROFILE=dev)
	@$(CARGO) deb --version >/dev/null 2>&1 || \
		{ echo "cargo-deb is missing: cargo install --locked cargo-deb" >&2; exit 1; }
	$(CARGO) deb -p xdpgated --no-build --locked --profile $(PROFILE)
	$(CARGO) deb -p xdpgate-controller --no-build --locked --profile $(PROFILE)

.PHONY: test-deb
test-deb: deb ## install, upgrade, remove and purge the packages in namespaces (root; PROFILE=dev)
	@scripts/test-deb "$$(ls -t target/debian/xdpgate_*.deb | head -1)"
	@scripts/test-deb-controller "$$(ls -t target/debian/xdpgate-controller_*.deb | head -1)"

# cargo check links nothing; of the headers of libelf and zlib those of this machine will do.
.PHONY: check-arm64
check-arm64: ## the library is checked for arm64 (needs gcc-aarch64-linux-gnu and the target's std)
	@command -v aarch64-linux-gnu-gcc >/dev/null || \
		{ echo "a compiler is missing: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >&2; exit 1; }
	rustup target add aarch64-unknown-linux-gnu
	CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
	CFLAGS_aarch64_unknown_linux_gnu="-idirafter /usr/include -idirafter /usr/include/$$(gcc -print-multiarch)" \
		$(CARGO) check -p xdpgate --target aarch64-unknown-linux-gnu

.PHONY: lint
lint: ## formatting, clippy, shellcheck if it is there
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p xdpgate --no-default-features --all-targets -- -D warnings
	@! command -v shellcheck >/dev/null || shellcheck $(SCRIPTS)

.PHONY: deny
deny: ## licences, advisories and sources of all dependencies (needs cargo-deny)
	@$(CARGO) deny --version >/dev/null 2>&1 || \
		{ echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check

.PHONY: fmt
fmt: ## format the Rust sources
	$(CARGO) fmt --all

.PHONY: docs
docs: ## the library's documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --workspace

.PHONY: completions
completions: build ## completions of all programs for bash, zsh and fish, in target/share; the controller's in target/share/controller
	@mkdir -p target/share/bash-completion/completions target/share/zsh/site-functions \
		target/share/fish/vendor_completions.d
	@for of in xdpgate xdpgated; do \
		$(BUILT)/xdpgate completions bash --of $$of \
			>target/share/bash-completion/completions/$$of; \
		$(BUILT)/xdpgate completions zsh --of $$of \
			>target/share/zsh/site-functions/_$$of; \
		$(BUILT)/xdpgate completions fish --of $$of \
			>target/share/fish/vendor_completions.d/$$of.fish; \
	done
	@mkdir -p target/share/controller/bash-completion/completions target/share/controller/zsh/site-functions \
		target/share/controller/fish/vendor_completions.d
	@$(BUILT)/xdpgate-controller completions bash \
		>target/share/controller/bash-completion/completions/xdpgate-controller
	@$(BUILT)/xdpgate-controller completions zsh \
		>target/share/controller/zsh/site-functions/_xdpgate-controller
	@$(BUILT)/xdpgate-controller completions fish \
		>target/share/controller/fish/vendor_completions.d/xdpgate-controller.fish

.PHONY: man
man: build ## manual pages of all programs, in target/share/man; the controller's in target/share/controller/man
	@rm -rf target/share/man target/share/controller/man
	@$(BUILT)/xdpgate man target/share/man
	@$(BUILT)/xdpgate-controller man target/share/controller/man

.PHONY: clean
clean: ## all that was built
	$(CARGO) clean
