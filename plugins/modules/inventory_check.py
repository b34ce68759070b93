#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_check
short_description: Check the variables of a cluster host before anything is contacted
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Looks at the public variables of the host it runs for, a member of the group C(edge_clusters), and at
    those of all other hosts as far as they can clash.
  - It reports unknown names that begin with C(edge_) or C(iothub_) with the nearest known name, wrong types,
    modes that this version cannot carry out, variables that are required and missing, gateways that have the
    same name or device, clusters that share a gateway, a device or an address, invalid names and device ids,
    and deployment manifests, kubeconfigs and CA bundles that are missing or invalid.
  - Of the machines of the cluster it judges groups, variables, and what they told in the play before.
  - Problems are returned and are not a failure, so that a play can collect those of all hosts. Values of
    secrets are never returned.
  - Relative paths of files are searched in the folder of the inventory, in the folder of the playbook on the
    command line, and in the folder of the playbook that runs; in each the folder C(files) is searched second.
  - This is an action plugin and runs on the controller.
options:
  helm:
    description:
      - Helm, by name or path. It must be on the controller where there are gateways, and is asked whether the
        chart takes the C(chart_values) that gateways give it.
    type: str
    default: helm
  limits:
    description:
      - What machines must have, with the keys C(clock), C(server_memory), C(agent_memory), C(server_cpus),
        C(agent_cpus), C(server_disk), C(agent_disk) and C(fsync); units are those of the role's variables.
    type: dict
    default: {}
extends_documentation_fragment:
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Check the inventory
  edgeha.iotedge.inventory_check:
    helm: /usr/local/bin/helm
  register: inventory
"""

RETURN = r"""
problems:
  description: What is wrong; empty when all is well.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host it is about.
      type: str
      returned: always
    subject:
      description: The variable or the gateway it is about.
      type: str
      returned: always
    fact:
      description: What is the case.
      type: str
      returned: always
    fix:
      description: What to do about it.
      type: str
      returned: always
machine_problems:
  description: What is wrong with the machines of the cluster, by what M(edgeha.iotedge.machine_check) told.
  returned: always
  type: list
  elements: dict
machines:
  description: The machines of the cluster.
  returned: always
  type: list
  elements: str
joining:
  description: Machines that are to join a cluster, and the version, for P(edgeha.iotedge.join_skew#filter).
  returned: always
  type: dict
usable:
  description: Whether the variables of the hub and of the cluster are good enough to contact them.
  returned: always
  type: dict
  contains:
    iothub:
      description: Whether the hub can be contacted. There must be gateways.
      type: bool
      returned: always
    cluster:
      description: Whether the cluster can be contacted.
      type: bool
      returned: always
"""
