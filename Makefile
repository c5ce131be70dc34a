# Makefile - what people and CI call: CI uses only these targets. `make help` lists them.
# Owns what a target needs installed and in which order things run. The C rules are in native/Makefile.

VENV := .venv
PY := $(VENV)/bin/python
DEMO_MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
PROTO_VENV := build/proto-venv
PEER := xllamacpp==2026.10.11549
PYTHON_FOLDERS := daemon clients protos tests packaging native setup.py
C_FILES := $(wildcard native/*/*.[ch] native/src/*/*.[ch] native/src/*/*/*.[ch])
ENGINE_SOURCES := $(wildcard native/src/*/*.[ch] native/src/*/*/*.[ch] native/include/*.h) native/ffi_build.py

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help setup demo test test-python test-c asan ubsan tsan qemu peer fuzz bench lint fmt proto deb deb-check e2e e2e-pi clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z0-9 -]*\):.*## \(.*\)/  \1|\2/p' Makefile | column -t -s '|'

# ---- setup --------------------------------------------------------------------------------------
# Stamps make a second run take no time; the engine is rebuilt when one of its sources changed.

setup: $(VENV)/.engine ## virtual environment with llamad and llamactl, engine built

$(VENV)/.packages: packaging/dev-packages
	packaging/dev-packages build
	python3 -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.packages pyproject.toml setup.py
	$(PY) -m pip install --quiet 'setuptools>=66' 'cffi>=1.15' wheel
	$(PY) -m pip install --quiet --no-build-isolation --editable '.[test,lint]'
	@touch $@

$(VENV)/.engine: $(VENV)/.installed $(ENGINE_SOURCES)
	$(PY) -W ignore setup.py --quiet build_ext --inplace
	$(PY) -c 'from llamad.engine.bindings import kernel_set; print("engine built, kernels:", kernel_set())'
	@touch $@

$(DEMO_MODEL): | $(VENV)/.installed
	$(PY) packaging/fetch_demo_model.py $@

demo: $(VENV)/.engine $(DEMO_MODEL) ## ask a real model a question through the whole service
	$(PY) packaging/demo.py $(DEMO_MODEL)

# ---- checks -------------------------------------------------------------------------------------

test: test-c test-python ## everything that must pass

test-python: $(VENV)/.engine $(DEMO_MODEL)
	$(PY) -m pytest $(PYTEST_FLAGS)

test-c: $(VENV)/.packages ## C tests
	$(MAKE) -C native test

asan ubsan tsan: $(VENV)/.packages ## C tests under AddressSanitizer, UBSan; threads under TSan
	$(MAKE) -C native $@

qemu: $(VENV)/.engine ## C tests and a generation on emulated Cortex-A72 and Cortex-A76
	packaging/dev-packages qemu
	$(MAKE) -C native tests
	$(MAKE) -C native qemu
	$(PY) tests/qemu/compare_generation.py

peer: $(VENV)/.engine $(DEMO_MODEL) ## our files, texts and blocks against llama.cpp's
	$(PY) -m pip install --quiet $(PEER)
	$(PY) -m pytest tests/tools/test_llama_cpp.py

fuzz: ## fuzz the GGUF parser, FUZZ_SECONDS=60
	packaging/dev-packages build fuzz
	$(MAKE) -C native fuzz

bench: $(VENV)/.engine $(DEMO_MODEL) ## speed of the kernels and of the demo model
	$(MAKE) -C native bench
	$(VENV)/bin/llamad bench $(DEMO_MODEL)

lint: $(VENV)/.installed $(PROTO_VENV)/.installed ## ruff, mypy --strict, clang-format, generated code
	packaging/dev-packages lint
	$(VENV)/bin/ruff check $(PYTHON_FOLDERS)
	$(VENV)/bin/ruff format --check $(PYTHON_FOLDERS)
	$(VENV)/bin/mypy $(PYTHON_FOLDERS)
	clang-format --dry-run --Werror $(C_FILES)
	$(PROTO_VENV)/bin/python protos/generate.py --check

fmt: $(VENV)/.installed ## format Python and C
	packaging/dev-packages lint
	$(VENV)/bin/ruff check --fix $(PYTHON_FOLDERS)
	$(VENV)/bin/ruff format $(PYTHON_FOLDERS)
	clang-format -i $(C_FILES)

# ---- generated code -----------------------------------------------------------------------------

$(PROTO_VENV)/.installed: $(VENV)/.packages pyproject.toml
	python3 -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install --quiet 'grpcio-tools==1.62.3' 'setuptools<81'
	@touch $@

proto: $(PROTO_VENV)/.installed ## make the Python code of protos/ again
	$(PROTO_VENV)/bin/python protos/generate.py

# ---- packages -----------------------------------------------------------------------------------

deb: ## the Debian packages of HEAD into dist/, DEB_ARCH=amd64 or arm64
	packaging/build-deb $(DEB_ARCH)

deb-check: ## build them twice for amd64 and arm64: the same bytes, less than 3 MB each
	packaging/check-deb

e2e: deb $(DEMO_MODEL) ## install, use, upgrade and purge them on a real systemd, as root
	PYTHONPATH=tests $(PY) -m e2e.packages --model $(DEMO_MODEL) $(E2E_MACHINES)

e2e-pi: $(DEMO_MODEL) ## install and use them on an emulated Pi 4 and Pi 5, as root; minutes
	packaging/dev-packages board
	packaging/build-deb
	packaging/build-deb arm64
	PYTHONPATH=tests $(PY) -m e2e.pi --model $(DEMO_MODEL) $(E2E_CPUS)

clean: ## remove what was built; keeps the virtual environment and the model
	$(MAKE) -C native clean
	rm -rf build *.egg-info daemon/llamad/_engine* $(VENV)/.engine .mypy_cache .ruff_cache .pytest_cache
