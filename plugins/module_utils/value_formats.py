# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the value of a public variable must look like, one variable at a time. Pure.

A finding is (fact, fix). Values of secrets, and those that may hold one, never enter it.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.edgeha.iotedge.plugins.module_utils import disk_rules, k3s_config

Finding = tuple[str, str]

# Parts of k3s that `disable` knows.
K3S_PARTS = ("coredns", "local-storage", "metrics-server", "runtimes", "servicelb", "traefik")
# What says in a variable of ours what a key of k3s's configuration says.
INSTEAD: Mapping[str, str] = {
    "cluster-cidr": "edge_cluster_cidr",
    "cluster-domain": "edge_cluster_domain",
    "data-dir": "edge_k3s_data_dir",
    "datastore-endpoint": "edge_k3s_datastore_endpoint",
    "disable": "edge_k3s_disable",
    "etcd-snapshot-retention": "edge_snapshot_retention",
    "etcd-snapshot-schedule-cron": "edge_snapshot_schedule",
    "node-ip": "edge_node_ip",
    "node-label": "edge_node_labels",
    "node-name": "edge_node_name",
    "node-taint": "edge_node_taints",
    "secrets-encryption": "edge_k3s_secrets_encryption",
    "server": "edge_join_url",
    "service-cidr": "edge_service_cidr",
    "tls-san": "edge_cluster_vip",
    "token": "edge_k3s_token",
}
TAINT_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
TOKEN_LEAST = 16
_DATASTORE_PORTS: Mapping[str, int] = {
    "http": 2379, "https": 2379, "nats": 4222, "postgres": 5432, "postgresql": 5432,
}  # fmt: skip
# The API server refuses a network of services with more addresses than 20 bits hold.
SERVICE_BITS = 20
# Each node gets a network of this size from that of the pods.
NODE_PREFIX = 24

_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
DNS_NAME = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_DISK_KEYS = ("device", "filesystem", "mount", "label")
_OPTION_KEY = re.compile(r"[a-z][a-z0-9-]*")
_K3S_VERSION = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+(?:-rc[0-9]+)?\+k3s[0-9]+")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_K3S_TOKEN = re.compile(r"K10[0-9a-f]{64}::[^\s:]+:\S+")
_KUBEADM_TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
# As in the chart's schema: name, port and the first part of the images' names.
_REGISTRY = re.compile(r"[^/\s@](\S*[^/\s])?")
_CA_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,?-]+")
_CRON_WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def is_true(value: Any) -> bool:
    """Whether a boolean, or the text of one, is true."""
    return value is True or str(value).strip().lower() in ("true", "yes", "1", "on")


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping as it is, and anything else, which a check reports, as an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def check(name: str, value: Any) -> list[Finding]:
    """Return what is wrong with a value that has the variable's kind; nothing for one without a format."""
    format_of = FORMATS.get(name)
    return format_of(value) if format_of and value not in (None, "", []) else []


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the known name most like ``name``, empty when none is close."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return matches[0] if matches else ""


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return a network, None when the text is none or has bits of a host."""
    try:
        return ipaddress.ip_network(text.strip()) if "/" in text else None
    except ValueError:
        return None


def networks(text: Any) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks of a comma list; what is none is left out."""
    found = [network(part) for part in str(text or "").split(",")]
    return [entry for entry in found if entry is not None]


