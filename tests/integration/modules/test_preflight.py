# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each mistake of an operator gives one clear error before anything is changed.

There is no cluster in these tests: the kubeconfig names an address where nothing listens. So one problem is
always there, and that preflight gathers all problems before it fails is shown in passing.
"""

from __future__ import annotations

import base64
import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integration.modules.control_plane import HELM

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

ROOT = Path(__file__).resolve().parents[3]
MANIFEST = (ROOT / "inventories" / "local" / "files" / "demo.json").read_text()
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}
UNREACHABLE = ("plant07", "cluster", "the API https://127.0.0.1:1 cannot be reached")


@pytest.fixture
def inventory(hub: Hub, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an inventory with one good gateway, changed by what is given."""

    def write(hosts: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Path:
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / "gw.json").write_text(MANIFEST)
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG))
        variables = {
            "edge_cluster_mode": "existing",
            "edge_kubeconfig": "kubeconfig",
            "edge_storage_backend": "class",
            "edge_storage_class": "nfs",
            "edge_image_registry": "registry.example",
            "edge_ca_bundle": hub.ca_file,
            # Any program that is there will do: these runs end before helm is called.
            "edge_runtime_helm_binary": sys.executable,
            "iothub_hostname": hub.hostname,
            "iothub_policy_key": hub.keys["iothubowner"],
            "edge_gateways": [{"name": "gw-1", "deployment": "files/gw.json"}],
            **changes,
        }
        path = tmp_path / "hosts.yml"
        clusters = {"hosts": hosts or {"plant07": {}}}
        path.write_text(yaml.safe_dump({"all": {"children": {"edge_clusters": clusters}, "vars": variables}}))
        return path

    return write


@pytest.fixture
def site(run_playbook: Callable[..., Run]) -> Callable[..., Run]:
    """Return a function that runs the checkout's site.yml."""
    return lambda inventory, *options: run_playbook(["-i", str(inventory), "site.yml", *options])


def problems(run: Run) -> str:
    """Return the one error of a run, its table with the breaks inside a cell undone."""
    assert run.code != 0
    assert run.changed == 0
    assert len(set(run.failures)) == 1, run.failures
    message = run.failures[0]
    assert message.startswith("Preflight found")
    return message


def expect(run: Run, count: int, *words: str) -> None:
    """Check that preflight found so many problems (that of the cluster among them) and says these words."""
    message = problems(run)
    flat = " ".join(message.split())
    assert f"Preflight found {count} problem(s)" in flat, message
    for word in words:
        # A long cell goes on in the next lines, so its words are looked for one by one.
        for part in word.split():
            assert part in flat, (part, message)


def test_cluster_that_cannot_be_reached(
    site: Callable[..., Run], hub: Hub, inventory: Callable[..., Path]
) -> None:
    expect(site(inventory()), 1, *UNREACHABLE, "check the address in the kubeconfig")
    assert hub.device_ids() == []


def test_check_mode_finds_the_same(
    site: Callable[..., Run], hub: Hub, inventory: Callable[..., Path]
) -> None:
    expect(site(inventory(), "--check", "--diff"), 1, *UNREACHABLE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iothub_hostname": "127.0.0.1:1"}, "cannot be reached: no connection: refused 443 outwards"),
        ({"iothub_hostname": "no-hub.invalid"}, "the name cannot be resolved"),
        ({"edge_ca_bundle": ""}, "its TLS certificate is not trusted edge_ca_bundle"),
        (
            {"iothub_policy_key": base64.b64encode(b"another key, just as long as it is").decode()},
            "refuses the key of the policy iothubowner check iothub_policy_key",
        ),
        ({"edge_gateways": [{"name": "gw-1", "deployment": "gw.json"}] * 2}, "gateway gw-1 stands twice"),
        (
            {"edge_gateways": [{"name": "gw-1", "device_id": "a/b", "deployment": "gw.json"}]},
            "gateway gw-1 device id '/' correct device_id",
        ),
        (
            {"edge_gateways": [{"name": "gw-1", "deployment": "nofile.json"}]},
            "gw-1 nofile.json does not exist searched",
        ),
        (
            {"edge_gateways": [{"name": "gw-1", "deployment": "hosts.yml"}]},
            "gw-1 hosts.yml is not valid: $: not JSON",
        ),
        ({"edge_gatways": []}, "variable edge_gatways did you mean edge_gateways?"),
        ({"iothub_policy_key": "{{ vault_key }}"}, "variable iothub_policy_key 'vault_key' is undefined"),
        ({"edge_ca_bundle": "nofile.pem"}, "variable edge_ca_bundle nofile.pem does not exist"),
        ({"edge_runtime_helm_binary": "no-such-helm"}, "program no-such-helm is not on the controller"),
        (
            {
                "edge_runtime_helm_binary": HELM,
                "edge_gateways": [
                    {
                        "name": "gw-1",
                        "deployment": "files/gw.json",
                        # With a date, as YAML makes one of a text.
                        "chart_values": {
                            "callers": {"checkAdress": False},
                            "exposure": {"annotations": {"renewed": datetime.date(2026, 1, 1), 7: "a"}},
                        },
                    }
                ],
            },
            "gateway gw-1 the chart does not take its chart_values: at '/callers' checkAdress correct",
        ),
        (
            {"edge_storage_backend": "longhorn"},
            "edge_storage_backend is 'longhorn', which is not in this version",
        ),
    ],
)
def test_each_mistake_is_one_problem(
    site: Callable[..., Run], hub: Hub, inventory: Callable[..., Path], changes: dict[str, Any], words: str
) -> None:
    expect(site(inventory(**changes)), 2, *UNREACHABLE, words)
    assert hub.device_ids() == []


