# What people type. Each stage prints its seconds; its log is build/logs/STAGE.log.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help system venv demo demo-down test test-all static go-tests unit build sanity integration molecule e2e \
        machines k3s-contract \
        bench-converge bench-demo bench-registry bench-runtime lock clean

BIN := .venv/bin
lab_home := $(or $(EDGEHA_LAB_HOME),$(HOME)/.cache/edgeha-lab)
export PATH := $(CURDIR)/$(BIN):$(lab_home)/cache/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
# Helm and kubectl keep what they discover in the checkout and not in the home.
export KUBECACHEDIR := $(CURDIR)/build/kube-cache
stage := tools/stage
lock := requirements/requirements.lock
venv := .venv/installed-$(shell sha256sum $(lock) | cut -c1-16)

# What Ansible, Helm and the Kubernetes client keep on the side stays in the checkout, and goes with demo-down.
own_home := $(foreach name,ANSIBLE_HOME TMPDIR HELM_CACHE_HOME HELM_CONFIG_HOME HELM_DATA_HOME KUBECACHEDIR,$(name)=$(CURDIR)/build/home)

# Scenarios on machines of the lab: those of make test, and those that only make test-all has the time for.
MACHINE_SCENARIOS := node_prepare k3s_single k3s_ha join replace_first interrupted
LONG_SCENARIOS := cluster_vip upgrade cold_start restore reset rotate sites offline datastore

# apt packages of the lab: an engine (used only where none runs), the base image's maker, and what both call
APT_PACKAGES := debootstrap docker.io git iproute2 iptables openssh-client openssl python3-venv

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s$$'\t'

demo: system venv ## a running gateway on this machine, from nothing: lab, site.yml, summary
	@$(stage) --show lab-up -- lab/lab up
	@mkdir -p build/home
	@$(stage) --show site -- env $(own_home) ANSIBLE_FORCE_COLOR=$(if $(CI)$(NO_COLOR),0,1) ansible-playbook site.yml
	@echo "The gateway runs. Look at its messages with 'lab/lab hub log', remove everything with 'make demo-down'."

demo-down: ## remove everything that the demo made
	@if [ -x $(BIN)/python ]; then lab/lab down; fi
	@rm -rf build/home

test: system venv ## all that CI runs
	@rm -f build/stages.jsonl
	@$(MAKE) --no-print-directory static build go-tests unit sanity integration molecule e2e
	@tools/stage-summary

test-all: system ## and what does not fit there: slow scenarios, power cuts, a login by the real az
	@$(stage) az -- tools/az
	@EDGEHA_AZ="$$(tools/az)" $(MAKE) --no-print-directory test E2E_FLAGS=--run-slow \
	  MACHINE_SCENARIOS="$(MACHINE_SCENARIOS) $(LONG_SCENARIOS)"
	@$(MAKE) --no-print-directory machines k3s-contract molecule-vm

system:
	@if ! dpkg --status $(APT_PACKAGES) >/dev/null 2>&1; then \
	  $(stage) system -- sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(APT_PACKAGES)'; fi

venv: $(venv) ## the virtual environment, from the lock

$(venv): $(lock)
	@rm -rf .venv
	@$(stage) venv -- sh -c 'python3 -m venv .venv && .venv/bin/pip install --require-hashes --requirement $(lock)'
	@touch $@

static: venv
	@$(stage) ruff -- sh -c 'ruff check . && ruff format --check .'
	@$(stage) yamllint -- yamllint --strict .
	@$(stage) mypy -- mypy lab/edgeha_lab lab/iothub-emulator/iothub_emulator runtime/edgeha_runtime \
	  .collections/ansible_collections/edgeha/iotedge/plugins
	@$(stage) ansible-lint -- ansible-lint --profile production --offline --strict

build: venv
	@$(stage) --show build -- lab/lab build
	@$(stage) --show build-k3s -- lab/lab k3s
	@$(stage) --show build-network-policy -- lab/lab network-policy build

go-tests:
	@$(stage) go-tests -- sh -c 'set -e; for module in lab/tools runtime/workload-proxy tests/clients/go; do \
	  (cd $$module && test -z "$$(gofmt -l .)" && go vet ./... && go test ./...); done; \
	  cd lab && test -z "$$(gofmt -l kubernetes k3s network-policy)" && cd k3s && CGO_ENABLED=0 GOFLAGS=-trimpath go test -vet=off .'

unit: venv
	@$(stage) unit -- pytest --numprocesses 2 tests/unit

sanity: venv
	@$(stage) sanity -- tools/sanity

# More processes than cores: these tests wait more than they compute.
integration: venv
	@$(stage) chart -- helm lint --strict charts/edge-runtime --values charts/edge-runtime/ci/example-values.yaml
	@$(stage) integration -- pytest --numprocesses 4 tests/integration

molecule: venv ## scenarios against a real cluster and machines; SCENARIO=k3s_ha for one
	@for scenario in $(or $(SCENARIO),kind $(MACHINE_SCENARIOS)); do \
	  $(stage) molecule-$$scenario -- tools/molecule --scenario-name $$scenario || exit; done

# A virtual machine is emulated where there is no KVM: too slow for each run of CI, and more packages than the rest takes.
VM_PACKAGES := qemu-system-x86

.PHONY: system-vm molecule-vm
system-vm: system
	@if ! dpkg --status $(VM_PACKAGES) >/dev/null 2>&1; then \
	  $(stage) system-vm -- sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(VM_PACKAGES)'; fi

molecule-vm: venv system-vm ## roles on a virtual machine: kernel, swap, disks, restarts, iSCSI, NFS
	@$(stage) molecule-vm -- tools/molecule --scenario-name vm

e2e: venv
	@$(stage) e2e -- tools/e2e tests/e2e $(E2E_FLAGS)

machines: venv ## wrong inventories against bare machines: each a clear error, and nothing is touched
	@$(stage) machines -- pytest tests/machines

k3s-contract: venv ## the lab's k3s against its contract; LAB_K3S_BINARY=PATH for the real one
	@$(stage) k3s-contract -- tools/k3s-contract

bench-registry: venv ## seconds of a fleet at the hub emulator, into build/bench/registry.json
	@$(BIN)/python tools/bench-registry

bench-converge: venv ## seconds and restarts of making a cluster of machines, into build/bench/converge.json
	@$(BIN)/python tools/bench-converge

bench-runtime: venv ## seconds, memory and signatures of the daemon, into build/bench/runtime.json
	@$(BIN)/python tools/bench-runtime

bench-demo: system ## cold and warm seconds of demo and test, into build/bench/demo.json
	@python3 tools/bench-demo

lock: ## make the lock anew from requirements.in (needs uv)
	uv pip compile --python-version 3.11 --generate-hashes --no-header --quiet --upgrade \
	  requirements/requirements.in --output-file $(lock)
	uv pip compile --python-version 3.11 --generate-hashes --no-header --quiet --upgrade \
	  requirements/azure-cli.in --output-file requirements/azure-cli.lock

clean: ## remove builds, caches and labs of this machine
	@if [ -x $(BIN)/python ]; then lab/lab clean; fi
	rm -rf build .venv
