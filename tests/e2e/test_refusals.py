# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong is said once, with host or gateway, fact and fix, before anything is changed.

Each run is a whole site.yml for a gateway that is not there yet, so one that went on would leave something.
tests/integration/modules has more mistakes, each with a hub of its own and without machines.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import everything, site_of
from tests.e2e.lab import ROOT, Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks, Run, problems
from tests.ports import free_port

GATEWAY, OTHER = Gateway("e2e-refused"), Gateway("e2e-other")
READER = "e2e-reader"
HUB_LIMIT_SECONDS = 30
# Subject, fact and fix of each problem that has to be found, as patterns.
EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    "cluster unreachable": [("cluster", r"API https://127\.0\.0\.1:\d+ cannot be reached", "kubeconfig")],
    "kubeconfig missing": [("edge_kubeconfig", r"no-such-kubeconfig does not exist", "file")],
    "unknown storage class": [
        ("cluster", "no storage class lab-shared-directry", r"did you mean lab-shared-directory\?")
    ],
    "hub unreachable": [(r"iothub 127\.0\.0\.1:\d+", "cannot be reached.*refused", "iothub_hostname.*443")],
    "wrong SAS key": [("iothub", "refuses the key of the policy iothubowner", "iothub_policy_key")],
    "clock off": [("iothub", r"clock is (3[56]\d\d|1 h|60 min)\S* .*behind", r"NTP")],
    "two gateways with one name": [(f"gateway {GATEWAY.name}", "twice", "name of its own")],
    "invalid device id": [(f"gateway {GATEWAY.name}", "device id 'plant/7' holds '/'", "device_id")],
    "deployment missing": [
        (f"gateway {GATEWAY.name}", "no-such-file.json does not exist", "correct the path")
    ],
    "deployment is not JSON": [
        (f"gateway {GATEWAY.name}", "torn.json is not valid.*not JSON", "correct the manifest")
    ],
    "unknown variable": [
        ("variable edge_gatways", "no variable of that name", r"did you mean edge_gateways\?")
    ],
    "several at once": [
        ("cluster", "no storage class lab-shared-directry", "did you mean"),
        ("iothub", "refuses the key", "iothub_policy_key"),
        (f"gateway {GATEWAY.name}", "twice", "name of its own"),
        (f"gateway {OTHER.name}", "device id 'plant/7'", "device_id"),
        (f"gateway {OTHER.name}", "no-such-file.json does not exist", "correct the path"),
        ("variable edge_gatways", "no variable of that name", "edge_gateways"),
    ],
}
# What the chart and the roles need of an API server, and a user who may only look has not got.
MISSING_RIGHTS = {
    "namespaces": "create",
    "secrets": "create",
    "serviceaccounts": "create",
    "persistentvolumeclaims": "create",
    "deployments.apps": "create",
    "roles.rbac.authorization.k8s.io": "create",
    "clusterrolebindings.rbac.authorization.k8s.io": "create",
    "priorityclasses.scheduling.k8s.io": "create",
}


def says(cell: str, pattern: str) -> bool:
    """Whether a cell fits, wherever its lines were broken."""
    return bool(re.search(pattern.replace(" ", ""), cell.replace(" ", "")))


