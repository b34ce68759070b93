# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_plan
short_description: What each machine of a cluster does, by what all of them are
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Decides for one cluster who founds it, who joins, who is started, and in which order. Contacts nothing.
  - A cluster is founded only when every server that is expected answered and none holds anything of one. A
    living cluster is always joined, by a server that lost its disk too, whichever it is.
  - Whatever would make a second cluster is returned as a problem. With a problem on any machine, none of the
    cluster may be changed.
positional: wanted
options:
  _input:
    description:
      - The machines, with C(host), C(kind) (V(server) or V(agent)), C(address), C(node_name), C(state) and
        C(in_play).
      - C(state) is what M(edgeha.iotedge.k3s_probe) returned as RV(edgeha.iotedge.k3s_probe#module:k3s), null
        for a machine that did not answer. C(in_play) is false for one that a limit leaves out of the run.
    type: list
    elements: dict
    required: true
  wanted:
    description:
      - Mapping with C(cluster) (its name), C(mode) (V(k3s) or V(join)), C(server_count) (0 for those of the
        inventory), C(datastore) (V(etcd), V(sqlite) or V(external)), C(force_bootstrap) and C(version)
        (of k3s, empty when none is asked for).
    type: dict
    required: true
"""

EXAMPLES = r"""
plan: "{{ machines | edgeha.iotedge.cluster_plan({'cluster': 'plant07', 'datastore': 'etcd'}) }}"
"""

RETURN = r"""
_value:
  description:
    - For each host C(action), C(wave), C(cold), C(via), C(forget), C(convert), C(spare), C(version) and
      C(problems).
    - C(action) is V(found), V(join), V(start), V(keep), or V(none) for a machine that did not answer.
    - Servers of a later C(wave) begin when the earlier ones are done. With C(cold) it is started together
      with others and waits for none.
    - C(via) is the address of a server to join, empty when it needs none. C(forget) is the name of a node
      that must be deleted at a peer first, because the machine lost what proves that it is this node.
    - With C(convert) its SQLite becomes etcd at its next start. C(spare) voters of etcd may be away and the
      cluster still writes, null when that is not known.
    - C(version) is what the servers of the cluster run, for a machine that is installed now when no version
      is asked for.
    - Each of C(problems) has C(host), C(subject), C(fact) and C(fix).
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_plan as core


def cluster_plan(entries: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> dict[str, Any]:
    asked = core.Wanted(
        cluster=str(wanted["cluster"]),
        mode=str(wanted.get("mode") or "k3s"),
        server_count=int(wanted.get("server_count") or 0),
        datastore=str(wanted.get("datastore") or "etcd"),
        force_bootstrap=bool(wanted.get("force_bootstrap")),
        version=str(wanted.get("version") or ""),
    )
    steps = core.plan([core.machine_of(entry) for entry in entries], asked)
    return {host: step.as_dict() for host, step in steps.items()}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster_plan": cluster_plan}
