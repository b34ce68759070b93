# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys stay where they belong: after a first run with -vvv --diff they are nowhere else."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import FirstRun
from tests.e2e.evidence import Keys, Watch, leaks, made_since, wide_files
from tests.e2e.lab import ROOT, Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks

# What makes up a gateway, without the Secrets.
KINDS = (
    "configmaps,deployments,replicasets,pods,services,serviceaccounts,persistentvolumeclaims,roles,"
    "rolebindings,endpointslices,events,leases"
)


@pytest.fixture(scope="module")
def keys(lab: Lab, gateway: Gateway, first_run: FirstRun) -> Keys:
    """Every key that takes part, base64, by a name that may be shown."""
    found = Keys({f"key of policy {name}": key for name, key in lab.policy_keys.items()})
    device = lab.hub("GET", f"/devices/{gateway.name}")
    for identity, name in ((device, "device"), (lab.module(gateway.name, "sensor"), "module sensor")):
        for which in ("primaryKey", "secondaryKey"):
            found[f"{which} of {name}"] = identity["authentication"]["symmetricKey"][which]
    master = json.loads((lab.state_folder(gateway) / "master-key.json").read_text())
    found["master key"] = master["masterKey"]
    (user,) = yaml.safe_load(lab.kubeconfig.read_text())["users"]
    found["key of the kubeconfig"] = user["user"]["client-key-data"]
    # $edgeAgent's and $edgeHub's keys may be empty at a hub; those above never are.
    assert all(len(base64.b64decode(key)) >= 32 for key in found.values()), sorted(found)
    return found


def test_the_search_finds_keys_where_they_belong(lab: Lab, gateway: Gateway, keys: Keys) -> None:
    secret = lab.kubectl("get", "secrets", "--namespace", gateway.namespace, "--output", "yaml")
    assert leaks(secret, keys) == ["primaryKey of device"]
    policies = (lab.state / "hub" / "policies.json").read_bytes()
    assert leaks(policies, keys) == [name for name in keys if name.startswith("key of policy")]


def test_nothing_that_ansible_prints_holds_a_key(first_run: FirstRun, keys: Keys) -> None:
    text = first_run.run.text
    # The tasks that handle keys ran, and Ansible was as loud and as open as it can be.
    assert "Store the devices' keys" in text
    assert "+++ after" in text
    assert "module_args" in text
    assert leaks(text, keys) == []


def test_nothing_that_helm_keeps_of_a_release_holds_a_key(lab: Lab, gateway: Gateway, keys: Keys) -> None:
    for what in (["values", "--all"], ["manifest"], ["notes"], ["hooks"], ["all"]):
        text = lab.helm("get", what[0], gateway.name, "--namespace", gateway.namespace, *what[1:])
        assert leaks(text, keys) == [], what
    values = lab.helm("get", "values", gateway.name, "--namespace", gateway.namespace)
    assert f"existingSecret: {gateway.name}-device" in values


def test_no_object_but_the_secret_holds_a_key(lab: Lab, gateway: Gateway, keys: Keys) -> None:
    found = lab.get(KINDS, "--namespace", gateway.namespace)["items"]
    assert {item["kind"] for item in found} >= {"ConfigMap", "Pod", "Deployment", "Event", "ServiceAccount"}
    for item in found:
        assert leaks(json.dumps(item), keys) == [], f"{item['kind']} {item['metadata']['name']}"


def test_no_log_of_a_pod_or_of_the_lab_holds_a_key(lab: Lab, gateway: Gateway, keys: Keys) -> None:
    pods = lab.pods(gateway, "daemon") + lab.pods(gateway, "module")
    for pod in pods:
        name = pod["metadata"]["name"]
        text = lab.kubectl("logs", name, "--namespace", gateway.namespace, "--all-containers")
        assert text, f"{name} logs nothing"
        assert leaks(text, keys) == [], name
    for log in (lab.state / "logs").iterdir():
        assert leaks(log.read_bytes(), keys) == [], log.name


def test_no_process_was_given_a_key_and_no_temporary_file_showed_one(first_run: FirstRun, keys: Keys) -> None:
    programs = {line.split(b"\0")[0].rpartition(b"/")[2] for line in first_run.watch.arguments}
    assert b"helm" in programs
    assert [path for path, _, _ in first_run.watch.files]
    assert first_run.watch.leaks(keys) == []


def test_no_file_that_others_may_read_holds_a_key(
    lab: Lab, playbooks: Playbooks, first_run: FirstRun, keys: Keys
) -> None:
    since = first_run.run.started
    checkout = [entry for entry in ROOT.iterdir() if entry.name not in (".git", ".venv")]
    places = [lab.state, playbooks.folder, *checkout, *made_since(Path(tempfile.gettempdir()), since)]
    assert wide_files(places, since, keys) == []


def test_the_watch_sees_what_it_looks_for(playbooks: Playbooks, tmp_path: Path) -> None:
    """A decoy in the arguments of a process and in a file that does not live long."""
    decoy = {"decoy": base64.b64encode(secrets.token_bytes(32)).decode()}
    began = Path("/proc/self").stat().st_mtime
    file = tmp_path / "values.yml"
    with Watch([tmp_path]) as watch:
        file.touch(mode=0o644)
        file.write_text(f"key: {decoy['decoy']}")
        sleeper = [sys.executable, "-c", "import sys; sys.stdin.read()", f"--key={decoy['decoy']}"]
        with subprocess.Popen(sleeper, stdin=subprocess.PIPE) as process:
            wait_for("the watch to see both", lambda: len(watch.leaks(decoy)) == 2, limit=10)
            process.communicate(timeout=10)
        assert wide_files([tmp_path], began, decoy) == [f"{file} (-rw-r--r--): decoy"]
        file.chmod(0o600)
        assert wide_files([tmp_path], began, decoy) == []
    assert leaks(f"sr=hub&sig={'A' * 43}%3D&se=1", {}) == ["SAS token"]
