# The verbs. CI runs the same ones (.ci/run).
#
# PORT, BUILDER_PORT, ADMIN_SOCKET, STATE_DIR, TOOLS_DIR and the NIXERY_* settings are read from
# the environment or given as in `make run PORT=9000`.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run gateway test fuzz check advisories bench study reference fmt doc clean uninstall build

export PORT BUILDER_PORT ADMIN_SOCKET STATE_DIR TOOLS_DIR
# An empty variable is one that was not given.
$(foreach name,PORT BUILDER_PORT ADMIN_SOCKET STATE_DIR TOOLS_DIR,$(if $($(name)),,$(eval unexport $(name))))

state_dir := $(or $(STATE_DIR),.nixgate)
tools_dir := $(or $(TOOLS_DIR),$(state_dir)/tools)
target_dir := $(or $(CARGO_TARGET_DIR),target)
# The end-to-end tests are a feature, so that `cargo test` alone needs no root, Nix or Envoy.
with_e2e := --features nixgate-tests/e2e
filter := --package nixgate-filter --target wasm32-wasip1

help: ## List the verbs
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 12
	@printf '%s\n' '' 'make run, make gateway: PORT (8080, 8443), BUILDER_PORT (8081), ADMIN_SOCKET, STATE_DIR (.nixgate);' \
	  'NIXERY_CHANNEL, NIXERY_PKGS_REPO, NIXERY_PKGS_PATH or NIXGATE_FLAKE replace the embedded package set'

build: # What is run and shipped: the builder, and the filter as wasm
	cargo build --locked --release --package nixgate
	cargo build --locked --profile wasm $(filter)

run: ## Install what is missing, build, and serve on 127.0.0.1:8080 until Ctrl-C
	@scripts/setup.sh run
	@$(MAKE) --no-print-directory build
	@# Should make be killed, the kernel tells the script.
	@exec setpriv --pdeathsig TERM envoy/standalone/run.sh

gateway: ## The same with TLS and a login, on 127.0.0.1:8443
	@scripts/setup.sh gateway
	@$(MAKE) --no-print-directory build
	@exec setpriv --pdeathsig TERM envoy/corporate-gateway/run.sh

test: ## Install what is missing and run every test
	@scripts/setup.sh test
	scripts/package-set.sh amd64 arm64
	@$(MAKE) --no-print-directory build
	python3 -m unittest nix/tests/test_index.py scripts/test_*.py
	nix-instantiate --eval --strict --read-write-mode nix/tests/resolve.nix >/dev/null
	nix-instantiate --eval --strict --read-write-mode nix/tests/attributes.nix >/dev/null
	nix-instantiate --eval --strict --read-write-mode nix/tests/image.nix >/dev/null
	cargo test --locked $(with_e2e)
	@# The core's again, on the target that the filter is built for. `cargo test` has built what
	@# runs them.
	CARGO_TARGET_WASM32_WASIP1_RUNNER="$(abspath $(target_dir))/debug/examples/wasi-run" \
	  cargo test --locked --package nixgate-core --target wasm32-wasip1 --lib
	@$(MAKE) --no-print-directory fuzz

fuzz: ## Look for input that breaks what is read from strangers (FUZZ_SECONDS each, 5)
	tests/fuzz/run.sh

check: ## Format, lints, wasm build, Envoy configurations, dependencies
	@scripts/setup.sh check
	cargo fmt --all --check
	cargo clippy --locked --all-targets $(with_e2e) -- --deny warnings
	cargo clippy --locked $(filter) -- --deny warnings
	cargo clippy --locked --package nixgate-fuzz -- --deny warnings
	cargo build --locked --profile wasm $(filter)
	scripts/check-envoy-configs.sh
	$(tools_dir)/bin/cargo-deny --locked --log-level error check bans licenses sources
	scripts/check-core-dependencies.sh
	python3 scripts/check_imports.py
	python3 scripts/check_downloads.py

advisories: ## Check dependencies against the RustSec database (which must be reachable)
	@scripts/setup.sh check
	$(tools_dir)/bin/cargo-deny --locked check advisories

bench: ## Measure edge and builder, the edge beside Envoy itself, docker-registry and nginx (about 25 minutes)
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory build
	cargo run --locked --quiet $(with_e2e) --example bench
	@echo
	cargo run --locked --quiet $(with_e2e) --example bench-builds
	cargo run --locked --quiet $(with_e2e) --example bench-builds large

study: ## Simulate groupings of store paths into layers, over Debian's package index (minutes)
	@scripts/setup.sh run
	scripts/package-set.sh amd64
	STATE_DIR=$(state_dir) cargo run --locked --quiet --package nixgate-study

reference: ## Write the tables of the documentation that come from the code; tests compare them
	UPDATE_EXPECT=1 cargo test --locked --package nixgate-core --package nixgate --lib _page_has_

fmt: ## Format the code
	cargo fmt --all

doc: ## Build the API reference (target/doc) and the book (docs/book)
	@scripts/setup.sh doc
	cargo doc --locked --workspace --no-deps --document-private-items
	PATH="$(abspath $(tools_dir))/bin:$$PATH" mdbook build docs

clean: ## Remove what was built; installed tools, images and state stay
	cargo clean
	rm -rf docs/book

uninstall: ## Remove everything that nixgate installed or wrote, and name what stays
	@scripts/uninstall.sh
