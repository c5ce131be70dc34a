# Makefile - what people and CI call: CI uses only these targets. `make help` lists them.
# Owns what a target needs installed and in which order things run. The C rules are in native/Makefile.
# Commands that are long or many are shown as short lines; V=1 shows them whole.

VENV := .venv
PY := $(VENV)/bin/python
DEMO_MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
PROTO_VENV := build/proto-venv
SITE_VENV := build/site-venv
TRANSFORMERS := transformers==5.24.0 torch==2.14.1 numpy
PEFT := peft==0.21.2 accelerate==1.15.0 psutil
PEER := xllamacpp==2026.10.11549
PYTHON_FOLDERS := daemon clients protos tests packaging native setup.py
C_FILES := $(wildcard native/*/*.[ch] native/src/*/*.[ch] native/src/*/*/*.[ch])
ENGINE_SOURCES := $(wildcard native/src/*/*.[ch] native/src/*/*/*.[ch] native/include/*.h) native/ffi_build.py

Q := $(if $(V),,@)
PIP := $(PY) -m pip install $(if $(V),,--quiet)
NATIVE := $(MAKE) --no-print-directory -C native -j$(shell nproc)

export V
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help setup demo test test-packages test-python test-c asan ubsan tsan qemu peer transformers fuzz hostile bench picture lint fmt proto site deb deb-check apt-repo release-notes e2e e2e-bare e2e-pi memory-check schema-answers load clients-check http-fuzz llama-server-tests home-assistant-check boards-check crash clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z0-9 -]*\):.*## \(.*\)/  \1|\2/p' Makefile | column -t -s '|'

# ---- setup --------------------------------------------------------------------------------------
# Stamps make a second run take no time; the engine is rebuilt when one of its sources changed.
# .programs is what a demo needs, .developer that and the tools for tests and lint.

setup: $(VENV)/.developer $(VENV)/.engine ## .venv with llamad, llamactl and the tools of tests and lint

$(VENV)/.packages: packaging/dev-packages
	$(Q)packaging/dev-packages build
	@echo "making a virtual environment in $(VENV)"
	$(Q)python3 -m venv $(VENV)
	@touch $@

$(VENV)/.tools: $(VENV)/.packages
	@echo "fetching what the engine is built with: setuptools, cffi, wheel"
	$(Q)$(PIP) 'setuptools>=66' 'cffi>=1.15' wheel
	@touch $@

$(VENV)/.engine: $(VENV)/.tools $(ENGINE_SOURCES) setup.py pyproject.toml
	@echo "building the engine"
	$(Q)$(PY) -W ignore setup.py $(if $(V),,--quiet) build_ext --inplace
	$(Q)PYTHONPATH=daemon $(PY) -c \
	    'from llamad.engine.bindings import kernel_set; print("engine built, kernels:", kernel_set())'
	@touch $@

$(VENV)/.programs: pyproject.toml setup.py | $(VENV)/.engine
	@echo "fetching what llamad and llamactl need: grpc, numpy and others, about 30 MB to download"
	$(Q)$(PIP) --no-build-isolation --editable .
	@echo "installed: $$(du -sm $(VENV) | cut -f1) MB in $(VENV)"
	@touch $@

$(VENV)/.developer: pyproject.toml setup.py | $(VENV)/.engine
	@echo "fetching what llamad, its tests and lint need: grpc, numpy, pytest, mypy and others"
	$(Q)$(PIP) --no-build-isolation --editable '.[test,lint]'
	@echo "installed: $$(du -sm $(VENV) | cut -f1) MB in $(VENV)"
	@touch $(VENV)/.programs $@

$(DEMO_MODEL): | $(VENV)/.packages
	$(Q)$(PY) packaging/fetch_demo_model.py $@

demo: $(VENV)/.programs $(VENV)/.engine $(DEMO_MODEL) ## ask a real model a question through the whole service
	$(Q)$(PY) packaging/demo.py $(DEMO_MODEL)

# ---- checks -------------------------------------------------------------------------------------

test: test-packages test-c test-python ## everything that must pass

test-packages: # first, so that a user without rights hears of all of them at once
	$(Q)packaging/dev-packages build test

test-python: test-packages $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL)
	$(PY) -m pytest $(PYTEST_FLAGS)

test-c: $(VENV)/.packages ## C tests
	$(NATIVE) test

asan ubsan tsan: $(VENV)/.packages ## C tests under AddressSanitizer, UBSan; threads under TSan
	$(NATIVE) $@

qemu: $(VENV)/.programs $(VENV)/.engine ## C tests and a generation on emulated Cortex-A72 and Cortex-A76
	packaging/dev-packages qemu
	$(NATIVE) tests
	$(NATIVE) qemu
	$(PY) tests/qemu/compare_generation.py

peer: $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL) ## our files, texts and blocks against llama.cpp's; schemas against their test suite
	$(PIP) $(PEER)
	$(PY) tests/llama_cpp_source.py
	$(PY) tests/json_schema_tests.py
	$(PY) tests/minilm.py
	$(PY) tests/gemma3.py
	$(PY) -m pytest tests/tools/test_llama_cpp*.py tests/tools/test_json_schema_suite.py tests/tools/test_minilm.py tests/tools/test_gemma3.py
	PYTHONPATH=tests $(PY) -m bench.family_peer

transformers: $(VENV)/.developer $(VENV)/.engine ## convert against transformers' and peft's own logits; PyTorch, 4 GB
	python3 -m venv build/transformers-venv
	build/transformers-venv/bin/pip install $(if $(V),,--quiet) $(TRANSFORMERS)
	build/transformers-venv/bin/pip install $(if $(V),,--quiet) --no-deps $(PEFT)
	build/transformers-venv/bin/python tests/transformers_folders.py build/transformers
	build/transformers-venv/bin/python tests/peft_folders.py build/transformers build/peft
	$(PY) -m pytest tests/tools/test_transformers.py tests/tools/test_peft.py

fuzz: ## fuzz the GGUF parser, files of adapters and the constraint, FUZZ_SECONDS=60 each
	packaging/dev-packages build fuzz
	$(NATIVE) fuzz

hostile: $(VENV)/.developer $(VENV)/.engine ## every key of every family with every absurd value, FAMILIES="gemma4 lfm2"
	PYTHONPATH=tests $(PY) -m engine.hostile_keys $(FAMILIES)

picture: $(VENV)/.programs $(VENV)/.engine $(DEMO_MODEL) ## draw README's pictures again: a real run, the catalogue's speeds
	$(PY) packaging/picture.py $(DEMO_MODEL) docs/pictures/first-run.svg
	$(PY) packaging/speeds_picture.py docs/pictures/speeds.svg

bench: $(VENV)/.programs $(VENV)/.engine $(DEMO_MODEL) ## speed of the kernels and of the demo model
	$(NATIVE) bench
	$(VENV)/bin/llamad bench $(DEMO_MODEL)

lint: $(VENV)/.developer $(PROTO_VENV)/.installed ## ruff, mypy --strict, clang-format, generated code, workflows
	packaging/dev-packages lint
	$(VENV)/bin/ruff check $(PYTHON_FOLDERS)
	$(VENV)/bin/ruff format --check $(PYTHON_FOLDERS)
	$(VENV)/bin/mypy $(PYTHON_FOLDERS)
	@echo "clang-format --dry-run --Werror, $(words $(C_FILES)) files"
	$(Q)clang-format --dry-run --Werror $(C_FILES)
	$(PROTO_VENV)/bin/python protos/generate.py --check
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/zizmor --offline --quiet .github/workflows

fmt: $(VENV)/.developer ## format Python and C
	packaging/dev-packages lint
	$(VENV)/bin/ruff check --fix $(PYTHON_FOLDERS)
	$(VENV)/bin/ruff format $(PYTHON_FOLDERS)
	@echo "clang-format -i, $(words $(C_FILES)) files"
	$(Q)clang-format -i $(C_FILES)

schema-answers: $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL) ## 300 schemas, SEEDS=10 answers each of the demo model, judged by jsonschema
	PYTHONPATH=tests $(PY) -m schema_answers $(DEMO_MODEL) --seeds $(or $(SEEDS),10)

memory-check: $(VENV)/.engine $(DEMO_MODEL) ## a model larger than its memory: bytes read, limits that change, disks that fail; as root
	PYTHONPATH=tests $(PY) -m memory.check

load: $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL) ## 64 clients of all kinds on the whole service, LOAD_SECONDS=120
	PYTHONPATH=tests $(PY) -m load.check $(DEMO_MODEL) --seconds $(or $(LOAD_SECONDS),120)

clients-check: $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL) ## unmodified programs of OpenAI's and Ollama's API on the gateway
	PYTHONPATH=tests $(PY) -m gateway.clients_check $(DEMO_MODEL) build/clients $(CLIENTS)

http-fuzz: $(VENV)/.developer $(VENV)/.engine ## schemathesis on the gateway by its /openapi.json, HTTP_FUZZ_SECONDS=60 HTTP_FUZZ_SEED=N
	PYTHONPATH=tests $(PY) -m gateway.http_fuzz build/schemathesis --seconds $(or $(HTTP_FUZZ_SECONDS),60) $(if $(HTTP_FUZZ_SEED),--seed $(HTTP_FUZZ_SEED))

llama-server-tests: $(VENV)/.developer $(VENV)/.engine ## llama.cpp's own tests of llama-server on the gateway
	PYTHONPATH=tests $(PY) -m llama_server_suite.check build/llama-server-venv $(LLAMA_SERVER_TESTS)

home-assistant-check: $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL) ## Home Assistant itself on the gateways, as root; 1 GB to download
	$(Q)packaging/dev-packages roots
	PYTHONPATH=tests $(PY) -m home_assistant.check $(DEMO_MODEL) build/home-assistant

boards-check: $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL) ## three boards behind HAProxy, in network namespaces: killed, drained, restarted; as root
	$(Q)packaging/dev-packages boards
	PYTHONPATH=tests $(PY) -m boards.check $(DEMO_MODEL)

crash: $(VENV)/.developer $(VENV)/.engine $(DEMO_MODEL) ## durable jobs under SIGKILL and, as root, power cuts, CRASH_KILLS=50
	PYTHONPATH=tests $(PY) -m crash.check $(DEMO_MODEL) --kills $(or $(CRASH_KILLS),50)

# ---- generated code -----------------------------------------------------------------------------

$(PROTO_VENV)/.installed: $(VENV)/.packages pyproject.toml
	@echo "fetching the compiler of .proto files into $(PROTO_VENV)"
	$(Q)python3 -m venv $(PROTO_VENV)
	$(Q)$(PROTO_VENV)/bin/python -m pip install --quiet 'grpcio-tools==1.62.3' 'setuptools<81'
	@touch $@

proto: $(PROTO_VENV)/.installed ## make the Python code of protos/ again
	$(PROTO_VENV)/bin/python protos/generate.py

# ---- documentation ------------------------------------------------------------------------------

$(SITE_VENV)/.installed: $(VENV)/.packages
	@echo "fetching mkdocs into $(SITE_VENV)"
	$(Q)python3 -m venv $(SITE_VENV)
	$(Q)$(SITE_VENV)/bin/python -m pip install --quiet 'mkdocs==1.6.1' 'pymdown-extensions>=10.8'
	@touch $@

site: $(SITE_VENV)/.installed $(PROTO_VENV)/.installed ## the pages as a site in build/site, its links checked
	$(Q)$(PROTO_VENV)/bin/python protos/api_page.py build/api.md
	$(SITE_VENV)/bin/python packaging/documentation_site.py build/api.md build/site

# ---- packages -----------------------------------------------------------------------------------

deb: ## the Debian packages of HEAD into dist/, on Debian 12 or 13; DEB_ARCH=arm64 for a Pi
	$(Q)packaging/build-deb $(DEB_ARCH)

deb-check: ## build them twice for amd64 and arm64: the same bytes, less than 3 MB each
	packaging/check-deb

apt-repo: ## a signed apt repository of both architectures in build/apt, as root; APT_KEY=, APT_URL=
	$(Q)packaging/dev-packages repository
	$(Q)rm -f dist/*.deb
	$(Q)packaging/build-deb amd64
	$(Q)packaging/build-deb arm64
	$(Q)packaging/apt-repo dist build/apt

release-notes: ## what CHANGELOG.md says of the release, TAG=vX.Y.Z; fails where a file has another version
	@python3 packaging/release_notes.py $(TAG)

e2e: deb $(DEMO_MODEL) ## install, use, upgrade and purge them on a real systemd, as root
	packaging/dev-packages repository
	PYTHONPATH=tests $(PY) -m e2e.packages --model $(DEMO_MODEL) $(E2E_MACHINES)

e2e-bare: ## demo, tests and packages on a bare Debian 12, as root; tens of minutes
	tests/e2e/bare $(E2E_CASES)

# E2E_CASES=memory E2E_MODEL=FILE: a model as large as the memory, and swap; FILE has 3.5 GB or more.
e2e-pi: $(DEMO_MODEL) ## install and use them on an emulated Pi 4 and Pi 5, as root; minutes
	packaging/dev-packages board
	packaging/build-deb
	packaging/build-deb arm64
ifeq ($(E2E_CASES),memory)
	PYTHONPATH=tests $(PY) -m e2e.pi_memory $(E2E_MODEL)
else
	PYTHONPATH=tests $(PY) -m e2e.pi --model $(DEMO_MODEL) $(E2E_CPUS)
endif

clean: ## remove what was built; keeps the virtual environment and the model
	$(NATIVE) clean
	rm -rf build *.egg-info daemon/llamad/_engine* $(VENV)/.engine .mypy_cache .ruff_cache .pytest_cache
