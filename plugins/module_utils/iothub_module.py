# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the IoT Hub modules share: their options, the client made from them, and readable errors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth, iothub_client

# A token is refused as soon as the clocks differ by more than its life, and TLS and logs suffer long before.
CLOCK_LIMIT_SECONDS = 60.0


def argument_spec() -> dict[str, dict[str, Any]]:
    """Return the options of the doc fragment ``iothub``."""
    return {
        "hostname": {"type": "str"},
        "policy_name": {"type": "str", "default": "iothubowner"},
        "policy_key": {"type": "str", "no_log": True},
        "connection_string": {"type": "str", "no_log": True},
        "ca_file": {"type": "path"},
        "timeout": {"type": "int", "default": 30},
        "retry_budget": {"type": "int", "default": 180},
    }


MUTUALLY_EXCLUSIVE = [("connection_string", "hostname"), ("connection_string", "policy_key")]
REQUIRED_ONE_OF = [("connection_string", "hostname")]
REQUIRED_TOGETHER = [("hostname", "policy_key")]


def client(params: Mapping[str, Any]) -> iothub_client.HubClient:
    """Return a client for a module's options; raises CredentialError or HubUntrusted."""
    if params.get("connection_string"):
        hostname, policy = iothub_auth.service_connection(params["connection_string"])
    else:
        hostname = params["hostname"]
        policy = iothub_auth.SasPolicy(params["policy_name"], params["policy_key"])
    iothub_auth.decode_key(policy.key)
    return iothub_client.HubClient(
        hostname,
        policy,
        ca_file=params.get("ca_file"),
        timeout=float(params["timeout"]),
        retry_budget=float(params["retry_budget"]),
    )


def explain(error: Exception) -> str:
    """Return an error as one line with the fix, as far as the answer tells."""
    if isinstance(error, iothub_client.HubResponseError):
        offset = error.clock_offset
        if error.status == 401 and offset is not None and abs(offset) > CLOCK_LIMIT_SECONDS:
            return f"{error}. {clock_fact(offset)}: set this machine's clock first, signatures depend on it"
        if error.status == 401:
            return f"{error}. Check policy_name, policy_key and the rights of the policy"
        if error.status == 412:
            return f"{error}. Somebody else changed it meanwhile: run again"
        if error.status == 429:
            return f"{error}. The hub limits calls for its tier: wait, raise retry_budget, or add units"
    if isinstance(error, iothub_client.HubUntrusted):
        return f"{error}. Name the authority that signed it in ca_file"
    if isinstance(error, iothub_client.HubUnreachable):
        return f"{error}. Check the host name, DNS, the firewall (443 outwards) and https_proxy"
    return str(error)


def clock_fact(offset: float) -> str:
    """Say a clock difference: offset is the hub's clock minus ours in seconds."""
    return f"this machine's clock is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} the hub's"
