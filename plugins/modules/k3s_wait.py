#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_wait
short_description: Wait until k3s on a machine is where it is wanted
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Waits with a limit, and says at its end what was still missing and what k3s said last.
  - Runs on a server, for its own node or for one of its peers, or on an agent for its own node. It asks the
    API with the keys that the machine has, an administrator's on a server and the kubelet's own on an agent.
  - Needs root, and Linux with systemd.
options:
  states:
    description:
      - What is waited for. By default what makes the machine ready. That is V(unit_active), V(readyz) and
        V(node_ready) for a server, V(etcd_voter) too when it holds etcd, and V(unit_active) and V(node_ready)
        for an agent.
      - V(unit_active) is about O(unit), V(readyz) about the API of the machine itself.
      - V(node_ready), V(etcd_voter), V(kubelet_version) and V(node_gone) are about O(node). A node is ready
        when its kubelet has spoken since O(unit) started, if that is waited for too.
    type: list
    elements: str
    choices: [unit_active, readyz, node_ready, etcd_voter, kubelet_version, node_gone]
  unit:
    description:
      - Unit of systemd.
    type: str
    default: k3s
  node:
    description:
      - Name of the node; that of the machine by default.
    type: str
  version:
    description:
      - Version that the node's kubelet is to report, such as V(v1.34.4+k3s1). It is needed for
        V(kubelet_version).
    type: str
  kubeconfig:
    description:
      - Kubeconfig on the machine, with one cluster and one user, instead of the keys in O(data_dir).
    type: path
  timeout:
    description:
      - Seconds to wait at most.
    type: int
    default: 300
extends_documentation_fragment:
  - edgeha.iotedge.k3s
  - edgeha.iotedge.k3s.api
attributes:
  check_mode:
    description: Looks once, and says in RV(missing) what it would wait for.
    support: full
  diff_mode:
    description: Changes nothing.
    support: N/A
"""

EXAMPLES = r"""
- name: Wait until this server is ready
  edgeha.iotedge.k3s_wait:

- name: Wait at a peer until the node runs the new version
  edgeha.iotedge.k3s_wait:
    states: [node_ready, kubelet_version, etcd_voter]
    node: gw1
    version: v1.34.5+k3s1
    timeout: 600
  delegate_to: gw2
"""

RETURN = r"""
elapsed:
  description: Seconds that it took.
  returned: always
  type: float
states:
  description: What was waited for.
  returned: always
  type: list
  elements: str
missing:
  description: What is still missing; empty when all is as wanted.
  returned: always
  type: list
  elements: str
progress:
  description: What was missing meanwhile, as it changed.
  returned: always
  type: list
  elements: dict
  contains:
    after:
      description: Seconds since the beginning.
      type: float
    missing:
      description: What was missing then.
      type: list
      elements: str
node:
  description:
    - The node as it was seen last, as in RV(edgeha.iotedge.k3s_probe#module:k3s); empty when there is none.
  returned: always
  type: dict
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    k3s_api,
    k3s_facts,
    k3s_machine,
    k3s_options,
    k3s_states,
    kube_api,
    this_machine,
)

_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
_LOG_SECONDS = 20.0


