# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs on the controller: the inventory of a hub's devices, and the lookup of connection strings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

ROOT = Path(__file__).resolve().parents[3]
DEVICES: list[dict[str, Any]] = [
    {"device_id": "gw-1", "edge": True, "tags": {"site": "a", "trick": "{% raw %}{{ 6 * 7 }}{% endraw %}"}},
    {"device_id": "leaf-1", "tags": {"site": "b"}, "status": "disabled", "status_reason": "spare"},
    {"device_id": "leaf-2"},
]
CERTIFICATE = {"type": "self_signed", "primary_thumbprint": "AB" * 20}


def devices(items: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_devices": {"devices": items, **extra}}


def plain(value: dict[str, Any]) -> Any:
    """Return a text as it is; ansible-inventory marks each that must not be run as a template."""
    return value.get("__ansible_unsafe", value)


class Inventory:
    """An inventory file for a hub. text: what the last run printed."""

    text = ""

    def __init__(self, folder: Path, hub: Hub, **options: Any) -> None:
        self.path = folder / "test.iothub.yml"
        self.options = {
            "plugin": "edgeha.iotedge.iothub",
            "hostname": hub.hostname,
            "policy_name": "service",
            "policy_key": "{{ lookup('ansible.builtin.env', 'TEST_HUB_KEY') }}",
            "ca_file": hub.ca_file,
            **options,
        }
        self.environment = {
            **os.environ,
            "TEST_HUB_KEY": hub.keys["service"],
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        }

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        self.path.write_text(yaml.safe_dump({**self.options, **options}))
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-inventory")),
                *("-i", str(self.path), "--list", *arguments),
            ],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def list(self, *arguments: str, **options: Any) -> dict[str, Any]:
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done.stderr
        self.text = done.stdout
        found: dict[str, Any] = json.loads(done.stdout, object_hook=plain)
        return found


def test_devices_are_hosts_in_groups_without_keys(hub: Hub, play: Play, tmp_path: Path) -> None:
    made = play({"make": devices(DEVICES, return_keys=True)})
    assert made.failures == []
    inventory = Inventory(tmp_path, hub)
    found = inventory.list(
        keyed_groups=[{"key": "iothub_tags.site", "prefix": "site"}],
        groups={"spare": "iothub_status_reason == 'spare'"},
        compose={"ansible_host": "iothub_device_id ~ '.local'"},
        properties=["reported"],
    )
    members = {group: sorted(entry.get("hosts", [])) for group, entry in found.items() if group != "_meta"}
    assert members["iothub_edge"] == members["site_a"] == ["gw-1"]
    assert members["iothub_leaf"] == members["iothub_disconnected"][1:] == ["leaf-1", "leaf-2"]
    assert members["iothub_disabled"] == members["spare"] == members["site_b"] == ["leaf-1"]
    assert members["iothub_enabled"] == ["gw-1", "leaf-2"]
    variables = found["_meta"]["hostvars"]
    assert variables["leaf-1"]["ansible_host"] == "leaf-1.local"
    assert variables["leaf-1"]["iothub_status"] == "disabled"
    assert variables["gw-1"]["iothub_edge"] is True
    assert variables["gw-1"]["iothub_reported"] == {}
    # What stands in a twin is text and never run.
    assert '"__ansible_unsafe": "{{ 6 * 7 }}"' in inventory.text
    for device in made.results["make"]["devices"]:
        assert device["primary_key"] not in inventory.text
    assert hub.keys["service"] not in inventory.text


def test_condition_and_cache(hub: Hub, play: Play, tmp_path: Path) -> None:
    play({"make": devices(DEVICES)})
    inventory = Inventory(
        tmp_path,
        hub,
        query="tags.site = 'a'",
        cache=True,
        cache_plugin="ansible.builtin.jsonfile",
        cache_connection=str(tmp_path / "cache"),
    )
    assert list(inventory.list()["_meta"]["hostvars"]) == ["gw-1"]
    play({"more": devices([{"device_id": "gw-2", "tags": {"site": "a"}}])})
    assert list(inventory.list()["_meta"]["hostvars"]) == ["gw-1"]
    # Another query is answered by the hub, and so is everything once the cache is flushed.
    assert list(inventory.list(query="tags.site = 'b'")["_meta"]["hostvars"]) == ["leaf-1"]
    assert sorted(inventory.list("--flush-cache")["_meta"]["hostvars"]) == ["gw-1", "gw-2"]
    assert hub.keys["service"] not in "".join(
        file.read_text() for file in (tmp_path / "cache").iterdir() if file.is_file()
    )


def test_inventory_says_what_is_wrong(hub: Hub, tmp_path: Path) -> None:
    inventory = Inventory(tmp_path, hub)
    for options, fact in (
        ({"policy_name": "registryRead", "policy_key": hub.keys["registryRead"]}, "rights of the policy"),
        ({"query": "tags.site ="}, "HTTP 400"),
        ({"policy_key": None}, "any of the following are missing: policy_key, connection_string"),
        ({"hostname": "127.0.0.1:1"}, "Check the host name"),
    ):
        done = inventory.run(**options)
        assert done.returncode != 0, options
        assert fact in " ".join(done.stderr.split()), (options, done.stderr)


def lookup(hub: Hub, term: str, **options: Any) -> dict[str, Any]:
    access = {"hostname": hub.hostname, "policy_key": hub.keys["iothubowner"], "ca_file": hub.ca_file}
    arguments = ", ".join(f"{name}={value!r}" for name, value in {**access, **options}.items())
    text = f"lookup('edgeha.iotedge.iothub_connection_string', {term!r}, {arguments})"
    return {"ansible.builtin.debug": {"msg": "{{ " + text + " }}"}, "ignore_errors": True}


def test_connection_strings(hub: Hub, play: Play) -> None:
    module = {"device_id": "leaf-2", "module_id": "m", "authentication": CERTIFICATE}
    run = play(
        {
            "make": devices(DEVICES, return_keys=True),
            "module": {"edgeha.iotedge.iothub_modules": {"modules": [module]}},
            "plain": lookup(hub, "leaf-1"),
            "second": lookup(hub, "leaf-2", key="secondary", gateway_hostname="gw.local"),
            "certificate": lookup(hub, "leaf-2/m"),
            "missing": lookup(hub, "none"),
            "bad": lookup(hub, "a/b/c"),
            "hubs": lookup(hub, "gw-1/$edgeHub"),
            "off": lookup(hub, "leaf-1/m"),
            "key": lookup(hub, "leaf-2", policy_key="no"),
        }
    )
    keys = {device["device_id"]: device for device in run.results["make"]["devices"]}
    start = f"HostName={hub.hostname};DeviceId="
    plain, second = run.results["plain"]["msg"], run.results["second"]["msg"]
    assert plain == f"{start}leaf-1;SharedAccessKey={keys['leaf-1']['primary_key']}"
    assert (
        second == f"{start}leaf-2;SharedAccessKey={keys['leaf-2']['secondary_key']};GatewayHostName=gw.local"
    )
    assert run.results["certificate"]["msg"] == f"{start}leaf-2;ModuleId=m;x509=true"
    assert "leaf-1' is disabled and cannot connect" in run.text
    missing, bad, hubs, off, key = run.failures
    assert "none: the device 'none' is not registered" in missing
    assert "'a/b/c' is neither DEVICE nor DEVICE/MODULE" in bad
    assert "gw-1/$edgeHub: it authenticates by 'none'" in hubs
    assert "leaf-1/m: the device 'leaf-1' is disabled" in off
    assert "not base64" in key
