#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vip_handover
short_description: Hand the address of a cluster to another server before this one stops
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Lets this server's keepalived give the address up, and waits until it has. Another server whose API is
    ready takes it within a quarter of a second.
  - Where the address is still here after O(limit), that is told with a warning and is no failure.
  - Does nothing on a machine whose keepalived has no such address.
  - Needs root, and Linux with systemd.
options:
  address:
    description:
      - Address of the cluster. Empty where there is none, which does nothing.
    type: str
    required: true
  state:
    description:
      - V(away) before this server stops, V(back) once it works again. It does not take the address back.
    type: str
    choices: [away, back]
    required: true
  limit:
    description:
      - Seconds to wait until keepalived has given it up.
    type: int
    default: 30
attributes:
  check_mode:
    description: Tells whether it would hand the address over.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Hand the address to another server
  edgeha.iotedge.vip_handover:
    address: 10.7.0.10
    state: away

- name: Take part again
  edgeha.iotedge.vip_handover:
    address: 10.7.0.10
    state: back
"""

RETURN = r"""
held:
  description: Whether this server had the address before.
  returned: always
  type: bool
moved:
  description: Whether it has given it up.
  returned: always
  type: bool
seconds:
  description: How long that took.
  returned: always
  type: float
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import node_facts, vip

_PAUSE_SECONDS = 0.1


def holds(module: AnsibleModule, address: str) -> bool:
    """Whether this machine has the address now."""
    program = module.get_bin_path("ip", required=True)
    _code, listed, _errors = module.run_command([program, "-json", "address"], check_rc=True)
    return any(f"{address}/32" in link["addresses"] for link in node_facts.interfaces(listed))


def is_ours(address: str) -> bool:
    """Whether keepalived is configured by us for this address."""
    try:
        config = Path(vip.CONFIG_FILE).read_text(errors="replace")
    except OSError:
        return False
    return f"        {address}/32 dev " in (node_facts.managed_block(config, "edgeha.iotedge") or "")


def write_marker() -> None:
    """Let go. keepalived sees a file that is moved to its place, whole."""
    new = Path(f"{vip.LEAVING_FILE}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("1\n")
    new.rename(vip.LEAVING_FILE)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["away", "back"], "required": True},
            "limit": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    address, state, limit = (module.params[name] for name in ("address", "state", "limit"))
    marker = Path(vip.LEAVING_FILE)
    result = {"changed": False, "held": False, "moved": False, "seconds": 0.0}
    if not address or not is_ours(address):
        module.exit_json(**result)
    result["held"] = holds(module, address)
    result["changed"] = marker.exists() == (state == "back")
    if module.check_mode:
        module.exit_json(**result)
    if state == "back":
        marker.unlink(missing_ok=True)
        module.exit_json(**result)
    began = time.monotonic()
    if not marker.exists():
        write_marker()
    gone = not result["held"]
    while not gone and time.monotonic() - began < limit:
        time.sleep(_PAUSE_SECONDS)
        gone = not holds(module, address)
    result["moved"] = bool(result["held"]) and gone
    result["seconds"] = round(time.monotonic() - began, 2)
    if not gone:
        module.warn(
            f"{address} is still here after {limit} s: keepalived has not given it up. "
            "It is away while this server is."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
