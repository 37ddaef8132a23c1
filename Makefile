# Set-up happens by itself: every target that needs it makes .venv from the pinned requirements.
PYTHON ?= python3.11
VENV := .venv
ENGINE := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
READY := $(VENV)/.ready-$(ENGINE)
BIN := $(VENV)/bin

# uv leaves packages uncompiled: each process would compile what it imports anew, where the environment has this
# (as images of containers do), torch and diffusers for 11 s of a CPU.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo quick test numeric check docs licences promises reference sbom lock clean

setup: $(READY)

$(READY): requirements/$(ENGINE).txt requirements/uv.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements/$(ENGINE).txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

# The whole product on a rendered world: runs/demo/results.html and a table against the truth.
demo: $(READY)
	$(BIN)/python -m demo

# After each change: format, lint, types, and the tests of changed packages that start no heavy engine.
quick: $(READY)
	$(BIN)/python -m tests.house.quick

# Whole files for two workers, in the order of tests/conftest.py.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(BIN)/python -m pytest $(TWO)

# Tests whose numbers come from libraries that choose their kernels by the processor, as two other processors
# would have it.
NUMERIC := $(foreach name,curation/photos/test_copies curation/people/test_faces \
	curation/identities/test_identities curation/packing/test_selection shards/reading/test_decode \
	training/test_adamw_8bit training/test_ema training/test_memory training/test_randomness,tests/$(name).py)

numeric: $(READY)
	for set in avx2 sse; do \
	  $(BIN)/python -m tests.processors.under $$set pytest $(TWO) $(NUMERIC) || exit 1; \
	done

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The pages of docs/ and the READMEs as a site: open site/index.html, or serve it to search it.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Compiles the pinned files anew; they hold exact versions and hashes and name no registry. The image's have the
# same versions, without what only tests and checks need.
lock: $(READY)
	for engine in cpu gpu; do \
	  $(BIN)/uv pip compile --quiet --no-header --generate-hashes --python-version 3.11 \
	    --override requirements/overrides.txt requirements/$$engine.in -o requirements/$$engine.txt || exit 1; \
	  $(BIN)/uv pip compile --quiet --no-header --generate-hashes --python-version 3.11 \
	    --override requirements/overrides.txt --constraint requirements/$$engine.txt \
	    requirements/image-$$engine.in -o requirements/image-$$engine.txt || exit 1; \
	done
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --python-version 3.11 \
	  requirements/peers.in -o requirements/peers.txt

# docs/licences.md: what is installed and the weights, with their licences.
licences: $(READY)
	$(BIN)/python -m requirements.licences

# docs/promises.md: what is promised, from the names of the tests.
promises: $(READY)
	$(BIN)/python -m tests.house.promises

# The tables of keys in docs/pipelines.md, from the settings.
reference: $(READY)
	$(BIN)/python -m tests.house.reference
	$(BIN)/python -m tests.house.training_reference

# A bill of materials as CycloneDX JSON.
sbom: $(READY)
	$(BIN)/python -m requirements.sbom > sbom.cdx.json

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache
