# Short names for the long commands.  `make help` lists them; CMakePresets.json and scripts/ do the work.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build cuda-emulated quickstart test goldens fuzz soak mutants clang asan format format-check tidy install clean

PREFIX ?= /usr/local
SECONDS_EACH ?= 600
HOURS ?= 2
CMAKE_FLAGS ?=
CUDA ?=
PRESET = $(if $(CUDA),cuda,release)
FORMATTED = find caravan tests examples bench -name '*.h' -o -name '*.cc' 2>/dev/null

help:  ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## ?/  make \1|/' | column -t -s '|'

build:  ## install what is missing and build the program: build/release/caravan (with CUDA=1 build/cuda/caravan)
	@scripts/install-deps $(if $(CUDA),--cuda)
	cmake --preset $(PRESET) $(CMAKE_FLAGS)
	cmake --build --preset $(PRESET) --target caravan_program

cuda-emulated:  ## run the CUDA kernels' tests on the processor; needs the CUDA toolkit's headers and no GPU
	@scripts/install-deps
	cmake --preset cuda-emulated $(CMAKE_FLAGS)
	cmake --build --preset cuda-emulated --target ops_cuda_parity_test ops_cuda_device_test generate_test
	build/cuda-emulated/tests/ops/ops_cuda_parity_test --gtest_brief=1 --gtest_filter='-*ThreadCount*'
	CARAVAN_EMULATION_BACKWARDS=1 \
	  build/cuda-emulated/tests/ops/ops_cuda_parity_test --gtest_brief=1 --gtest_filter='-*ThreadCount*'
	CARAVAN_EMULATION_SHARED_BYTES=101376 \
	  build/cuda-emulated/tests/ops/ops_cuda_parity_test --gtest_brief=1 --gtest_filter='*ttention*'
	CARAVAN_EMULATION_CUDNN=1 \
	  build/cuda-emulated/tests/ops/ops_cuda_parity_test --gtest_brief=1 --gtest_filter='*ttention*'
	build/cuda-emulated/tests/ops/ops_cuda_device_test --gtest_brief=1
	CARAVAN_TEST_DEVICE=cuda build/cuda-emulated/tests/generate/generate_test --gtest_brief=1

quickstart: build  ## install what is missing, build, train a small model on Shakespeare and sample from it
	@scripts/quickstart

test:  ## install what is missing, build everything, run all tests and 10 seconds of each fuzzer
	@scripts/install-deps --clang
	cmake --preset release $(CMAKE_FLAGS)
	cmake --build --preset release
	scripts/fuzz 10
	scripts/run-tests build/release

goldens:  ## make tests/golden again with pinned Python packages; fails when a byte changes
	@scripts/install-deps --python
	[ -x build/venv/bin/python ] || python3 -m venv build/venv
	build/venv/bin/python -m pip install --quiet --requirement tests/golden/requirements.txt
	build/venv/bin/python tests/golden/make_goldens.py
	git diff --exit-code -- tests/golden

fuzz:  ## run each fuzzer for SECONDS_EACH (600)
	@scripts/install-deps --clang
	scripts/fuzz $(SECONDS_EACH)

soak:  ## disturb training runs at random for HOURS (2), resumable: all have to end as undisturbed ones do
	@scripts/install-deps
	cmake --preset release $(CMAKE_FLAGS)
	cmake --build --preset release --target caravan_program soak_round
	scripts/soak $(HOURS)

mutants:  ## plant mistakes one at a time: a test has to catch each
	@scripts/install-deps
	scripts/mutants

clang:  ## build with clang 16 and run the tests
	@scripts/install-deps --clang
	cmake --preset clang $(CMAKE_FLAGS)
	cmake --build --preset clang
	scripts/run-tests build/clang

asan:  ## build with AddressSanitizer and UndefinedBehaviorSanitizer and run the tests
	@scripts/install-deps
	cmake --preset asan-ubsan $(CMAKE_FLAGS)
	cmake --build --preset asan-ubsan
	scripts/run-tests build/asan-ubsan

format:  ## lay out all sources
	@scripts/install-deps --clang
	$(FORMATTED) | xargs clang-format -i

format-check:  ## fail when a source is not laid out
	@scripts/install-deps --clang
	$(FORMATTED) | xargs clang-format --dry-run -Werror

tidy:  ## run clang-tidy over all sources
	@scripts/install-deps --clang
	cmake --preset clang
	run-clang-tidy-16 -quiet -p build/clang '/(caravan|tests|examples)/' 2>/dev/null

install: build  ## install program, libraries and headers below PREFIX (/usr/local)
	cmake --build --preset release --target caravan_libraries
	cmake --install build/release --prefix $(PREFIX)

clean:  ## remove everything that was built
	rm -rf build
