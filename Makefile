# puffer-edge: `make demo` and `make test` do their own set-up. PYTHON names the interpreter (3.10 or newer) that .venv is made of.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
RUN    := $(VENV)/bin
STAMP  := $(VENV)/.puffer-edge
PIP    := $(RUN)/pip install -qq --disable-pip-version-check -c constraints.txt

# What the tests use beyond Python and node: the cross compiler of the RP2040 image with its C library, a second C compiler that with lld
# also builds for WebAssembly, a browser for the page around it, and Rust for the example of an environment in it.
APT := gcc-arm-none-eabi libnewlib-arm-none-eabi gcc-riscv64-unknown-elf gcc-xtensa-lx106 clang lld cmake chromium rustc

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint firmware toolchains clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## create .venv with everything in it (once; again after a change of the pins)

$(STAMP): pyproject.toml constraints.txt package.json package-lock.json
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make setup PYTHON=python3.12"; exit 1; }
	@echo "setup 1/4  virtual environment $(VENV), with $$($(PYTHON) --version)"
	@test -x $(RUN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP) setuptools
	@echo "setup 2/4  torch (the largest download)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@echo "setup 3/4  puffer-edge, editable, with all extras"
	@$(PIP) --no-build-isolation --editable '.[all]'
	@if command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null; then \
	    echo "setup 4/4  the node emulators (rp2040js, MicroPython)"; \
	    npm ci --silent --no-audit --no-fund; \
	else \
	    echo "setup 4/4  no node >= 18 with npm here: the slower emulator rp2040py will serve; with node, run: make -B setup"; \
	fi
	@touch $@

demo: setup ## train, put into integers, export, install on an emulated RP2040, check, report
	@$(RUN)/python examples/demo.py $(ARGS)

test: setup ## run all that this machine can run, and say what it did not (ARGS="-m 'not slow'" for the quick ones)
	@$(RUN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: setup ## ruff and mypy --strict
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy

firmware: setup ## rebuild the RP2040 image, the WebAssembly engine and the C constants (needs make toolchains)
	@$(RUN)/python firmware/build.py $(ARGS)

toolchains: ## install the cross compiler with apt-get, and build the MicroPython unix port if its script is here
	@command -v apt-get >/dev/null || { echo "no apt-get on this machine. Install with its own package manager: $(APT)"; exit 1; }
	@as_root=; test "$$(id -u)" = 0 || as_root=sudo; \
	if dpkg --status $(APT) >/dev/null 2>&1; then echo "toolchains  already installed: $(APT)"; else \
	    echo "toolchains  apt-get install $(APT) (about 1.8 GB on disk)"; \
	    $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(APT) >/dev/null; \
	fi
	@if test -f firmware/micropython/build_unix.sh; then bash firmware/micropython/build_unix.sh; fi

clean: ## remove what the tools and builds wrote; keeps .venv, node_modules and runs
	@rm -rf build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache firmware/build firmware/*/build
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './node_modules/*' -prune -exec rm -rf {} +
