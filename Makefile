# `make demo` and `make test` need Python 3.11 or later, git and make; everything else they install into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-cluster test-push test-vllm lint schemas golden bench clean

demo: $(STAMP)
	@[ -d .demo ] || $(BIN)/scepsy init .demo --example
	@$(BIN)/scepsy compile --project .demo --commit
	@echo "Look at: .demo/plans/one-node.yaml (the plan), .demo/rendered/ (the manifests), git -C .demo log --stat"
	@echo "Try: edit .demo/workflows/rag-reranker.yaml, then: $(BIN)/scepsy compile --project .demo"
	@echo "Why this allocation: $(BIN)/scepsy explain --project .demo"

# Two workers per core: many tests wait for processes and sockets. Each begins with whole files and, once it has none,
# takes tests from another. With bytecode, whatever the environment says: hundreds of processes import the same modules.
test: $(STAMP)
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $$((2 * $$(getconf _NPROCESSORS_ONLN))) --dist worksteal

# Builds a real Kubernetes and Argo CD from Go modules, once per version, and runs them on loopback. Needs Go, git and
# redis-server; SCEPSY_TEST_KUBECONFIG names a cluster to use instead.
test-cluster: $(STAMP)
	@$(BIN)/python -m pytest tests/end_to_end

# Eight compilers that push 25 changes each, and 200 runs of compile --push that are killed: a quarter of an hour.
test-push: $(STAMP)
	@$(BIN)/python -m pytest tests/publishing tests/publishing_at_length

# Installs a real vLLM for CPUs, once per version, and runs the recorder between an agent and two servers of it: 6 GB of
# disk and 6 GB of memory.
test-vllm: $(STAMP)
	@$(BIN)/python -m pytest tests/vllm

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schemas: $(STAMP)
	$(BIN)/python -c 'from pathlib import Path; from scepsy.documents import PUBLISHED, schema_text; [Path("schemas", k.lower() + ".json").write_text(schema_text(k), encoding="utf-8") for k in PUBLISHED]'

golden: $(STAMP)
	$(BIN)/python -m pytest tests/examples -k golden_directory --update-golden

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Installed again when the project's requirements change, and only then.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try: make PYTHON=python3.12")'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .demo build compiler/*.egg-info
