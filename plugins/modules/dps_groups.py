#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dps_groups
short_description: Manage enrollment groups of an Azure Device Provisioning Service
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Creates, changes and deletes a list of enrollment groups.
  - The whole list is checked before the first group is changed. An invalid or repeated group is an error that
    names the item.
  - An update keeps the keys that are there. Each change carries the version that was read, so that one made
    by somebody else meanwhile is an error and never overwritten.
  - When some fail, the others are done all the same. An interrupted run is finished by the next.
  - The key of one device of a group with symmetric keys is derived from the group's, see the filter
    P(edgeha.iotedge.derive_device_key#filter).
options:
  groups:
    description:
      - The groups, each once.
    type: list
    elements: dict
    required: true
    suboptions:
      group_id:
        description:
          - Id of the group, 1 to 128 ASCII letters, digits and C(-:._), ending in a letter, a
            digit or a dash. Case does not count.
        type: str
        required: true
      state:
        description:
          - Whether it is to exist. V(absent) does not delete the devices that were registered by it.
        type: str
        choices: [present, absent]
        default: present
      attestation:
        description:
          - How the devices of the group show that they are enrolled. Needed for a new one; left out, what is
            there is kept.
          - The type of one that is there cannot be changed.
        type: dict
        suboptions:
          type:
            description:
              - V(symmetric_key) is a pair of keys from which each device's is derived, V(x509) an authority
                that
                signs the devices' certificates.
            type: str
            choices: [symmetric_key, x509]
            required: true
          primary_key:
            description:
              - Key in base64, 16 to 64 bytes. Give both keys or none.
              - Without keys the service makes them, and those that are there are kept.
              - A key that is given here is hidden in every result of the task, with O(return_keys=true) too.
            type: str
          secondary_key:
            description:
              - The second key, as the first.
            type: str
          primary_certificate:
            description:
              - Certificate of an intermediate authority that signs the devices' certificates, the PEM text
                of one certificate.
              - The service keeps its fingerprint, by which it is compared.
            type: str
          secondary_certificate:
            description:
              - The certificate that follows the first. Left out while the first is given, there is none.
            type: str
          primary_ca:
            description:
              - Name of a verified authority that the service has, in place of
                O(groups[].attestation.primary_certificate).
            type: str
          secondary_ca:
            description:
              - Name of the authority that follows the first.
            type: str
      edge:
        description:
          - Whether the devices are IoT Edge devices. They are none by default.
        type: bool
      status:
        description:
          - Whether devices may be registered by it, V(enabled) by default.
        type: str
        choices: [enabled, disabled]
      allocation_policy:
        description:
          - How one of the hubs is chosen. Left out, it stays as it is, at first the service's own policy.
          - V(static) takes exactly one of O(groups[].iot_hubs), V(custom) asks O(groups[].webhook).
        type: str
        choices: [hashed, geo_latency, static, custom]
      iot_hubs:
        description:
          - Host names of the hubs that come into question; they must be linked to the service.
          - Left out, they stay as they are, at first all that are linked.
        type: list
        elements: str
      webhook:
        description:
          - The function that chooses the hub with O(groups[].allocation_policy=custom).
        type: dict
        suboptions:
          url:
            description:
              - Its address, beginning with C(https://). Of an address with a key in it, the key is never
                shown.
            type: str
            required: true
          api_version:
            description:
              - Version of the API that it is called with.
            type: str
            default: "2021-10-01"
      reprovision_policy:
        description:
          - What happens when a device asks again.
        type: dict
        suboptions:
          update_hub_assignment:
            description:
              - Choose the hub anew. True at first.
            type: bool
          migrate_device_data:
            description:
              - Take the device's twin along to a new hub. True at first.
            type: bool
      initial_twin:
        description:
          - What the twin of a new device begins with. Each part that is given replaces the one that is there.
          - It is set once, when a device is registered; see M(edgeha.iotedge.iothub_twins) for later.
        type: dict
        suboptions:
          tags:
            description:
              - Tags, with the rules of O(edgeha.iotedge.iothub_twins#module:twins[].tags).
            type: dict
          desired:
            description:
              - Desired properties, with the same rules.
            type: dict
  return_keys:
    description:
      - Return symmetric keys in RV(groups[].primary_key) and RV(groups[].secondary_key), which is one more
        call for
        each.
      - The task has to set C(no_log=true), or it is refused, because the keys would be printed and logged.
    type: bool
    default: false
extends_documentation_fragment:
  - edgeha.iotedge.dps
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.dps.attributes
attributes:
  check_mode:
    description: Reads the service and says what would change.
    support: full
  diff_mode:
    description: Shows each group that changes before and after, without keys.
    support: full
seealso:
  - module: edgeha.iotedge.dps_enrollments
  - plugin: edgeha.iotedge.derive_device_key
    plugin_type: filter
"""

EXAMPLES = r"""
- name: A group whose devices derive their keys
  edgeha.iotedge.dps_groups:
    hostname: contoso.azure-devices-provisioning.net
    policy_key: "{{ vault_dps_policy_key }}"
    groups:
      - group_id: gateways
        attestation:
          type: symmetric_key
        edge: true
        allocation_policy: static
        iot_hubs: [contoso.azure-devices.net]
        initial_twin:
          tags:
            site: unknown
    return_keys: true
  no_log: true
  register: made

- name: Show nobody the key of one gateway, and use it
  ansible.builtin.set_fact:
    device_key: "{{ made.groups[0].primary_key | edgeha.iotedge.derive_device_key('plant07-gw') }}"
  no_log: true

- name: A group of all devices with a certificate of this authority
  edgeha.iotedge.dps_groups:
    hostname: contoso.azure-devices-provisioning.net
    policy_key: "{{ vault_dps_policy_key }}"
    groups:
      - group_id: sensors
        attestation:
          type: x509
          primary_certificate: "{{ lookup('ansible.builtin.file', 'plant-ca.pem') }}"
"""

RETURN = r"""
groups:
  description: The list in its order, as the groups are now (in check mode, as they would be).
  returned: success
  type: list
  elements: dict
  contains:
    group_id:
      description: Its id.
      type: str
      returned: always
    state:
      description: V(present) or V(absent).
      type: str
      returned: always
    action:
      description: What was done, one of V(none), V(create), V(update) and V(delete).
      type: str
      returned: always
    attestation:
      description: C(type), and fingerprints and names of certificates.
      type: dict
      returned: when it is present
    edge:
      description: Whether they are IoT Edge devices.
      type: bool
      returned: when it is present
    status:
      description: V(enabled) or V(disabled).
      type: str
      returned: when it is present
    allocation_policy:
      description: As in the option, null for the service's own policy.
      type: str
      returned: when it is present
    iot_hubs:
      description: The hubs that come into question, sorted; empty for all.
      type: list
      elements: str
      returned: when it is present
    webhook:
      description: C(url) without its query, and C(api_version); null when there is none.
      type: dict
      returned: when it is present
    reprovision_policy:
      description: As in the option.
      type: dict
      returned: when it is present
    initial_twin:
      description: C(tags) and C(desired).
      type: dict
      returned: when it is present
    primary_key:
      description: Primary key in base64, null for other attestations.
      type: str
      returned: when O(return_keys=true) and it exists
    secondary_key:
      description: Secondary key in base64, null for other attestations.
      type: str
      returned: when O(return_keys=true) and it exists
"""

from ansible_collections.edgeha.iotedge.plugins.module_utils import dps_enrollment, dps_module


def main() -> None:
    dps_module.run(dps_enrollment.GROUPS)


if __name__ == "__main__":
    main()
