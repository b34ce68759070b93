# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: iothub
short_description: Devices of an Azure IoT Hub as hosts
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Makes a host of every device of a hub, by queries of a thousand devices each.
  - A host has the variables C(iothub_device_id), C(iothub_tags), C(iothub_edge), C(iothub_status),
    C(iothub_status_reason), C(iothub_connected), C(iothub_last_activity), C(iothub_authentication),
    C(iothub_device_scope) and C(iothub_parent_scopes). Keys are never among them.
  - Hosts are in the group C(iothub) and there in C(iothub_edge) or C(iothub_leaf), C(iothub_connected) or
    C(iothub_disconnected), and C(iothub_enabled) or C(iothub_disabled).
  - What a query finds is late by seconds, and a deleted device may be found for half an hour.
  - The name of the file ends in C(iothub.yml) or C(iothub.yaml).
options:
  plugin:
    description:
      - Name of this plugin.
    type: str
    required: true
    choices: [edgeha.iotedge.iothub]
  query:
    description:
      - Condition of the hub's query language, without C(WHERE), such as V(tags.site = 'plant07').
      - All devices when not given.
    type: str
  properties:
    description:
      - Properties of the twins to read too, as C(iothub_desired) and C(iothub_reported). They may be large,
        and they are shown to everybody who may read the inventory.
    type: list
    elements: str
    choices: [desired, reported]
    default: []
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - Options of the hub may be templates, for example to look up the key.
  - The policy needs the right ServiceConnect, such as V(service) has it.
  - Whether a gateway is connected is that of its device; its modules connect on their own.
"""

EXAMPLES = r"""
# plants.iothub.yml: all edge devices of two plants, in groups such as site_plant07
plugin: edgeha.iotedge.iothub
hostname: contoso.azure-devices.net
policy_name: service
policy_key: "{{ lookup('ansible.builtin.env', 'HUB_KEY') }}"
query: capabilities.iotEdge = true AND tags.site IN ['plant07', 'plant08']
keyed_groups:
  - key: iothub_tags.site
    prefix: site
groups:
  spare: iothub_status == 'disabled'
compose:
  ansible_host: iothub_tags.address | default(iothub_device_id)
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/iothub
cache_timeout: 300
"""

import hashlib
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    device_rows,
    iothub_auth,
    iothub_module,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import iothub_options

GROUP = "iothub"


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]  # no types there
    NAME = "edgeha.iotedge.iothub"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith(("iothub.yml", "iothub.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path)
        self._read_config_data(path)
        text = device_rows.query_text(self.get_option("query"), self.get_option("properties"))
        # What was read for another query is no answer to this one.
        key = f"{self.get_cache_key(path)}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        caching = self.get_option("cache")
        rows: list[dict[str, Any]] | None = None
        if caching and cache:
            try:
                rows = self._cache[key]
            except KeyError:
                # Nothing there yet, or it is too old.
                rows = None
        if rows is None:
            rows = self._read(text)
            if caching:
                self._cache[key] = rows
        self._add(rows)

    def _read(self, text: str) -> list[dict[str, Any]]:
        try:
            client = iothub_options.client({name: self._value(name) for name in iothub_options.NAMES})
            return list(client.query(text))
        except (iothub_options.OptionError, iothub_auth.CredentialError, rest_client.ServiceError) as error:
            raise AnsibleParserError(f"inventory iothub: {iothub_module.explain(error)}") from error

    def _value(self, name: str) -> Any:
        value = self.get_option(name)
        return self.templar.template(value) if isinstance(value, str) else value

    def _add(self, rows: list[dict[str, Any]]) -> None:
        strict, sections = self.get_option("strict"), self.get_option("properties")
        self.inventory.add_group(GROUP)
        for row in rows:
            host = self.inventory.add_host(str(row["deviceId"]), group=GROUP)
            variables = device_rows.host_variables(row, sections)
            for group in device_rows.groups(variables):
                self.inventory.add_group(group)
                self.inventory.add_child(GROUP, group)
                self.inventory.add_host(host, group=group)
            # A device writes its own reported properties: what they hold must never be run as a template.
            variables = wrap_var(variables)
            for name, value in variables.items():
                self.inventory.set_variable(host, name, value)
            self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)
