# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one table of the variables that an operator writes. Pure.

Variables are flat: an extra variable replaces a whole mapping, and a survey cannot set a key of one. What a
value must look like beyond its kind stands in ``value_formats``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PREFIXES = ("edge_", "iothub_")


@dataclass(frozen=True)
class Variable:
    """A public variable.

    kind:      ``str``, ``bool``, ``int``, ``list``, ``names`` (a list, or a text with commas) or ``dict``.
    choices:   all values that mean something, empty when any does.
    supported: the choices this version can carry out, None for all.
    secret:    the value is never shown.
    machine:   the value belongs to a machine; all others are read from the host of the cluster.
    """

    kind: str = "str"
    choices: tuple[str, ...] = ()
    supported: tuple[str, ...] | None = None
    secret: bool = False
    machine: bool = False


VARIABLES: Mapping[str, Variable] = {
    "edge_backup_dir": Variable(),
    "edge_ca_bundle": Variable(),
    "edge_cluster": Variable(machine=True),
    "edge_cluster_cidr": Variable(),
    "edge_cluster_domain": Variable(),
    "edge_cluster_mode": Variable(choices=("k3s", "join", "existing")),
    "edge_cluster_server_count": Variable("int"),
    "edge_cluster_vip": Variable(),
    "edge_cluster_vip_interface": Variable(),
    "edge_confirm": Variable(),
    "edge_drain_timeout": Variable("int"),
    "edge_failover_seconds": Variable("int"),
    "edge_status_folder": Variable(),
    "edge_gateway_defaults": Variable("dict"),
    "edge_gateways": Variable("list"),
    "edge_http_proxy": Variable(),
    "edge_image_registry": Variable(),
    "edge_join_ca_hash": Variable(),
    "edge_join_ignore_errors": Variable("list"),
    "edge_join_kind": Variable(choices=("k3s", "kubeadm")),
    "edge_join_source": Variable(),
    "edge_join_token": Variable(secret=True),
    "edge_join_url": Variable(),
    "edge_k3s_agent_options": Variable("list"),
    "edge_k3s_data_dir": Variable(),
    "edge_k3s_datastore": Variable(choices=("embedded", "endpoint")),
    "edge_k3s_datastore_ca": Variable(),
    "edge_k3s_datastore_certificate": Variable(),
    "edge_k3s_datastore_endpoint": Variable(secret=True),
    "edge_k3s_datastore_key": Variable(secret=True),
    "edge_k3s_disable": Variable("list"),
    "edge_k3s_etcd": Variable("bool"),
    "edge_k3s_force_bootstrap": Variable("bool"),
    "edge_k3s_images": Variable("bool"),
    "edge_k3s_lock": Variable(),
    "edge_k3s_new_token": Variable(secret=True),
    "edge_k3s_profile": Variable(choices=("", "cis")),
    "edge_k3s_registries": Variable(secret=True),
    "edge_k3s_secrets_encryption": Variable("bool"),
    "edge_k3s_server_options": Variable("list"),
    "edge_k3s_source": Variable(),
    "edge_k3s_token": Variable(secret=True),
    "edge_k3s_version": Variable(),
    "edge_kubeconfig": Variable(),
    "edge_kubeconfig_write": Variable("bool"),
    "edge_no_proxy": Variable(),
    "edge_node_disks": Variable("list", machine=True),
    "edge_node_ip": Variable(machine=True),
    "edge_node_labels": Variable("list", machine=True),
    "edge_node_name": Variable(machine=True),
    "edge_node_taints": Variable("list", machine=True),
    "edge_nodes": Variable("names"),
    "edge_prepare_cgroups": Variable("bool", machine=True),
    "edge_prepare_extra_packages": Variable("list", machine=True),
    "edge_prepare_firewall": Variable("bool", machine=True),
    "edge_prepare_hosts": Variable("bool", machine=True),
    "edge_prepare_iscsi": Variable("bool", machine=True),
    "edge_prepare_kernel_modules": Variable("list", machine=True),
    "edge_prepare_modules": Variable("bool", machine=True),
    "edge_prepare_multipath": Variable("bool", machine=True),
    "edge_prepare_nfs_client": Variable("bool", machine=True),
    "edge_prepare_ntp_servers": Variable("list", machine=True),
    "edge_prepare_packages": Variable("bool", machine=True),
    "edge_prepare_reboot": Variable("bool", machine=True),
    "edge_prepare_reboot_timeout": Variable("int", machine=True),
    "edge_prepare_security": Variable("bool", machine=True),
    "edge_prepare_selinux_state": Variable(choices=("", "enforcing", "permissive"), machine=True),
    "edge_prepare_swap": Variable("bool", machine=True),
    "edge_prepare_sysctl": Variable("bool", machine=True),
    "edge_prepare_time": Variable("bool", machine=True),
    "edge_prepare_trust": Variable("bool", machine=True),
    "edge_rotate": Variable("names"),
    "edge_service_cidr": Variable(),
    "edge_snapshot": Variable(),
    "edge_snapshot_retention": Variable("int"),
    "edge_snapshot_schedule": Variable(),
    "edge_storage_backend": Variable(choices=("nfs", "longhorn", "class"), supported=("class",)),
    "edge_storage_class": Variable(),
    "edge_storage_nfs_path": Variable(),
    "edge_storage_nfs_server": Variable(),
    "edge_upgrade_agent_batch": Variable("int"),
    "edge_upgrade_hooks_after": Variable("list"),
    "edge_upgrade_hooks_before": Variable("list"),
    "iothub_auth": Variable(choices=("sas", "cli", "service_principal", "managed_identity")),
    "iothub_dps_name": Variable(),
    "iothub_fetch_key": Variable("bool"),
    "iothub_hostname": Variable(),
    "iothub_location": Variable(),
    "iothub_name": Variable(),
    "iothub_policies": Variable("list"),
    "iothub_policy_key": Variable(secret=True),
    "iothub_policy_name": Variable(),
    "iothub_resource_group": Variable(),
    "iothub_resources_scope": Variable(choices=("resources", "resource_group")),
    "iothub_resources_state": Variable(choices=("present", "absent")),
    "iothub_sku": Variable(choices=("F1", "B1", "B2", "B3", "S1", "S2", "S3")),
    "iothub_subscription_id": Variable(),
    "iothub_tags": Variable("dict"),
    "iothub_units": Variable("int"),
}
# What a play uses where the operator says nothing; roles/public_variables holds the same values.
DEFAULTS: Mapping[str, str] = {
    "edge_cluster_cidr": "10.42.0.0/16",
    "edge_cluster_domain": "cluster.local",
    "edge_cluster_mode": "k3s",
    "edge_join_kind": "k3s",
    "edge_k3s_data_dir": "/var/lib/rancher/k3s",
    "edge_k3s_datastore": "embedded",
    "edge_service_cidr": "10.43.0.0/16",
    "edge_storage_backend": "nfs",
    "iothub_auth": "sas",
    "iothub_policy_name": "iothubowner",
}