class Watch:
    """Looks at one machine again and again."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._params: dict[str, Any] = module.params
        self._data = self._params["data_dir"].rstrip("/")
        self._api: kube_api.KubeApi | None = None
        # What it said long ago explains nothing; what it said while the task before this one started it does.
        self._begun = time.time() - _LOG_SECONDS

    @property
    def states(self) -> list[str]:
        # Whether it holds etcd may show only while it starts.
        etcd = Path(f"{self._data}/server/db/etcd/member/wal").is_dir()
        return self._params["states"] or k3s_states.defaults(self.unit, etcd)

    @property
    def unit(self) -> str:
        return str(self._params["unit"])

    @property
    def node(self) -> str:
        if self._params["node"]:
            return str(self._params["node"])
        # It may become known only while it starts.
        configured = k3s_machine.configuration(self._params["config_dir"], 0)["node_name"]
        return k3s_machine.node_name(self._data, configured)[0]

    def output(self, *words: str) -> str:
        return this_machine.output(self._module, *words)

    def missing(self, seen: k3s_states.Seen) -> list[str]:
        version = self._params["version"] or ""
        return k3s_states.missing(self.states, seen, self.unit, self.node, version)

    def look(self) -> k3s_states.Seen:
        """Look once, and at no more than what is waited for."""
        unit = None
        if k3s_states.UNIT_ACTIVE in self.states:
            unit = k3s_machine.unit(self.output, [self.unit])
            if unit["active"] != "active":
                return k3s_states.Seen(unit)
        api: str | None = None
        try:
            client = self._client()
            if k3s_states.READYZ in self.states:
                api = k3s_api.readyz(client)[1]
            if not k3s_states.OF_A_NODE & set(self.states):
                return k3s_states.Seen(unit, api)
            name = self.node
            node = k3s_api.node(client, name)
            renewed = self._renewed(client, name) if node is not None and unit is not None else None
        except kube_api.KubeError as error:
            if error.status == 0:
                # Keys and addresses may be written anew while it starts.
                self._api = None
            return k3s_states.Seen(unit, error.message if api is None else api, problem=error.message)
        return k3s_states.Seen(unit, api, node, renewed=renewed)

    def last_words(self) -> str:
        """Return the last error in the unit's log."""
        journal = self.output(
            "journalctl", f"--unit={self.unit}", "--lines=200", "--output=cat", "--no-pager"
        )
        tokens = [f"{self._data}/server/token", f"{self._params['config_dir']}/k3s/token"]
        return k3s_states.last_words(
            journal, [k3s_facts.token_secret(this_machine.text(path)) for path in tokens]
        )

    def _client(self) -> kube_api.KubeApi:
        if self._api is None:
            access = self._access()
            if access is None:
                raise kube_api.KubeError(0, "NoCredentials", "the machine has no keys for the API yet")
            self._api = k3s_api.connect(access, _ANSWER_SECONDS)
        return self._api

    def _access(self) -> k3s_api.Access | None:
        if not self._params["kubeconfig"]:
            return k3s_machine.access(self._data, self._params["api_port"])
        try:
            return k3s_api.of_kubeconfig(this_machine.text(self._params["kubeconfig"]))
        except ValueError as error:
            raise kube_api.KubeError(0, "NoCredentials", f"{self._params['kubeconfig']}: {error}") from error

    def _renewed(self, client: kube_api.KubeApi, name: str) -> float | None:
        try:
            lease = client.find(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
        except kube_api.KubeError as error:
            # Whoever may not see it does without.
            if error.status == 403:
                return None
            raise
        return k3s_states.epoch(str(((lease or {}).get("spec") or {}).get("renewTime", ""))) or 0.0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "states": {"type": "list", "elements": "str", "choices": list(k3s_states.STATES)},
            "unit": {"type": "str", "default": "k3s"},
            "node": {"type": "str"},
            "version": {"type": "str"},
            **k3s_options.DATA_DIR,
            "kubeconfig": {"type": "path"},
            **k3s_options.API,
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="k3s_wait needs root for the keys of the API: set become: true")
    watch = Watch(module)
    if k3s_states.KUBELET_VERSION in watch.states and not module.params["version"]:
        module.fail_json(msg="kubelet_version needs version")
    patience = kube_api.Patience(0 if module.check_mode else module.params["timeout"], _PAUSE_SECONDS)
    progress: list[dict[str, Any]] = []
    while True:
        seen = watch.look()
        missing = watch.missing(seen)
        if not progress or progress[-1]["missing"] != missing:
            progress.append({"after": round(patience.elapsed, 2), "missing": missing})
        if not missing or not patience.is_left() or k3s_states.ended(watch.states, seen):
            break
        patience.pause()
    result: dict[str, Any] = {
        "changed": False,
        "elapsed": round(patience.elapsed, 2),
        "states": watch.states,
        "missing": missing,
        "progress": progress,
        "node": k3s_facts.node_view(seen.node) if seen.node else {},
    }
    if missing and not module.check_mode:
        why = f". It said last: {said}" if (said := watch.last_words()) else ""
        module.fail_json(
            msg=f"{socket.gethostname()}: waited {result['elapsed']:.0f} s for {', '.join(watch.states)}, "
            f"and {'; '.join(missing)}{why}. Look at 'journalctl -u {watch.unit}' there.",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
