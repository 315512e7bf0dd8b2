# Two commands do everything on a fresh Debian or Ubuntu machine with a Rust toolchain:
#   make demo   see it work       make test   check all of it
# All that hostile documents can do, for FUZZ_SECONDS each:  make fuzz FUZZ_SECONDS=600
.PHONY: demo test test-torture test-mutants test-clients test-views test-systemd fuzz bench bench-quick deps deps-demo fmt

# Cargo's own folder, so that `CARGO_TARGET_DIR` is honoured by the scripts too.
export CARGO_TARGET_DIR ?= $(CURDIR)/target

demo: deps-demo
	cargo build --release --locked --package modelfs-mountd
	@scripts/demo.sh

# Programs and tests are built in one go: apart, half of the dependencies are built twice, since tests
# enable more of them.
test: deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/house-rules.sh
	cargo build --workspace --bins --tests --locked
	cargo test --workspace --locked

# The long forms: minutes of what `test` tries for seconds. Prints what was tried.
test-torture: deps
	cargo build --workspace --bins --tests --locked
	MODELFS_POWER_CUTS=$${MODELFS_POWER_CUTS:-240} \
	MODELFS_TORTURE_SECONDS=$${MODELFS_TORTURE_SECONDS:-300} cargo test --workspace --locked \
		--test e2e -- --nocapture disk_power:: torture::

# Changes the code that decides what is served, one place at a time, and expects a test to fail for each;
# hours. Which code and which tests: .cargo/mutants.toml. Needs cargo-mutants (cargo install cargo-mutants).
test-mutants: deps
	cargo mutants --no-shuffle

# Real programs (safetensors, tokenizers, onnxruntime) on a mount; downloads some 100 MB of wheels.
test-clients: deps
	cargo build --release --locked --package modelfs-mountd
	scripts/test-clients.sh

# Real programs (huggingface_hub, transformers) find models by name on a view; downloads some 200 MB.
test-views: deps
	cargo build --workspace --bins --tests --locked
	scripts/test-views.sh

# Our units under a systemd booted in namespaces, in a root of its own: it sees nothing of this machine
# but /usr. Root, and the package systemd.
test-systemd: deps
	cargo build --workspace --bins --locked
	scripts/test-systemd.sh

# Needs cargo-fuzz (cargo install cargo-fuzz --locked) and no other toolchain.
fuzz: deps
	scripts/fuzz.sh

# Ratios against the native file, curl and rclone, medians, some forty minutes as root; rewrites the
# figures of docs/performance.md, .json and .svg. The quick one takes under three minutes and writes
# nothing. Some cases only: scripts/bench.sh WORDS OF A TITLE. Parts: cargo bench -p modelfs-benches
bench: deps
	cargo build --release --locked --package modelfs-mountd --package modelfs-benches
	scripts/bench.sh

bench-quick: deps
	cargo build --release --locked --package modelfs-mountd --package modelfs-benches
	scripts/bench.sh --quick

# What tests and benches need, and what the demo needs, which is less.
deps:
	@scripts/deps.sh tests

deps-demo:
	@scripts/deps.sh demo

fmt:
	cargo fmt --all