@pytest.fixture(scope="module")
def mistakes(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Variables with one mistake each, by the name of the mistake."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "torn.json").write_text('{"modulesContent": {')
    good = site_of(GATEWAY)["edge_gateways"][0]
    other_key = base64.b64encode(secrets.token_bytes(32)).decode()
    storage = {"edge_storage_class": "lab-shared-directry"}
    with _clock_ahead(folder) as late_hub, _user(lab, folder, READER, READABLE) as reader:
        single = {
            "cluster unreachable": {"edge_kubeconfig": _nobody_listens(lab, folder)},
            "kubeconfig missing": {"edge_kubeconfig": str(folder / "no-such-kubeconfig")},
            "missing rights": {"edge_kubeconfig": reader},
            "unknown storage class": storage,
            "hub unreachable": {"iothub_hostname": f"127.0.0.1:{free_port()}"},
            "wrong SAS key": {"iothub_policy_key": other_key},
            "clock off": late_hub,
            "two gateways with one name": {"edge_gateways": [good, good]},
            "invalid device id": {"edge_gateways": [good | {"device_id": "plant/7"}]},
            "deployment missing": {"edge_gateways": [good | {"deployment": "files/no-such-file.json"}]},
            "deployment is not JSON": {"edge_gateways": [good | {"deployment": str(folder / "torn.json")}]},
            "unknown variable": {"edge_gatways": []},
            "several at once": {
                **storage,
                "iothub_policy_key": other_key,
                "edge_gatways": [],
                "edge_gateways": [
                    good,
                    good,
                    {"name": OTHER.name, "device_id": "plant/7", "deployment": "files/no-such-file.json"},
                ],
            },
        }
        yield {name: site_of(GATEWAY) | variables for name, variables in single.items()}


@dataclass(frozen=True)
class Refused:
    """Runs by mistake, and what there was before the first and after the last."""

    runs: Mapping[str, Run]
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module")
def refused(
    lab: Lab,
    playbooks: Playbooks,
    new_gateway: Callable[[str], Gateway],
    mistakes: dict[str, dict[str, Any]],
) -> Refused:
    """All mistakes are made first, two at a time."""
    for gateway in (GATEWAY, OTHER):
        new_gateway(gateway.name)
    before = everything(lab)
    with ThreadPoolExecutor(max_workers=2) as pool:
        runs = pool.map(lambda given: playbooks.run("site.yml", variables=given), mistakes.values())
        made = dict(zip(mistakes, runs, strict=True))
    return Refused(made, before, everything(lab))


@pytest.mark.parametrize("mistake", EXPECTED)
def test_each_mistake_is_told_with_its_fix(refused: Refused, mistake: str) -> None:
    found = problems(refused.runs[mistake])
    assert {problem.host for problem in found} == {"lab"}
    told = list(found)
    for subject, fact, fix in EXPECTED[mistake]:
        fits = [
            problem
            for problem in told
            if says(problem.subject, subject) and says(problem.fact, fact) and says(problem.fix, fix)
        ]
        assert len(fits) == 1, (subject, fact, fix, found)
        told.remove(fits[0])
    assert told == []


def test_each_missing_right_is_named(lab: Lab, refused: Refused) -> None:
    found = problems(refused.runs["missing rights"])
    for resource, verb in MISSING_RIGHTS.items():
        named = [p for p in found if re.search(rf"may not .*\b{verb}\b.*\b{re.escape(resource)}\b", p.fact)]
        assert len(named) == 1, (resource, found)
        assert (GATEWAY.namespace in named[0].fact) != ("whole cluster" in named[0].fact)
        assert named[0].fix
    # What the user may do is not complained about.
    held = r"may not .*\b(get|list)\b.* (nodes|pods|storageclasses) "
    assert not [problem for problem in found if re.search(held, problem.fact)]


def test_nothing_was_changed_by_any_of_them(refused: Refused) -> None:
    assert refused.after == refused.before
    assert not [name for name in refused.after if GATEWAY.name in name or OTHER.name in name]


def test_the_same_gateway_without_a_mistake_is_not_refused(playbooks: Playbooks) -> None:
    """Otherwise the runs above could be refused for a reason of their own."""
    run = playbooks.run("site.yml", "--tags", "preflight", variables=site_of(GATEWAY)).finished()
    assert run.changed == 0


def test_the_rights_that_are_named_are_enough(
    lab: Lab, playbooks: Playbooks, new_gateway: Callable[[str], Gateway], tmp_path: Path
) -> None:
    """A user without any right gets those that preflight names, and no other: then the run ends well."""
    gateway = new_gateway("e2e-rights")
    with _user(lab, tmp_path, "e2e-nobody", []) as kubeconfig:
        found = problems(
            playbooks.run("site.yml", variables=site_of(gateway) | {"edge_kubeconfig": kubeconfig})
        )
    rules = []
    for problem in found:
        right = re.search(r"may not ([\w, ]+) ([\w./]+) in the ", problem.fact)
        assert right, problem
        resource, _, group = right[2].partition(".")
        rules.append({"apiGroups": [group], "resources": [resource], "verbs": right[1].split(", ")})
    with _user(lab, tmp_path, "e2e-operator", rules) as kubeconfig:
        variables = site_of(gateway) | {"edge_kubeconfig": kubeconfig}
        playbooks.run("site.yml", variables=variables).finished()
        absent = site_of(gateway)["edge_gateways"][0] | {"state": "absent"}
        confirmed = {"edge_gateways": [absent], "edge_confirm": "lab"}
        playbooks.run("site.yml", variables=variables | confirmed).finished()
        assert gateway.name not in lab.devices()
        assert not [name for name in lab.objects() if f"{gateway.name}-daemon" in name]


def _nobody_listens(lab: Lab, folder: Path) -> str:
    """The administrator's kubeconfig with an address where nobody listens."""
    document = yaml.safe_load(lab.kubeconfig.read_text())
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    return _kubeconfig(folder / "closed", document)


def _kubeconfig(path: Path, document: Any) -> str:
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))
    return str(path)