def address(text: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, None when the text is none."""
    try:
        return ipaddress.ip_address(str(text).strip())
    except ValueError:
        return None


def k3s_token_hash(token: str) -> str:
    """Return the SHA-256 of the authority that a full k3s token names, empty for a bare one."""
    return token[3:67] if _K3S_TOKEN.fullmatch(token) else ""


def join_token(kind: str, token: str) -> list[Finding]:
    """Return what is wrong with the form of a token for a cluster that is there."""
    if kind == "kubeadm":
        if _KUBEADM_TOKEN.fullmatch(token):
            return []
        return [
            (
                "is no bootstrap token, which is 6 letters or digits, a dot, and 16 more",
                "take the one that 'kubeadm token create' prints",
            )
        ]
    if token.startswith("K10") and not _K3S_TOKEN.fullmatch(token):
        return [
            (
                "begins like a full k3s token and is cut short or changed",
                "copy the whole line of server/node-token in the data folder of a server",
            )
        ]
    return [
        (f"{fact}", "copy the whole line of server/node-token in the data folder of a server")
        for fact, _fix in _spaces(token)
    ]


def join_url(url: str) -> list[Finding]:
    """Return what is wrong with the address of a cluster that is there."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        return [(f"{_shown(url)!r} is not an https address alone", "write it like https://10.7.0.10:6443")]
    return _port(url)


def taint_parts(text: str) -> tuple[str, str, str]:
    """Return key, value and effect of ``key=value:Effect`` or ``key:Effect``."""
    head, _colon, effect = text.rpartition(":")
    key, _equals, value = head.partition("=")
    return key, value, effect


def _shown(url: str) -> str:
    """Return an address without a password in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def _port(url: str) -> list[Finding]:
    try:
        _number = urlsplit(url).port
    except ValueError:
        return [(f"{_shown(url)!r} has no valid port", "ports are 1 to 65535")]
    return []


def _spaces(text: str) -> list[Finding]:
    if re.search(r"\s", text):
        return [("holds a space or a line break", "remove it")]
    return []


def _ipv4(value: str) -> list[Finding]:
    found = address(value)
    if found is None or found.version != 4:
        return [(f"{value!r} is no IPv4 address", "write it like 10.7.0.10, without a mask")]
    if found.is_loopback or found.is_multicast or found.is_unspecified or str(found) == "255.255.255.255":
        return [(f"{value} cannot be the address of a cluster", "take a free one of the servers' network")]
    return []


def _node_ip(value: str) -> list[Finding]:
    found = address(value)
    if found is None or found.version != 4:
        return [(f"{value!r} is no IPv4 address", "name one address of the machine, like 10.7.0.11")]
    return []


def _networks(value: str, service: bool) -> list[Finding]:
    found: list[Finding] = []
    for part in value.split(","):
        parsed = network(part)
        if parsed is None:
            try:
                loose = ipaddress.ip_network(part.strip(), strict=False)
            except ValueError:
                found.append((f"{part.strip()!r} is no network", "write it like 10.42.0.0/16"))
            else:
                hint = (
                    f"did you mean {loose}?"
                    if "/" in part
                    else f"add the size, like {loose.network_address}/16"
                )
                found.append((f"{part.strip()!r} is an address and not a network", hint))
        elif parsed.version != 4:
            fact = f"{parsed} is a network of IPv6, which the clusters made here do not have"
            found.append((fact, "name a network of IPv4, like 10.42.0.0/16"))
        elif service and parsed.max_prefixlen - parsed.prefixlen > SERVICE_BITS:
            fact = f"{parsed} is larger than the API server allows for services"
            found.append((fact, f"take a /{parsed.max_prefixlen - SERVICE_BITS} or smaller"))
        elif not service and parsed.prefixlen > NODE_PREFIX:
            fact = f"{parsed} is too small: each node takes a /{NODE_PREFIX} of it"
            found.append((fact, "take a /16, or one with room for all nodes"))
    if not found and len(networks(value)) > 1:
        found.append(("names several networks", "name one"))
    return found


def _dns_name(value: str) -> list[Finding]:
    if DNS_NAME.fullmatch(value) and len(value) <= 253:
        return []
    return [(f"{value!r} is no DNS name", "use lower-case letters, digits, dashes and dots")]


def _node_name(value: str) -> list[Finding]:
    if len(value) > 63:
        return [(f"{value!r} has {len(value)} characters", "a node's name has at most 63")]
    return _dns_name(value)


def _interface(value: str) -> list[Finding]:
    if _INTERFACE.fullmatch(value):
        return []
    return [(f"{value!r} is no name of an interface", "name one, like eth0")]


def _positive(value: Any) -> list[Finding]:
    if int(value) < 1:
        return [(f"is {value}", "give 1 or more")]
    return []


def _k3s_version(value: str) -> list[Finding]:
    if _K3S_VERSION.fullmatch(value):
        return []
    numbers = re.search(r"[0-9]+\.[0-9]+\.[0-9]+", value)
    release = re.search(r"k3s([0-9]+)", value)
    hint = f"v{numbers.group()}+k3s{release.group(1) if release else 1}" if numbers else "v1.34.4+k3s1"
    return [(f"{value!r} is not the name of a release", f"write it like {hint}")]


def _source(value: str) -> list[Finding]:
    parts = urlsplit(value)
    if "://" not in value:
        return []
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return [(f"{_shown(value)!r} is no http address", "name an https:// address, or a folder here")]
    if "@" in parts.netloc:
        return [(f"{_shown(value)!r} has a user name in it", "a password there would be shown: leave it out")]
    return _port(value)


def _absolute(value: str) -> list[Finding]:
    if not value.startswith("/") or ".." in value.split("/") or re.search(r"\s", value):
        return [(f"{value!r} is no absolute path", "write it like /var/lib/rancher/k3s")]
    if value.rstrip("/").count("/") < 2:
        return [(f"{value!r} is a folder of the system", "take a folder of its own, like /data/k3s")]
    return []


def _pem(value: str, kind: str) -> list[Finding]:
    begins, ends = rf"-----BEGIN (?:[A-Z]+ )?{kind}-----\s", rf"\s-----END (?:[A-Z]+ )?{kind}-----"
    if re.search(rf"{begins}[\s\S]+{ends}", value):
        return []
    return [
        (f"holds no text -----BEGIN {kind}-----", "give the text itself, as a file of PEM has it, not a path")
    ]


def _datastore_endpoint(value: str) -> list[Finding]:
    scheme = value.partition("://")[0]
    known = ("postgres", "postgresql", "mysql", "http", "https", "unix", "nats")
    if "://" not in value or scheme not in known:
        return [
            ("does not begin like a datastore's address", f"begin it with one of {'://, '.join(known)}://")
        ]
    if scheme in ("http", "https") and not all(_is_http(part) for part in value.split(",")):
        return [
            ("has a part that is no address of an etcd", "write it like https://one:2379,https://two:2379")
        ]
    return _spaces(value)


def datastore_places(endpoint: str) -> list[str]:
    """Return HOST:PORT of each place where a datastore answers, and nothing of what is secret.

    An address that can be read in two ways, or in none, gives no place.
    """
    scheme, _separator, rest = endpoint.partition("://")
    if scheme == "mysql":
        address = re.search(r"(?:^|@)tcp\(([^()@]+)\)/[^@]*$", rest)
        return [_with_port(address[1], 3306)] if address else []
    if scheme not in _DATASTORE_PORTS:
        return []
    parts = endpoint.split(",") if scheme in ("http", "https", "nats") else [endpoint]
    places = []
    for part in parts:
        try:
            found = urlsplit(part.strip())
            host, port = found.hostname, found.port or _DATASTORE_PORTS[scheme]
        except ValueError:
            return []
        # A password with / or # in it ends the host too early.
        if host and "@" not in f"{found.path}{found.query}{found.fragment}":
            places.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return places


def _with_port(place: str, port: int) -> str:
    return place if re.search(r":\d+$", place) else f"{place}:{port}"


def _is_http(value: str) -> bool:
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _k3s_token(value: str) -> list[Finding]:
    if len(value) < TOKEN_LEAST:
        return [
            (f"has {len(value)} characters", f"take {TOKEN_LEAST} or more, or leave it out to have one made")
        ]
    if value.startswith("K10") and not _K3S_TOKEN.fullmatch(value):
        return [
            ("begins like a full k3s token and is cut short or changed", "copy all of it, or leave it out")
        ]
    return _spaces(value)


def _options(value: Sequence[Any]) -> list[Finding]:
    found: list[Finding] = []
    for index, entry in enumerate(value):
        key, equals, _text = str(entry).partition("=")
        if not isinstance(entry, str) or not equals or not _OPTION_KEY.fullmatch(key):
            # An option may hold a password.
            found.append((f"item {index} is not key=value", "write it like kubelet-arg=max-pods=60"))
        elif key in k3s_config.OWN_KEYS:
            instead = INSTEAD.get(key)
            found.append((f"sets {key}, which a role sets", f"use {instead}" if instead else "remove it"))
    return found


def _disable(value: Sequence[Any]) -> list[Finding]:
    found: list[Finding] = []
    for entry in value:
        if entry not in K3S_PARTS:
            close = closest(str(entry), K3S_PARTS)
            known = f"known are {', '.join(K3S_PARTS)}"
            found.append(
                (f"{entry!r} is no part of k3s", f"did you mean {close}? {known}" if close else known)
            )
    return found


def _label_key_error(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if slash and not (DNS_NAME.fullmatch(prefix) and len(prefix) <= 253):
        return f"{prefix!r} before the slash is no DNS name"
    return "" if _LABEL_NAME.fullmatch(name) else f"the name {name!r} is not valid"


def _disks(value: Sequence[Any]) -> list[Finding]:
    bad = [index for index, entry in enumerate(value) if not isinstance(entry, Mapping)]
    if bad:
        return [(f"item {bad[0]} is not a mapping", f"give each disk {', '.join(_DISK_KEYS)}")]
    for index, entry in enumerate(value):
        missing = [key for key in _DISK_KEYS if not entry.get(key)]
        surplus = [str(key) for key in entry if key not in _DISK_KEYS]
        if missing or surplus:
            fact = f"has no {missing[0]}" if missing else f"has the key {surplus[0]}, which is not known"
            return [(f"item {index} {fact}", f"give each disk {', '.join(_DISK_KEYS)}")]
    return [(f"{name}: {fact}", fix) for name, fact, fix in disk_rules.wish_problems(disks(value))]


def disks(value: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the disks of a machine as texts, whatever YAML made of them."""
    return [{str(key): str(text) for key, text in entry.items()} for entry in value]


def on_own_disk(disks: Any, path: str) -> bool:
    """Whether a folder will be on one of the disks that are mounted for a node."""
    mounts = [str(entry.get("mount", "")) for entry in disks or [] if isinstance(entry, Mapping)]
    return any(mount and f"{path}/".startswith(f"{mount.rstrip('/')}/") for mount in mounts)


def _labels(value: Sequence[Any]) -> list[Finding]:
    found: list[Finding] = []
    seen: set[str] = set()
    for entry in value:
        key, equals, text = str(entry).partition("=")
        error = "" if isinstance(entry, str) and equals else "is not key=value"
        error = error or _label_key_error(key)
        if not error and text and not _LABEL_NAME.fullmatch(text):
            error = f"the value {text!r} is not valid"
        if error:
            fix = "letters, digits, dots, dashes and underscores, at most 63, like site=plant07"
            found.append((f"{entry!r}: {error}", fix))
        elif key in seen:
            found.append((f"{key} stands twice", "give each label once"))
        seen.add(key)
    return found


def _taints(value: Sequence[Any]) -> list[Finding]:
    found: list[Finding] = []
    for entry in value:
        key, text, effect = taint_parts(str(entry))
        if not isinstance(entry, str) or not key:
            error = "is not key=value:Effect"
        elif effect not in TAINT_EFFECTS:
            error = f"the effect {effect!r} is not one of {', '.join(TAINT_EFFECTS)}"
        else:
            error = _label_key_error(key)
            if not error and text and not _LABEL_NAME.fullmatch(text):
                error = f"the value {text!r} is not valid"
        if error:
            found.append((f"{entry!r}: {error}", "write it like dedicated=gateway:NoSchedule"))
    return found


def _ca_hash(value: str) -> list[Finding]:
    if _CA_HASH.fullmatch(value):
        return []
    return [
        (f"{value!r} is not sha256: and 64 hex digits", "take the one that 'kubeadm token create' prints")
    ]


def _proxy(value: str) -> list[Finding]:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        return [("is not an address of a proxy", "write it like http://proxy.example.org:3128")]
    return _port(value)


def _registry(value: str) -> list[Finding]:
    if "://" not in value and _REGISTRY.fullmatch(value):
        return []
    return [(f"{value!r} is not the address of a registry", "write it like registry.example.org:5000/edge")]


def _no_proxy(value: str) -> list[Finding]:
    found: list[Finding] = []
    for part in value.split(","):
        entry = part.strip()
        if "://" in entry:
            found.append((f"{entry!r} is an address", "name hosts, domains and networks without http://"))
        elif re.search(r"\s", entry):
            found.append((f"{entry!r} holds a space", "separate entries by commas"))
    return found


def _hosts(value: Sequence[Any]) -> list[Finding]:
    return [
        (f"{entry!r} is no host name or address", "write it like time.example.org")
        for entry in value
        if not isinstance(entry, str) or not (_HOST.fullmatch(entry) or address(entry))
    ]


def _cron(value: str) -> list[Finding]:
    fields = value.split()
    if value in _CRON_WORDS or (len(fields) == 5 and all(_CRON_FIELD.fullmatch(field) for field in fields)):
        return []
    return [(f"{value!r} is no schedule of five fields", "write it like 0 */6 * * *")]


FORMATS: Mapping[str, Callable[[Any], list[Finding]]] = {
    "edge_cluster_cidr": lambda value: _networks(value, service=False),
    "edge_cluster_domain": _dns_name,
    "edge_cluster_server_count": _positive,
    "edge_cluster_vip": _ipv4,
    "edge_cluster_vip_interface": _interface,
    "edge_drain_timeout": _positive,
    "edge_http_proxy": _proxy,
    "edge_image_registry": _registry,
    "edge_join_ca_hash": _ca_hash,
    "edge_k3s_agent_options": _options,
    "edge_k3s_data_dir": _absolute,
    "edge_k3s_datastore_ca": lambda value: _pem(value, "CERTIFICATE"),
    "edge_k3s_datastore_certificate": lambda value: _pem(value, "CERTIFICATE"),
    "edge_k3s_datastore_endpoint": _datastore_endpoint,
    "edge_k3s_datastore_key": lambda value: _pem(value, "PRIVATE KEY"),
    "edge_k3s_disable": _disable,
    "edge_k3s_new_token": _k3s_token,
    "edge_k3s_server_options": _options,
    "edge_k3s_source": _source,
    "edge_k3s_token": _k3s_token,
    "edge_k3s_version": _k3s_version,
    "edge_no_proxy": _no_proxy,
    "edge_node_disks": _disks,
    "edge_node_ip": _node_ip,
    "edge_node_labels": _labels,
    "edge_node_name": _node_name,
    "edge_node_taints": _taints,
    "edge_prepare_ntp_servers": _hosts,
    "edge_prepare_reboot_timeout": _positive,
    "edge_service_cidr": lambda value: _networks(value, service=True),
    "edge_snapshot_retention": _positive,
    "edge_snapshot_schedule": _cron,
    "edge_upgrade_agent_batch": _positive,
}
