#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeadm_probe
short_description: Look at what a machine is to a cluster of kubeadm
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells in one run whether a machine is a node, of which cluster, whether that cluster knows it, and what of
    the programs is there.
  - It asks the API with the kubelet's own certificate, which may read its own node.
  - Needs root, and Linux with systemd.
options:
  node_name:
    description:
      - Name of the node.
    type: str
    required: true
  packages:
    description:
      - Packages to look for.
    type: list
    elements: str
    default: []
  files:
    description:
      - Files whose SHA-256 and mode are told.
    type: list
    elements: path
    default: []
  timeout:
    description:
      - Seconds that the API may take to answer.
    type: int
    default: 5
extends_documentation_fragment:
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at the machine
  edgeha.iotedge.kubeadm_probe:
    node_name: gw4
    packages: [kubelet, kubeadm]
  register: look
"""

RETURN = r"""
kubeadm:
  description: What is there.
  returned: always
  type: dict
  contains:
    kubelet_conf:
      description:
        - Whether the kubelet's kubeconfig exists, its server, the ca_hashes of the authority that it trusts,
          and a problem with it, empty when there is none.
      type: dict
      returned: always
    half:
      description: Files of a join that was interrupted.
      type: list
      elements: str
      returned: always
    node:
      description:
        - Its name, whether the API has found it (null when nobody was asked, or nobody answered),
          whether it is ready, the HTTP status of a refusal, and the problem in words.
      type: dict
      returned: always
    kubelet:
      description: C(load), C(active) and C(enabled) of kubelet.service.
      type: dict
      returned: always
    kubeadm_version:
      description: Version of kubeadm, empty when it is not there.
      type: str
      returned: always
    kubelet_version:
      description:
        - Version of the kubelet of a machine that has not joined, or of the one that packages would bring;
          empty when it is not known.
      type: str
      returned: always
    sockets:
      description: Sockets of container runtimes that are there.
      type: list
      elements: str
      returned: always
    runtime_is_ours:
      description: Whether containerd has a configuration that the role wrote.
      type: bool
      returned: always
    runtime_is_stale:
      description: Whether containerd has been running since before what the machine trusts changed.
      type: bool
      returned: always
    link_cni:
      description: Whether the network plugins of the distribution are not yet where clusters look for them.
      type: bool
      returned: always
    control_plane:
      description: Whether it runs a control plane.
      type: bool
      returned: always
    k3s:
      description: Unit of k3s that it has, empty when it has none.
      type: str
      returned: always
    missing:
      description: Packages that are not installed.
      type: list
      elements: str
      returned: always
    files:
      description: SHA-256 and mode of each of O(files), null for one that is not there.
      type: dict
      returned: always
    family:
      description: V(debian), V(redhat), or empty for another distribution.
      type: str
      returned: always
"""

import stat
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    join_rules,
    k3s_api,
    k3s_facts,
    k3s_machine,
    kube_api,
    kubeadm_rules,
    node_facts,
    node_look,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import output, sha256, text

_UNITS = ("kubelet.service", "k3s.service", "k3s-agent.service")


def file_state(path: str) -> dict[str, str] | None:
    try:
        return {"sha256": sha256(path), "mode": f"{stat.S_IMODE(Path(path).stat().st_mode):04o}"}
    except OSError:
        return None


def runtime_is_stale(module: AnsibleModule) -> bool:
    try:
        changed = Path(kubeadm_rules.TRUST_LIST).stat().st_mtime_ns
    except OSError:
        return False
    unit = k3s_machine.unit(lambda *words: output(module, *words), ["containerd"])
    files = {kubeadm_rules.TRUST_LIST: {"exists": True, "mtime": changed}}
    return bool(k3s_facts.stale(files, round(unit["started"] * 1e9), time.time_ns(), False))


def look_at_membership(name: str, timeout: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the kubelet's kubeconfig says, and what the API says of the node."""
    conf: dict[str, Any] = {"exists": False, "server": "", "ca_hashes": [], "problem": ""}
    node: dict[str, Any] = {"name": name, "found": None, "ready": False, "status": 0, "problem": ""}
    content = text(kubeadm_rules.KUBELET_CONF)
    if not content:
        return conf, node
    conf["exists"] = True
    try:
        access = k3s_api.of_kubeconfig(content)
        conf["server"] = access.server
        authority = access.authority
        pem = authority if k3s_api.is_pem(authority) else text(authority)
        conf["ca_hashes"] = [f"sha256:{digest}" for digest in join_rules.key_digests(pem.encode())]
        api = k3s_api.connect(access, timeout)
        found = k3s_api.node(api, name)
        api.close()
    except ValueError as error:
        conf["problem"] = str(error)
    except kube_api.KubeError as error:
        node["status"], node["problem"] = error.status, error.message
    else:
        node["found"] = found is not None
        conditions = ((found or {}).get("status") or {}).get("conditions") or []
        node["ready"] = any(row.get("type") == "Ready" and row.get("status") == "True" for row in conditions)
    return conf, node


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    family = node_look.os_release()["family"]
    packages = module.params["packages"]
    found = node_look.packages(lambda *words: output(module, *words), family, packages)
    properties = "--property=Id,LoadState,ActiveState,UnitFileState,FragmentPath"
    units = node_facts.units(output(module, "systemctl", "show", properties, *_UNITS))
    kubelet = units.get(_UNITS[0], {"load": "not-found", "active": "inactive", "enabled": ""})
    conf, node = look_at_membership(module.params["node_name"], float(module.params["timeout"]))
    left = [kubeadm_rules.BOOTSTRAP_CONF, kubeadm_rules.AUTHORITY]
    cni = Path(kubeadm_rules.CNI_FOLDER)
    module.exit_json(
        changed=False,
        kubeadm={
            "kubelet_conf": conf,
            "half": [] if conf["exists"] else [path for path in left if Path(path).exists()],
            "node": node,
            "kubelet": {name: kubelet[name] for name in ("load", "active", "enabled")},
            "kubeadm_version": output(module, "kubeadm", "version", "--output=short").strip(),
            "kubelet_version": ""
            if conf["exists"]
            else node_look.kubelet_version(lambda *words: output(module, *words)),
            "sockets": [path for path in kubeadm_rules.SOCKETS if Path(path).exists()],
            "runtime_is_ours": text(kubeadm_rules.CONTAINERD_FILE).startswith(kubeadm_rules.OUR_MARK),
            "runtime_is_stale": runtime_is_stale(module),
            "link_cni": not cni.exists(),
            "control_plane": Path("/etc/kubernetes/manifests/kube-apiserver.yaml").exists(),
            "k3s": next((name for name in _UNITS[1:] if units.get(name, {}).get("load") == "loaded"), ""),
            "missing": [name for name in packages if not found[name]],
            "files": {path: file_state(path) for path in module.params["files"]},
            "family": family,
        },
    )


if __name__ == "__main__":
    main()