READABLE = [
    {"apiGroups": [""], "resources": ["nodes", "namespaces", "pods", "configmaps"], "verbs": ["get", "list"]},
    {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get", "list"]},
    {"apiGroups": ["apps"], "resources": ["deployments", "replicasets"], "verbs": ["get", "list"]},
]


@contextlib.contextmanager
def _user(lab: Lab, folder: Path, name: str, rules: list[dict[str, list[str]]]) -> Iterator[str]:
    """The kubeconfig of a ServiceAccount that may do this in the whole cluster."""
    rbac = "rbac.authorization.k8s.io"
    items = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        },
    ]
    objects = {"apiVersion": "v1", "kind": "List", "items": items}
    lab.kubectl("apply", "--filename", "-", data=objects)
    try:
        document = yaml.safe_load(lab.kubeconfig.read_text())
        token = lab.kubectl("create", "token", name, "--namespace", "default").strip()
        document["users"][0]["user"] = {"token": token}
        yield _kubeconfig(folder / name, document)
    finally:
        lab.kubectl("delete", "--ignore-not-found", "--filename", "-", data=objects)


@contextlib.contextmanager
def _clock_ahead(folder: Path) -> Iterator[dict[str, Any]]:
    """Variables of a second hub, on loopback, whose clock is an hour ahead; its key is right."""
    state = folder / "hub"
    command = [sys.executable, "-m", "iothub_emulator"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lab" / "iothub-emulator")}
    init = [*command, "init", "--state", str(state), "--name", "127.0.0.1"]
    subprocess.run(init, env=environment, check=True, capture_output=True, timeout=HUB_LIMIT_SECONDS)
    https, mqtt = free_port(), free_port()
    serve = [*command, "serve", "--state", str(state), "--listen", "127.0.0.1", "--clock-offset", "3600"]
    serve += ["--https-port", str(https), "--mqtt-port", str(mqtt)]
    with (
        (folder / "hub.log").open("wb") as log,
        subprocess.Popen(serve, env=environment, stderr=log) as server,
    ):
        try:
            wait_for("the second hub to listen", (state / "serve.pid").exists, HUB_LIMIT_SECONDS, pause=0.1)
            keys = json.loads((state / "policies.json").read_text())
            yield {
                "iothub_hostname": f"127.0.0.1:{https}",
                "iothub_policy_key": keys["iothubowner"],
                "edge_ca_bundle": str(state / "ca.pem"),
            }
        finally:
            server.terminate()
            server.wait(HUB_LIMIT_SECONDS)
