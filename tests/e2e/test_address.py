# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A device outside of the cluster reaches its gateway at one address, whichever machine answers for it."""

from __future__ import annotations

import base64
import ipaddress
import json
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient

from tests.e2e.lab import ROOT, Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks
from tests.tls import issue

MANIFEST = str(ROOT / "inventories/local/files/edge.json")
HOST = "gateway.plant.test"
LIMIT_SECONDS = 60
EXPOSURES = ["ClusterIP", "LoadBalancer"]


class Address:
    """An address of the lab's network that one machine at a time answers for, as keepalived sees to it."""

    def __init__(self, lab: Lab, number: int) -> None:
        nodes = lab.get("nodes", "--selector=!node-role.kubernetes.io/control-plane")["items"]
        self.machines = [node["metadata"]["name"] for node in nodes]
        own = next(one["address"] for one in nodes[0]["status"]["addresses"] if one["type"] == "InternalIP")
        # The last ones of the lab's network, which gives the first ones to its machines.
        self.text = str(ipaddress.ip_network(f"{own}/24", strict=False).broadcast_address - 20 - number)
        self._holder = ""

    def move(self, machine: str) -> None:
        """Let a machine answer for the address, and no other one; empty: none."""
        if self._holder:
            self._command("exec", self._holder, "ip", "address", "del", f"{self.text}/32", "dev", "eth0")
        self._holder = machine
        if machine:
            self._command("exec", machine, "ip", "address", "add", f"{self.text}/32", "dev", "eth0")
        # What announces such an address tells the neighbours; here they forget.
        subprocess.run(["ip", "neighbour", "flush", "to", self.text], check=True)

    @staticmethod
    def _command(*words: str) -> None:
        subprocess.run(["docker", *words], check=True, timeout=60)


@pytest.fixture
def address(lab: Lab, exposure: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """An address of its own for each exposure, under the gateway's name for clients of this process."""
    found = Address(lab, EXPOSURES.index(exposure))
    resolve = socket.getaddrinfo

    def resolved(host: Any, *words: Any, **more: Any) -> Any:
        return resolve(found.text if host == HOST else host, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    yield found
    found.move("")


def balance(lab: Lab, gateway: Gateway) -> None:
    """Do for the gateway's Service what a load balancer's controller does: give it the address it asks for.

    A stand-in: the lab has no load balancer. That the machines take what is sent there is kube-proxy's own.
    """
    name, where = f"service/{gateway.name}-gateway", ("-n", gateway.namespace)
    service = lab.get(name, *where)
    assert service["spec"]["type"] == "LoadBalancer"
    status = {"status": {"loadBalancer": {"ingress": [{"ip": service["spec"]["loadBalancerIP"]}]}}}
    lab.kubectl("patch", name, *where, "--subresource=status", "--type=merge", "--patch", json.dumps(status))


@pytest.mark.slow
@pytest.mark.parametrize("exposure", EXPOSURES)
def test_a_device_reaches_the_gateway_at_its_address_on_either_machine(
    lab: Lab,
    playbooks: Playbooks,
    new_gateway: Callable[[str], Gateway],
    address: Address,
    tmp_path: Path,
    exposure: str,
) -> None:
    gateway = new_gateway(f"e2e-{exposure.lower()}")
    authority = issue("edge CA of the tests", ca=True)
    pair = {"tls.crt": authority.pem, "tls.key": authority.key_pem}
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca", "namespace": gateway.namespace},
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in pair.items()},
    }  # fmt: skip
    lab.kubectl("create", "namespace", gateway.namespace)
    lab.kubectl("create", "--filename", "-", data=secret)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(lab.ca_file.read_text() + authority.pem)
    entry = {
        "name": gateway.name, "deployment": MANIFEST, "hostname": HOST, "address": address.text,
        "exposure": exposure,
        "chart_values": {"edgeCa": {"existingSecret": "ca"}},
    }  # fmt: skip
    site = {"edge_ca_bundle": str(bundle), "edge_gateways": [entry]}
    playbooks.run("site.yml", variables=site).finished()
    if exposure == "LoadBalancer":
        balance(lab, gateway)

    key = base64.b64encode(secrets.token_bytes(32)).decode()
    leaf = f"{gateway.name}-leaf"
    device = {
        "deviceId": leaf, "status": "enabled",
        "deviceScope": lab.hub("GET", f"/devices/{gateway.name}")["deviceScope"],
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}},
    }  # fmt: skip
    lab.hub("PUT", f"/devices/{leaf}", body=device)
    text = f"HostName={lab.hostname};DeviceId={leaf};SharedAccessKey={key};GatewayHostName={HOST}"
    try:
        for number, machine in enumerate(address.machines):
            address.move(machine)

            def sent(number: int = number) -> bool:
                client = IoTHubDeviceClient.create_from_connection_string(
                    text, server_verification_cert=authority.pem, connection_retry=False
                )
                try:
                    client.send_message(json.dumps({"boot": "b", "sequence": number, "node": "leaf"}))
                except Exception:
                    return False
                finally:
                    client.shutdown()
                return True

            # A device that is new is asked for at the hub first.
            wait_for(f"a message by {machine}", sent, LIMIT_SECONDS)
            wait_for(
                "the message at the hub",
                lambda number=number: number in [one.sequence for one in lab.messages(leaf)],
                LIMIT_SECONDS,
            )
    finally:
        lab.hub("DELETE", f"/devices/{leaf}", if_match="*")