def test_policy_without_a_right(site: Callable[..., Run], hub: Hub, inventory: Callable[..., Path]) -> None:
    changes = {"iothub_policy_name": "registryRead", "iothub_policy_key": hub.keys["registryRead"]}
    expect(site(inventory(**changes)), 2, "the policy registryRead lacks the right RegistryWrite")


def test_twins_need_one_right_more(
    site: Callable[..., Run], hub: Hub, inventory: Callable[..., Path]
) -> None:
    changes = {
        "iothub_policy_name": "registryReadWrite",
        "iothub_policy_key": hub.keys["registryReadWrite"],
    }
    expect(site(inventory(**changes)), 2, "lacks the right ServiceConnect")


@pytest.mark.parametrize("offset", ["3600", "-7200"])
def test_clock_that_is_off(
    site: Callable[..., Run], start_hub: Callable[..., Hub], inventory: Callable[..., Path], offset: str
) -> None:
    other = start_hub("--clock-offset", offset)
    run = site(
        inventory(
            iothub_hostname=other.hostname,
            iothub_policy_key=other.keys["iothubowner"],
            edge_ca_bundle=other.ca_file,
        )
    )
    side = "behind" if offset == "3600" else "ahead of"
    # The key is right and is not blamed, although a hub whose clock is ahead refuses it.
    expect(run, 2, f"this machine's clock is s {side} the hub's", "set the clock (NTP) first")
    assert "iothub_policy_key" not in problems(run)


def test_all_problems_of_all_hosts_at_once(
    site: Callable[..., Run], hub: Hub, inventory: Callable[..., Path]
) -> None:
    hosts: dict[str, dict[str, Any]] = {
        "plant07": {"edge_gateways": [{"name": "gw-1", "deployment": "gw.json"}]},
        "depot09": {
            "edge_gateways": [
                {"name": "gw-2", "device_id": "gw-1", "deployment": "gw.json"},
                {"name": "Gw", "deployment": "nofile.json"},
            ],
            "edge_kubeconfg": "x",
        },
    }
    run = site(inventory(hosts))
    # Two clusters that do not answer, one device in both, a name, a file and a variable.
    expect(
        run,
        7,
        "plant07",
        "depot09",
        "gw-1 at",
        "is also in the cluster depot09",
        "DNS label",
        "edge_kubeconfig?",
    )
    limited = site(inventory(hosts), "--limit", "plant07")
    # A limit does not hide a clash with a host outside of it.
    expect(limited, 2, "is also in the cluster depot09")
    assert hub.device_ids() == []


def test_inventory_without_clusters(site: Callable[..., Run], tmp_path: Path) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text("all: {hosts: {plant07: {}}}\n")
    run = site(path)
    assert run.code != 0
    assert "no host in the group edge_clusters" in run.failures[0]


def test_manifest_that_was_read_as_inventory_is_pointed_out(
    site: Callable[..., Run], inventory: Callable[..., Path]
) -> None:
    run = site(inventory().parent)
    assert "was read as an inventory" in run.text


def test_secrets_stay_out_of_the_output(
    site: Callable[..., Run], hub: Hub, inventory: Callable[..., Path]
) -> None:
    run = site(inventory(), "-vvv", "--diff")
    assert hub.keys["iothubowner"] not in run.text
    secret = base64.b64encode(b"a wrong key that nobody must see").decode()
    run = site(inventory(iothub_policy_key=secret), "-vvv", "--diff")
    assert secret not in run.text


def test_operators_own_playbook(
    run_playbook: Callable[..., Run], hub: Hub, inventory: Callable[..., Path], tmp_path: Path
) -> None:
    """Files stand beside the operator's site.yml, which imports ours by its full name."""
    own = tmp_path / "own"
    (own / "files").mkdir(parents=True)
    (own / "files" / "beside.json").write_text(MANIFEST)
    (own / "site.yml").write_text("- import_playbook: edgeha.iotedge.site\n")
    path = inventory(edge_gateways=[{"name": "gw-1", "deployment": "files/beside.json"}])
    expect(run_playbook(["-i", str(path), "site.yml"], cwd=own), 1, *UNREACHABLE)
    expect(
        run_playbook(["-i", str(path), "edgeha.iotedge.site"], cwd=tmp_path), 2, "beside.json does not exist"
    )
