# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads files and units of k3s on the machine that it runs on, for `k3s_probe` and `k3s_wait`.

It keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_api, k3s_facts
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import Output, expanded, text


def unit(output: Output, names: Iterable[str]) -> dict[str, Any]:
    """Return the unit that counts, with the start of its process; k3s_facts.NO_UNIT without any."""
    properties = "--property=Id,LoadState,ActiveState,UnitFileState,MainPID,Job"
    shown = output("systemctl", "show", properties, *(f"{name}.service" for name in names))
    found = k3s_facts.choose(k3s_facts.units(shown))
    boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    stat = text(f"/proc/{found['main_pid']}/stat")
    found["started"] = k3s_facts.started_ns(stat, boot, os.sysconf("SC_CLK_TCK")) / 1e9
    return found


def configuration(config_dir: str, pid: int) -> dict[str, Any]:
    """Return what the files say, and where these say nothing, the running process."""
    names = expanded([f"{config_dir}/k3s/config.yaml", f"{config_dir}/k3s/config.yaml.d/*.yaml"])
    running = k3s_facts.arguments(text(f"/proc/{pid}/cmdline"), text(f"/proc/{pid}/environ"))
    return k3s_facts.merged(k3s_facts.config(text(path) for path in names), running)


def node_name(data_dir: str, configured: str) -> tuple[str, str]:
    """Return the name of the machine's node, and whence it is known."""
    known = k3s_facts.node_of_certificate(text(f"{data_dir}/agent/client-kubelet.crt"))
    if configured:
        return configured.lower(), "config"
    return (known, "certificate") if known else (socket.gethostname().lower(), "hostname")


def access(data_dir: str, port: int = 6443) -> k3s_api.Access | None:
    """Return the best access to the API that the machine has: an administrator's, or its kubelet's own."""
    admin = k3s_api.of_data_dir(data_dir, port)
    if Path(admin.key).exists() and Path(admin.authority).exists():
        return admin
    try:
        return k3s_api.of_kubeconfig(text(f"{data_dir}/agent/kubelet.kubeconfig"))
    except ValueError:
        return None
