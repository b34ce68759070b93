#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_token
short_description: Change the token of a k3s cluster
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells a server to change the token, as C(k3s token rotate) does, but keeps both tokens out of command
    lines.
  - Afterwards each server and each agent needs the new token in its own configuration, and a restart.
  - Needs root on a server that runs.
options:
  token:
    description:
      - The token that holds now. Secret.
    type: str
    required: true
  new_token:
    description:
      - The token that is to hold. Secret.
    type: str
    required: true
  port:
    description:
      - Port on which the server listens for those that join.
    type: int
    default: 6443
  limit:
    description:
      - Seconds that the server may take.
    type: int
    default: 60
extends_documentation_fragment:
  - edgeha.iotedge.k3s
attributes:
  check_mode:
    support: full
    description: Says whether the token would change.
  diff_mode:
    support: none
    description: A token is a secret.
"""

EXAMPLES = r"""
- name: Change the token
  edgeha.iotedge.k3s_token:
    token: "{{ old }}"
    new_token: "{{ new }}"
  no_log: true
"""

RETURN = r"""
# Nothing but changed: a token is a secret.
"""

import base64
import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_api, k3s_facts, k3s_options, kube_api


class Refused(Exception):  # noqa: N818 - a state that the operator is told of
    """The text is for the operator and holds no token."""


def rotate(params: dict[str, Any]) -> None:
    """Tell the server at this machine; the call that k3s's own command makes."""
    old, new = k3s_facts.token_secret(params["token"]), k3s_facts.token_secret(params["new_token"])
    own = k3s_api.of_data_dir(params["data_dir"], params["port"])
    try:
        api = k3s_api.connect(k3s_api.Access(own.server, own.authority), params["limit"])
        api.send(
            "PUT",
            "/v1-k3s/token",
            json.dumps({"newToken": new}).encode(),
            {
                "Authorization": "Basic " + base64.b64encode(f"server:{old}".encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        api.close()
    except kube_api.KubeError as error:
        raise Refused(_reason(error, (old, new))) from error


def _reason(error: kube_api.KubeError, secrets: tuple[str, str]) -> str:
    if not error.status:
        return error.message
    if error.status in (401, 403):
        return "the server does not accept the token that is said to hold: correct edge_k3s_token"
    said = error.message
    for word in secrets:
        said = said.replace(word, "***")
    return f"the server refuses to change the token: {said}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "token": {"type": "str", "required": True, "no_log": True},
            "new_token": {"type": "str", "required": True, "no_log": True},
            **k3s_options.DATA_DIR,
            "port": {"type": "int", "default": 6443},
            "limit": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    file = Path(module.params["data_dir"]) / "server" / "token"
    try:
        held = file.read_text()
    except OSError as error:
        module.fail_json(msg=f"{file}: {error.strerror}: run this on a server of the cluster")
    wanted = k3s_facts.token_digest(module.params["new_token"])
    changed = k3s_facts.token_digest(held) != wanted
    if changed and not module.check_mode:
        try:
            rotate(module.params)
        except Refused as error:
            module.fail_json(msg=str(error))
        if k3s_facts.token_digest(file.read_text()) != wanted:
            module.fail_json(msg=f"the server said that the token changed, and {file} does not hold it")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
