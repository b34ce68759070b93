# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be wrong with the variables of a cluster host before anything is contacted. Pure.

A cluster is a host of the group ``edge_clusters``; variables are flat; ``public_variables`` names them all.
Values of secrets never enter a problem.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    deployment,
    gateway_identity,
    iothub_auth,
    iothub_device,
    twin_rules,
    value_formats,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.gateway_identity import (
    CREDENTIAL_KEYS,
    DPS_KEYS,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.manifest_json import ManifestError
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem
from ansible_collections.edgeha.iotedge.plugins.module_utils.public_variables import (
    DEFAULTS,
    PREFIXES,
    VARIABLES,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.value_formats import is_true, mapping

GATEWAY_KEYS: Mapping[str, str] = {
    "address": "str",
    "chart_values": "dict",
    "credential": "dict",
    "deployment": "str",
    "device_id": "str",
    "dps": "dict",
    "exposure": "str",
    "hostname": "str",
    "name": "str",
    "node_selector": "dict",
    "parent": "str",
    "parent_hostname": "str",
    "purge": "bool",
    "standby": "bool",
    "state": "str",
    "storage": "dict",
    "tags": "dict",
}
STORAGE_KEYS = ("access_mode", "class", "size")
STORAGE_DEFAULTS: Mapping[str, str] = {"access_mode": "ReadWriteMany", "size": "1Gi"}
ACCESS_MODES = ("ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
# Values of the chart that other keys of a gateway or variables of its cluster decide.
OWN_CHART_VALUES = (
    "chartDigest",
    "credential",
    "dps",
    "edgeAgent",
    "exposure.address",
    "exposure.type",
    "gateway",
    "image.registry",
    "modules",
    "network",
    "nodeSelector",
    "standby",
    "storage.accessMode",
    "storage.className",
    "storage.size",
    "tolerationSeconds",
    "trustBundle",
)
# How devices reach edgeHub: the type of its Service.
EXPOSURES = ("ClusterIP", "LoadBalancer", "NodePort")

# The chart's own limit: names of Services, which begin with a letter, and of modules are made from it and
# must stay DNS labels.
_GATEWAY_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_HOSTNAME = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
# As in the chart's schema.
_QUANTITY = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi|Ti|k|M|G|T)?")
# What Ansible takes for a boolean where an extra variable is a text.
_BOOLEANS = ("true", "false", "yes", "no", "1", "0")
_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a text", lambda value: isinstance(value, str)),
    "bool": ("true or false", lambda value: isinstance(value, bool) or str(value).lower() in _BOOLEANS),
    "int": (
        "a whole number",
        lambda value: (
            (isinstance(value, int) and not isinstance(value, bool))
            or (isinstance(value, str) and value.strip().isdigit())
        ),
    ),
    "list": ("a list", lambda value: isinstance(value, Sequence) and not isinstance(value, str | bytes)),
    "names": (
        "a list, or a text with commas",
        lambda value: isinstance(value, str | Sequence) and not isinstance(value, bytes),
    ),
    "dict": ("a mapping", lambda value: isinstance(value, Mapping)),
}


@dataclass(frozen=True)
class Unreadable:
    """Stands for the value of a variable whose template failed. reason: one line, without values."""

    reason: str


class FileMissingError(Exception):
    """A file named by a variable was not found. searched: the places, in order."""

    def __init__(self, searched: Sequence[str]) -> None:
        super().__init__("not found")
        self.searched = list(searched)


@dataclass(frozen=True)
class Cluster:
    """One cluster host as far as other clusters can clash with it."""

    host: str
    hub: str = ""
    vip: str = ""
    gateways: Sequence[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Findings:
    """Result of `check_cluster`: problems, and notes on what is valid but has no effect."""

    problems: list[Problem]
    notes: list[str]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like ``name``, None when none is close."""
    return value_formats.closest(name, known) or None


def usable(name: str, value: Any) -> Any:
    """Return the value of a variable when it has the variable's kind, or its default, or None."""
    if isinstance(value, Unreadable):
        return None
    if value is None or value == "":
        return DEFAULTS.get(name)
    return value if _TYPES[VARIABLES[name].kind][1](value) else None


def wants_gateways(values: Mapping[str, Any]) -> bool:
    """Whether a cluster host has gateways. A list that cannot be read is taken for one that holds some."""
    return values.get("edge_gateways") not in (None, "", [])


def check_machine(host: str, values: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the variables of one machine, as `check_cluster` does."""
    check = _Check(host, values, lambda _path: "", lambda _credential: None)
    check.types_and_choices({name for name in VARIABLES if VARIABLES[name].machine and name in values})
    return check.problems


def unknown_variables(host: str, names: Iterable[str], role_variables: Iterable[str]) -> list[Problem]:
    """Return a problem for each name that begins like ours and is none of ours.

    role_variables: options of our roles whose names begin like public ones (``edge_runtime_timeout``).
    """
    found = []
    for name, match in misspelt(names, role_variables).items():
        fix = f"did you mean {match}?" if match else "remove it, or give it another prefix"
        found.append(Problem(host, f"variable {name}", "no variable of that name is known", fix))
    return found


def misspelt(names: Iterable[str], role_variables: Iterable[str]) -> dict[str, str | None]:
    """Return for each name that begins like ours and is none of ours the one that may be meant."""
    known = {*VARIABLES, *role_variables}
    return {
        name: nearest(name, known)
        for name in sorted(set(names))
        if name.startswith(PREFIXES) and name not in known
    }


def without_consequences(problems: Iterable[Problem], meant: Iterable[str | None]) -> list[Problem]:
    """Leave out what follows from variables that are written in another way, and so are not set.

    meant: names that a host may have meant and has not; that it has not, or has the default, is no fault.
    """
    names = [name for name in meant if name]
    return [
        p
        for p in problems
        if not any(
            (p.subject == f"variable {name}" and p.fact.startswith("is not set"))
            or re.search(rf"\band {name} is ", p.fact)
            for name in names
        )
    ]


def normalise_gateways(entries: Any, defaults: Any = None, storage_class: str = "") -> list[dict[str, Any]]:
    """Return ``edge_gateways`` with the defaults applied.

    Each entry gets name, device_id (default: name), namespace (``edge-NAME``), state (default: present),
    tags (None when not given), deployment, standby and purge (default: false), node_selector, chart_values,
    address (by default empty), exposure (default: ClusterIP), what `gateway_identity.normalised` returns, and
    storage (``{"class": str, "size": str, "access_mode": str}``, by default the class ``storage_class``, 1Gi
    and ReadWriteMany). Entries that are no mappings or have no name
    are left out: `check_cluster` reports them.
    """
    result = []
    base = defaults if isinstance(defaults, Mapping) else {}
    for entry in entries if _TYPES["list"][1](entries) else []:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
            continue
        merged = {**base, **entry}
        storage = {"class": storage_class, **STORAGE_DEFAULTS, **mapping(merged.get("storage"))}
        device_id = merged.get("device_id") or merged["name"]
        result.append(
            {
                "name": merged["name"],
                "device_id": device_id,
                "namespace": f"edge-{merged['name']}",
                "state": merged.get("state", "present"),
                "tags": merged.get("tags"),
                "deployment": merged.get("deployment"),
                "standby": is_true(merged.get("standby")),
                "purge": is_true(merged.get("purge")),
                "node_selector": mapping(merged.get("node_selector")),
                "address": merged.get("address") or "",
                "exposure": merged.get("exposure") or EXPOSURES[0],
                "chart_values": mapping(merged.get("chart_values")),
                "storage": {key: str(storage[key] or "") for key in STORAGE_KEYS},
                **gateway_identity.normalised(merged, device_id),
            }
        )
    # A gateway that is named as a parent is reached by the name that it has itself.
    hostnames = {gateway["device_id"]: gateway["hostname"] or gateway["name"] for gateway in result}
    for gateway in result:
        parent = gateway["device"].get("parent")
        if parent in hostnames and gateway["parent_hostname"] == parent:
            gateway["parent_hostname"] = hostnames[parent]
    return result


def storage_classes(gateways: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return ``{"name": str, "access_modes": [str]}`` for each storage class that gateways ask for."""
    modes: dict[str, set[str]] = {}
    for gateway in gateways:
        if gateway["state"] == "present" and gateway["storage"]["class"]:
            modes.setdefault(gateway["storage"]["class"], set()).add(gateway["storage"]["access_mode"])
    return [{"name": name, "access_modes": sorted(found)} for name, found in sorted(modes.items())]


def check_cluster(
    host: str,
    values: Mapping[str, Any],
    *,
    read_file: Callable[[str], str],
    file_error: Callable[[str], str | None],
    certificate_error: Callable[[str], str | None],
    credential_error: Callable[[Mapping[str, Any]], str | None],
    kubeconfig_in_environment: bool = False,
) -> Findings:
    """Return everything that is wrong with the variables of one cluster host.

    values:            public variables that are set, templated; `Unreadable` where the template failed.
    read_file:         returns the text of a file named by a variable; raises FileMissingError or OSError.
    file_error:        returns why a file cannot be read, None when it can.
    certificate_error: returns what is wrong with a PEM file of certificates, None when it is good.
    credential_error:  returns what is wrong with the files of a credential, None when they are good.
    """
    check = _Check(host, values, read_file, credential_error)
    check.types_and_choices(VARIABLES)
    check.required(kubeconfig_in_environment)
    check.hub()
    check.file("edge_ca_bundle", certificate_error, "name a PEM file with CA certificates on the controller")
    if check.get("edge_cluster_mode") != "k3s":
        check.file("edge_kubeconfig", file_error, "name a kubeconfig file on the controller")
    check.gateways()
    return Findings(check.problems, check.notes)


def clashes(clusters: Sequence[Cluster]) -> list[Problem]:
    """Return a problem for each cluster host that shares a gateway, a device of one hub, or an address."""
    found: list[Problem] = []
    owners: dict[tuple[str, str], list[str]] = {}
    for cluster in clusters:
        for key in _claims(cluster):
            owners.setdefault(key, []).append(cluster.host)
    for (kind, name), hosts in owners.items():
        distinct = sorted(set(hosts))
        for host in distinct if len(distinct) > 1 else []:
            others = ", ".join(other for other in distinct if other != host)
            found.append(
                Problem(
                    host,
                    f"{kind} {name}",
                    f"is also in the cluster {others}",
                    f"give each {kind} to one cluster",
                )
            )
    return found


def _claims(cluster: Cluster) -> set[tuple[str, str]]:
    claims = {("address", cluster.vip)} if cluster.vip else set()
    for gateway in cluster.gateways:
        if gateway.get("state") != "absent":
            claims.add(("gateway", str(gateway["name"])))
            claims.add(("device", f"{gateway['device_id']} at {cluster.hub or 'its hub'}"))
            if gateway.get("address"):
                claims.add(("address", str(gateway["address"])))
    return claims


class _Check:
    def __init__(
        self,
        host: str,
        values: Mapping[str, Any],
        read_file: Callable[[str], str],
        credential_error: Callable[[Mapping[str, Any]], str | None],
    ) -> None:
        self.host = host
        self.values = values
        self.read_file = read_file
        self.credential_error = credential_error
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def add(self, subject: str, fact: str, fix: str) -> None:
        self.problems.append(Problem(self.host, subject, fact, fix))

    def get(self, name: str) -> Any:
        """Return a usable value, or the default, or None."""
        return usable(name, self.values.get(name))

    def has_no_gateways(self) -> bool:
        """Whether the list is there and empty."""
        return not self.get("edge_gateways") and self.get("edge_gateways") is not None

    def given(self, name: str) -> bool:
        return self.values.get(name) not in (None, "")

    def types_and_choices(self, names: Collection[str]) -> None:
        for name, rule in VARIABLES.items():
            value = self.values.get(name)
            if name not in names or (name == "edge_storage_backend" and self.has_no_gateways()):
                continue
            if isinstance(value, Unreadable):
                self.add(
                    f"variable {name}", f"cannot be evaluated: {value.reason}", "define what it refers to"
                )
                continue
            if value is None:
                value = DEFAULTS.get(name)
            if value is None:
                continue
            text, is_type = _TYPES[rule.kind]
            if not is_type(value):
                self.add(f"variable {name}", f"is {_kind(value)}, not {text}", f"make it {text}")
            elif rule.choices and value not in rule.choices:
                match = nearest(str(value), rule.choices)
                hint = f"did you mean {match}? " if match else ""
                self.add(f"variable {name}", f"is {value!r}", f"{hint}possible are {', '.join(rule.choices)}")
            elif rule.supported and value not in rule.supported:
                how = "is" if self.given(name) else "is not set, so it is"
                self.add(
                    f"variable {name}",
                    f"{how} {value!r}, which is not in this version yet",
                    f"set it to {' or '.join(rule.supported)}",
                )
            else:
                for fact, fix in value_formats.check(name, value):
                    self.add(f"variable {name}", fact, fix)

    def required(self, kubeconfig_in_environment: bool) -> None:
        wanted = ["edge_gateways"]
        # A cluster may be there before its gateways are.
        if not self.has_no_gateways():
            wanted += ["edge_image_registry", "iothub_hostname"]
            if self.get("iothub_auth") == "sas":
                wanted.append("iothub_policy_key")
            if self.get("edge_storage_backend") == "class":
                wanted.append("edge_storage_class")
        # A k3s of ours tells how it is reached.
        if self.get("edge_cluster_mode") in ("join", "existing") and not kubeconfig_in_environment:
            wanted.append("edge_kubeconfig")
        for name in wanted:
            if not self.given(name):
                extra = " or export K8S_AUTH_KUBECONFIG" if name == "edge_kubeconfig" else ""
                self.add(f"variable {name}", "is not set", f"set it in the inventory{extra}")
        cluster = self.get("edge_cluster")
        if cluster and cluster != self.host:
            self.add(
                "variable edge_cluster",
                f"is {cluster!r} on the cluster host {self.host}",
                "a cluster host is its own cluster: set it on machines only",
            )

    def hub(self) -> None:
        hostname = self.get("iothub_hostname")
        if hostname and not _HOSTNAME.fullmatch(hostname):
            self.add(
                "variable iothub_hostname",
                f"{hostname!r} is not a host name",
                "give the name alone, such as contoso.azure-devices.net, without https:// and path",
            )
        # Helm keeps it in the cluster, and the pods of the gateways have it in their environment.
        if "@" in (self.get("edge_http_proxy") or "") and not self.has_no_gateways():
            self.add(
                "variable edge_http_proxy",
                "holds a user name, and gateways show their proxy to all who may see their pods",
                "name a proxy that asks for none",
            )
        key = self.get("iothub_policy_key")
        if key:
            try:
                iothub_auth.decode_key(key)
            except iothub_auth.CredentialError as error:
                self.add(
                    "variable iothub_policy_key", str(error), "copy the policy's primary key from the hub"
                )

    def file(self, name: str, error_of: Callable[[str], str | None], fix: str) -> None:
        path = self.get(name)
        error = error_of(path) if path else None
        if error:
            self.add(f"variable {name}", error, fix)

    def gateways(self) -> None:
        entries = self.get("edge_gateways") or []
        defaults = self.get("edge_gateway_defaults") or {}
        for key in defaults:
            if key not in GATEWAY_KEYS or key in ("name", "device_id"):
                self.unknown_key(
                    "variable edge_gateway_defaults", str(key), set(GATEWAY_KEYS) - {"name", "device_id"}
                )
        names: dict[str, int] = {}
        devices: dict[str, str] = {}
        addresses: dict[str, str] = {}
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                self.add(
                    f"edge_gateways[{index}]", f"is {_kind(entry)}, not a mapping", "begin it with name:"
                )
                continue
            name = entry.get("name")
            if not isinstance(name, str) or not name:
                self.add(f"edge_gateways[{index}]", "has no name", "give it a name")
                continue
            subject = f"gateway {name}"
            if name in names:
                self.add(
                    subject,
                    f"stands twice in edge_gateways (items {names[name]} and {index})",
                    "give each gateway a name of its own",
                )
                continue
            names[name] = index
            merged = {**defaults, **entry}
            self.gateway(subject, merged)
            device, address = entry.get("device_id") or name, merged.get("address")
            if isinstance(device, str):
                self.one_each(devices, device, name, f"the device id {device!r}", "a device")
            if isinstance(address, str) and address:
                self.one_each(addresses, address, name, f"the address {address}", "an address")

    def one_each(self, taken: dict[str, str], value: str, name: str, what: str, kind: str) -> None:
        """Refuse a value that another gateway has; note it for the gateways to come."""
        if value in taken:
            self.add(
                f"gateway {name}",
                f"has {what}, as gateway {taken[value]} has",
                f"give each gateway {kind} of its own",
            )
        taken.setdefault(value, name)

    def gateway(self, subject: str, entry: Mapping[str, Any]) -> None:
        for key, value in entry.items():
            if key not in GATEWAY_KEYS:
                self.unknown_key(subject, str(key), set(GATEWAY_KEYS))
            elif value is not None and not _TYPES[GATEWAY_KEYS[key]][1](value):
                text = _TYPES[GATEWAY_KEYS[key]][0]
                self.add(subject, f"{key} is {_kind(value)}, not {text}", f"make it {text}")
        if not _GATEWAY_NAME.fullmatch(entry["name"]):
            self.add(
                subject,
                "the name is not a DNS label of at most 40 characters",
                "use lower-case letters, digits and dashes, begin with a letter and end with one or a digit",
            )
        device_id = entry.get("device_id")
        if isinstance(device_id, str) and device_id:
            error = iothub_device.device_id_error(device_id)
            if error:
                self.add(subject, error, "correct device_id, or leave it out to use the gateway's name")
        if isinstance(entry.get("tags"), Mapping):
            for error in twin_rules.errors(entry["tags"], "tags", nulls=True):
                self.add(subject, error, "correct the tags")
        for key, known in (("credential", CREDENTIAL_KEYS), ("dps", DPS_KEYS)):
            for inner in mapping(entry.get(key)):
                if inner not in known:
                    self.unknown_key(subject, f"{key}.{inner}", {f"{key}.{name}" for name in known})
        for fact, fix in gateway_identity.errors(entry):
            self.add(subject, fact, fix)
        self.chart_values(subject, entry.get("chart_values"))
        self.storage(subject, entry.get("storage"))
        self.standby(subject, entry)
        selector = entry.get("node_selector")
        if isinstance(selector, Mapping) and not all(isinstance(value, str) for value in selector.values()):
            self.add(subject, "node_selector has values that are no texts", "quote them: plant: '7'")
        state = entry.get("state", "present")
        if is_true(entry.get("purge")) and state != "absent":
            self.add(
                subject,
                "purge is true, and its state is not absent",
                "purge deletes what a removed gateway leaves behind: add state: absent, or remove purge",
            )
        if state not in ("present", "absent"):
            self.add(subject, f"state is {state!r}", "possible are present and absent")
        elif state == "absent":
            if self.get("edge_confirm") != self.host:
                self.add(
                    subject,
                    "state is absent, which removes the gateway and its device",
                    f"confirm it with -e edge_confirm={self.host}",
                )
            return
        credential = mapping(entry.get("credential"))
        if credential.get("key_file"):
            error = self.credential_error(credential)
            if error:
                self.add(subject, error, "correct credential.certificate_file and credential.key_file")
        manifest = self.deployment(subject, entry.get("deployment"))
        self.exposure(subject, entry, manifest)

    def exposure(self, subject: str, entry: Mapping[str, Any], manifest: deployment.Manifest | None) -> None:
        address, exposure = entry.get("address"), entry.get("exposure")
        if isinstance(address, str) and address and not _is_ipv4(address):
            self.add(subject, f"address {address!r} is not an IPv4 address", "write it like 10.7.0.20")
        if isinstance(exposure, str) and exposure and exposure not in EXPOSURES:
            self.add(subject, f"exposure is {exposure!r}", f"possible are {', '.join(EXPOSURES)}")
        if (address or exposure) and manifest is not None and manifest.edge_agent is None:
            given = "address" if address else "exposure"
            self.add(
                subject,
                f"has {given}, and its deployment has no edgeHub that devices could reach",
                f"give the manifest systemModules, or remove {given}",
            )

    def storage(self, subject: str, storage: Any) -> None:
        if not isinstance(storage, Mapping):
            return
        for key, value in storage.items():
            if key not in STORAGE_KEYS:
                self.unknown_key(subject, f"storage.{key}", {f"storage.{known}" for known in STORAGE_KEYS})
            elif key == "access_mode" and value not in ACCESS_MODES:
                self.add(
                    subject, f"storage.access_mode is {value!r}", f"possible are {', '.join(ACCESS_MODES)}"
                )
            elif key == "size" and not _QUANTITY.fullmatch(str(value)):
                self.add(subject, f"storage.size {value!r} is not a size", "write it like 1Gi")

    def chart_values(self, subject: str, values: Any) -> None:
        """Refuse values that something else decides: one of both would count in silence."""
        for key, value in mapping(values).items():
            inner = [f"{key}.{name}" for name in value] if isinstance(value, Mapping) else []
            for name in {key, *inner}.intersection(OWN_CHART_VALUES):
                self.add(
                    subject,
                    f"chart_values has {name}, which keys of the gateway or variables decide",
                    "remove it there; docs/variables.md tells which",
                )

    def standby(self, subject: str, entry: Mapping[str, Any]) -> None:
        mode = mapping(entry.get("storage")).get("access_mode", STORAGE_DEFAULTS["access_mode"])
        if is_true(entry.get("standby")) and mode in ACCESS_MODES[1:]:
            self.add(
                subject,
                f"has a standby, and its storage.access_mode is {mode}",
                "a standby's machine mounts the volumes too: use ReadWriteMany, or leave standby out",
            )

    def deployment(self, subject: str, path: Any) -> deployment.Manifest | None:
        """Return the manifest where there is one that can be read."""
        if path is None or path == "":
            self.add(
                subject, "has no deployment", "name its deployment manifest: deployment: files/NAME.json"
            )
            return None
        if not isinstance(path, str):
            return None
        try:
            manifest = deployment.parse(self.read_file(path))
        except FileMissingError as error:
            self.add(
                subject,
                f"the deployment file {path} does not exist (searched: {', '.join(error.searched)})",
                "create it, or correct the path; paths are relative to the inventory or the playbook",
            )
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self.add(subject, f"the deployment file {path} cannot be read: {reason}", "make it readable")
        except ManifestError as error:
            for line in error.errors:
                self.add(subject, f"the deployment file {path} is not valid: {line}", "correct the manifest")
        else:
            self.notes.extend(f"{subject}: {path}: {note}" for note in manifest.notes)
            return manifest
        return None

    def unknown_key(self, subject: str, key: str, known: set[str]) -> None:
        match = nearest(key, known)
        fix = f"did you mean {match}?" if match else f"known are {', '.join(sorted(known))}"
        self.add(subject, f"the key {key} is not known", fix)


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _kind(value: Any) -> str:
    """Name the type of a value without showing the value."""
    for kind in ("dict", "list"):
        if _TYPES[kind][1](value):
            return _TYPES[kind][0]
    if isinstance(value, bool):
        return "a boolean"
    return {"int": "a number", "float": "a number", "NoneType": "empty"}.get(type(value).__name__, "a text")
