# Two commands do everything on a fresh Debian 12 or Ubuntu 24.04: `make demo` and `make test`.
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BIN := build/release/fastdeploy
VENV := build/venv
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
# An uncaught sanitizer report must fail the run, also in a server that a test started.
export ASAN_OPTIONS ?= detect_leaks=1:abort_on_error=0:exitcode=99
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS ?= halt_on_error=1:second_deadlock_stack=1:exitcode=66:suppressions=$(CURDIR)/tests/tsan.supp

.PHONY: help setup build demo test test-asan test-tsan test-schemathesis test-clients fuzz gpu-test portable install format lint check clean
help:
	@echo 'make demo        set up, build, ask the bundled model about a picture'
	@echo 'make test        set up, build, run all tests'
	@echo 'make build       build/release/fastdeploy'
	@echo 'make test-asan   unit and end-to-end tests under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make test-tsan   the same under ThreadSanitizer'
	@echo 'make fuzz        every fuzzer for FUZZ_SECONDS=60 under AddressSanitizer; FUZZERS="fuzz_http ..." picks some'
	@echo 'make test-schemathesis  2000 random requests made from /openapi.json (CASES=2000)'
	@echo 'make test-clients       guidellm, aiperf, litellm and LlamaIndex against a server; installs gigabytes of their packages'
	@echo 'make gpu-test    kernels, models, tests/eval, faults and a smoke bench on the NVIDIA GPU of this machine'
	@echo 'make portable    build/cuda-portable/fastdeploy, to be carried to a GPU machine without packages (ARCHITECTURES=90a-real)'
	@echo 'make install     into PREFIX=$(PREFIX)'
	@echo 'make format      clang-format the sources;  make lint: clang-tidy;  make check: formatting and layers'

setup:
	@tools/setup.sh

build: setup
	@tools/build.sh release fastdeploy

demo: build
	@$(PYTHON) tools/demo.py $(BIN)

$(VENV)/.ready: tests/e2e/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/e2e/requirements.txt
	touch $@

test: setup check
	@tools/build.sh release all
	@tools/compile_cuda.sh
	@$(MAKE) --no-print-directory $(VENV)/.ready
	ctest --test-dir build/release --output-on-failure -j $(JOBS)
	FASTDEPLOY_BIN=$(BIN) $(VENV)/bin/python -m pytest -q tests/e2e

test-asan test-tsan: test-%: setup
	@tools/build.sh $* all
	@$(MAKE) --no-print-directory $(VENV)/.ready
	ctest --test-dir build/$* --output-on-failure -j $(JOBS) -L unit
	FASTDEPLOY_BIN=build/$*/fastdeploy $(VENV)/bin/python -m pytest -q tests/e2e -m 'not slow'

fuzz: setup
	@tools/fuzz.sh '$(FUZZ_SECONDS)' $(FUZZERS)

CASES ?= 2000
test-schemathesis: build $(VENV)/.ready
	SCHEMATHESIS_CASES=$(CASES) FASTDEPLOY_BIN=$(BIN) $(VENV)/bin/python -m pytest -q -s tests/e2e/schemathesis_test.py

CLIENTS_VENV := build/venv-clients
$(CLIENTS_VENV)/.ready: tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	touch $@

test-clients: build $(CLIENTS_VENV)/.ready
	FASTDEPLOY_BIN=$(BIN) $(CLIENTS_VENV)/bin/python -m pytest -q -s tests/clients

gpu-test:
	@GTEST_DIR='$(GTEST_DIR)' PYTHON='$(PYTHON)' tools/gpu_test.sh

portable: setup
	@tools/portable.sh '$(ARCHITECTURES)'

install: build
	cmake --install build/release --prefix $(PREFIX)

SOURCES = $(shell git ls-files '*.h' '*.cc' '*.inc' '*.cu' '*.cuh')
CLANG_FORMAT ?= clang-format-19
check: setup
	@$(PYTHON) tools/check_layers.py
	@$(CLANG_FORMAT) --dry-run -Werror $(SOURCES) && echo 'clang-format: clean'

format:
	$(CLANG_FORMAT) -i $(SOURCES)

lint:
	@command -v run-clang-tidy-19 >/dev/null || { echo 'lint: needs clang-tidy-19; apt-get install clang-tidy-19' >&2; exit 1; }
	@tools/build.sh debug all
	run-clang-tidy-19 -quiet -p build/debug '^$(CURDIR)/(src|apps|bench)/'

clean:
	rm -rf build
