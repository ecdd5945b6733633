# Everything a developer or CI runs. Needs Rust and a C compiler; scripts/setup fetches the rest below target/tools.
#
# All builds take the dev-dependencies in (--all-targets, an example, a test), so that cargo resolves the same features
# each time and compiles the S3 client once.
CARGO ?= cargo
IMAGE ?= narthex
BUILDER ?= $(shell command -v docker || command -v podman || echo buildah)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

.PHONY: help demo test check bench image flags proto

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: ## Prometheus, narthex and a local bucket for a minute: watch blocks arrive, compared byte by byte
	@scripts/setup demo
	@$(CARGO) build --locked --quiet --bin narthex --example demo
	@$(CARGO) run --locked --quiet --example demo

test: ## Every test, also those against real Prometheus versions and a real S3 server
	scripts/setup test
	$(CARGO) test --locked

check: ## What must hold before a commit: format, lints, dependencies, the programs of the fuzzer
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	CARGO=$(CARGO) scripts/deny
	@# Not linked, so that no C++ compiler is needed: the path only keeps libFuzzer from being built.
	CUSTOM_LIBFUZZER_PATH=/none/libfuzzer.a $(CARGO) check --locked --manifest-path fuzz/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-target}

bench: ## The benchmarks, in a minute or two after the build; figures, no verdicts
	scripts/setup demo
	$(CARGO) bench --locked

image: ## The container image
	$(BUILDER) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -t $(IMAGE):$(VERSION) .

flags: ## Rewrites the recorded help texts, docs/flags.md, docs/commands.md and docs/metrics.md
	UPDATE=1 $(CARGO) test --locked --test it -- cli:: docs::metrics

proto: ## Generates src/pb from proto
	UPDATE=1 $(CARGO) test --locked --test it codegen
