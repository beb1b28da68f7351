# The few commands of this repository. Each installs what it lacks, and says so (scripts/setup).
#
#   make demo    a whole plant on this machine, in network namespaces: two gateways, a coordinator, real peers
#   make test    the whole suite
#   make lint    formatting, clippy, and cargo-deny where it is installed
#   make bench   what the README's table of budgets is measured with; CONTRIBUTING.md says how to run a part of it alone
#   make fleet   a fleet of N simulated gateways (10,000), each with its own certificate and session, beside a real coordinator
#   make fuzz    the inspectors against random bytes, guided by coverage; FUZZ_SECONDS for each target, else 300
#   make soak    the random tests many times over: more cases, seeds and kills; SOAK times what make test takes, else 10
#   make setup   only installs what is lacking

CARGO ?= cargo
# For example: make demo ARGS=--keep
ARGS ?=
# How many gateways `make fleet` starts; several sizes one after the other by commas.
N ?= 10000

.PHONY: demo test lint bench fleet fuzz soak build setup

demo: setup build
	@PATH="$$PATH:/usr/sbin:/sbin" target/debug/penstock demo $(ARGS)

test: setup
	@scripts/test $(ARGS)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --quiet -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --workspace check licenses bans sources; \
	else echo "lint: cargo-deny is not installed; tests/tests/tidy still checks the licences"; fi

bench:
	@scripts/setup --bench
	$(CARGO) bench --locked --workspace $(ARGS)

fleet:
	$(CARGO) bench --locked --no-run -p penstock-coordinator
	PENSTOCK_FLEET=$(N) $(CARGO) bench --locked -p penstock-tests --bench fleet

fuzz: setup
	@scripts/fuzz $(ARGS)

soak: setup
	@scripts/soak $(ARGS)

build:
	$(CARGO) build --locked --workspace --bins

setup:
	@scripts/setup
