# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the daemon, from environment variables that the chart sets. Secrets come from files only."""

from __future__ import annotations

import ipaddress
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .create_options import audience

# A gateway is there once or twice, the second time as a standby.
SLOTS = ("a", "b")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
# Rule of IoT Hub: 1-128 characters, ASCII letters and digits and - : . + % _ # * ? ! ( ) , = @ ; $ '
DEVICE_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")


class SettingsError(Exception):
    """The environment does not describe a gateway; the message lists every problem."""


@dataclass(frozen=True)
class Dps:
    """A registration at the Device Provisioning Service.

    `group`: the key is that of an enrollment group, and the device's own key is derived from it.
    """

    endpoint: str
    id_scope: str
    registration_id: str
    group: bool


@dataclass(frozen=True)
class Settings:
    """Everything the daemon is told from outside.

    Durations are in seconds. `https_proxy` is a URL or empty; `no_proxy` holds host names, suffixes with a
    leading dot, addresses and networks (CIDR). With `dps` device and hub are empty until it was asked.
    `parent_hostname`: the gateway above this one, which passes its calls on to the hub, or empty.
    `check_caller_address`: whether a token counts from the addresses of its own pod alone.
    `slots` are all that the gateway has, and `slot` is the daemon's own. `pull_seconds`: how long an update
    waits for its image, 0 not at all.
    """

    release: str
    namespace: str
    pod_name: str
    pod_uid: str
    node_name: str
    device_id: str
    iothub_hostname: str
    gateway_hostname: str
    parent_hostname: str
    gateway_service: str
    dps: Dps | None
    device_key_file: Path | None
    device_certificate_file: Path | None
    device_private_key_file: Path | None
    state_dir: Path
    trust_bundle_file: Path
    manifest_trust_file: Path | None
    edge_ca_certificate_file: Path | None
    edge_ca_key_file: Path | None
    proxy_image: str
    image_pull_policy: str
    image_pull_secrets: tuple[str, ...]
    priority_class: str
    standby_priority_class: str
    toleration_seconds: int
    storage_class: str
    storage_access_mode: str
    module_volume_size: str
    own_secrets: tuple[str, ...]
    https_proxy: str
    no_proxy: tuple[str, ...]
    workload_port: int
    management_port: int
    health_port: int
    lock_timeout: int
    log_level: str
    slot: str
    slots: tuple[str, ...]
    daemon_image: str
    node_selector: tuple[tuple[str, str], ...]
    keep_images: bool
    pull_seconds: int
    check_caller_address: bool

    @property
    def daemon_name(self) -> str:
        """Name of the daemon's ServiceAccount and Service."""
        return f"{self.release}-daemon"

    @property
    def modules_config_map(self) -> str:
        """Name of the ConfigMap with the module set."""
        return f"{self.release}-modules"

    @property
    def audience(self) -> str:
        """Audience that a module's token must be made for; a token for anything else opens nothing here."""
        return audience(self.release)

    @property
    def parent_host(self) -> str:
        """The parent's name without a port: what modules and images call it."""
        return urllib.parse.urlsplit(f"//{self.parent_hostname}").hostname or ""

    @property
    def daemon_host(self) -> str:
        """Host name of the daemon's Service in the cluster."""
        return f"{self.daemon_name}.{self.namespace}.svc"

    @property
    def workload_url(self) -> str:
        """Where the sidecars find the workload API."""
        return f"https://{self.daemon_host}:{self.workload_port}"

    @property
    def management_url(self) -> str:
        """Where edgeAgent's sidecar finds the management API."""
        return f"https://{self.daemon_host}:{self.management_port}"

    def assigned(self, device_id: str, iothub_hostname: str) -> Settings:
        """These settings for the device and the hub that the provisioning service gave."""
        return replace(
            self,
            device_id=device_id,
            iothub_hostname=iothub_hostname,
            gateway_hostname=self.gateway_hostname or iothub_hostname,
        )

    def proxy_for(self, host: str) -> str | None:
        """URL of the proxy for an HTTPS request to `host` (with its port or without), None to go directly."""
        name = urllib.parse.urlsplit(f"//{host}").hostname or host
        if not self.https_proxy or any(_matches(name, rule) for rule in self.no_proxy):
            return None
        return self.https_proxy


def _matches(host: str, rule: str) -> bool:
    name = host.lower()
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        suffix = rule.lower().lstrip("*").lstrip(".")
        return rule == "*" or name == suffix or name.endswith(f".{suffix}")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _selector(text: str, problems: list[str]) -> tuple[tuple[str, str], ...]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        problems.append(f"EDGEHA_NODE_SELECTOR is {text!r}: give labels as a JSON object of texts")
        return ()
    return tuple(sorted(found.items()))


def _dps(environ: Mapping[str, str], text: Callable[[str, str], str], problems: list[str]) -> Dps | None:
    id_scope = environ.get("EDGEHA_DPS_ID_SCOPE", "").strip()
    if not id_scope:
        return None
    registration = environ.get("EDGEHA_DPS_REGISTRATION_ID", "").strip()
    # Rule of the service: 1-128 characters, lower-case letters and digits, - . _ : inside.
    if not re.fullmatch(r"[a-z0-9]([a-z0-9\-._:]{0,126}[a-z0-9])?", registration):
        problems.append(f"EDGEHA_DPS_REGISTRATION_ID is {registration!r}: not a registration id")
    attestation = text("EDGEHA_DPS_KEY", "individual")
    if attestation not in ("individual", "group"):
        problems.append(f"EDGEHA_DPS_KEY is {attestation!r}: give individual or group")
    endpoint = text("EDGEHA_DPS_ENDPOINT", "global.azure-devices-provisioning.net")
    if "/" in endpoint or "@" in endpoint:
        problems.append(f"EDGEHA_DPS_ENDPOINT is {endpoint!r}: give the host name alone, without https://")
    return Dps(endpoint, id_scope, registration, attestation == "group")


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises SettingsError with all problems at once, each naming the variable and what it should be.
    """
    problems: list[str] = []

    def text(name: str, default: str | None = None) -> str:
        value = environ.get(name, "").strip() or default
        if value is None:
            problems.append(f"{name} is not set")
            return ""
        return value

    def file(name: str) -> Path | None:
        value = environ.get(name, "").strip()
        return Path(value) if value else None

    def whole(name: str, default: int, low: int, high: int) -> int:
        raw = environ.get(name, "").strip()
        if not raw:
            return default
        if not raw.isdecimal() or not low <= int(raw) <= high:
            problems.append(f"{name} is {raw!r}: give a whole number from {low} to {high}")
            return default
        return int(raw)

    release = text("EDGEHA_RELEASE")
    namespace = text("EDGEHA_NAMESPACE")
    dps = _dps(environ, text, problems)
    # The provisioning service tells both.
    none = None if dps is None else ""
    device_id = text("EDGEHA_DEVICE_ID", none)
    hub = text("EDGEHA_IOTHUB_HOSTNAME", none)
    if dps is not None and (device_id or hub):
        problems.append(
            "EDGEHA_DPS_ID_SCOPE stands beside EDGEHA_DEVICE_ID or EDGEHA_IOTHUB_HOSTNAME: leave one out"
        )
    for name, value in (("EDGEHA_RELEASE", release), ("EDGEHA_NAMESPACE", namespace)):
        if value and not _DNS_LABEL.fullmatch(value):
            problems.append(f"{name} is {value!r}: give a DNS label (lower case, digits, dashes)")
    if device_id and not DEVICE_ID.fullmatch(device_id):
        problems.append(f"EDGEHA_DEVICE_ID is {device_id!r}: not a device id of IoT Hub")
    if "/" in hub or "@" in hub:
        problems.append(f"EDGEHA_IOTHUB_HOSTNAME is {hub!r}: give the host name alone, without https://")
    parent = environ.get("EDGEHA_PARENT_HOSTNAME", "").strip()
    if "/" in parent or "@" in parent:
        problems.append(f"EDGEHA_PARENT_HOSTNAME is {parent!r}: give the host name alone, without https://")
    settings = Settings(
        release=release,
        namespace=namespace,
        pod_name=text("EDGEHA_POD_NAME"),
        pod_uid=environ.get("EDGEHA_POD_UID", "").strip(),
        node_name=text("EDGEHA_NODE_NAME"),
        device_id=device_id,
        iothub_hostname=hub,
        # Until a module answers as the gateway's own hub, modules talk to IoT Hub itself.
        gateway_hostname=text("EDGEHA_GATEWAY_HOSTNAME", hub),
        parent_hostname=parent,
        gateway_service=environ.get("EDGEHA_GATEWAY_SERVICE", "").strip(),
        dps=dps,
        device_key_file=file("EDGEHA_DEVICE_KEY_FILE"),
        device_certificate_file=file("EDGEHA_DEVICE_CERTIFICATE_FILE"),
        device_private_key_file=file("EDGEHA_DEVICE_PRIVATE_KEY_FILE"),
        state_dir=Path(text("EDGEHA_STATE_DIR")),
        trust_bundle_file=Path(text("EDGEHA_TRUST_BUNDLE_FILE")),
        manifest_trust_file=file("EDGEHA_MANIFEST_TRUST_FILE"),
        edge_ca_certificate_file=file("EDGEHA_EDGE_CA_CERTIFICATE_FILE"),
        edge_ca_key_file=file("EDGEHA_EDGE_CA_KEY_FILE"),
        proxy_image=text("EDGEHA_WORKLOAD_PROXY_IMAGE"),
        image_pull_policy=text("EDGEHA_IMAGE_PULL_POLICY", "IfNotPresent"),
        image_pull_secrets=_listed(environ.get("EDGEHA_IMAGE_PULL_SECRETS", "")),
        priority_class=environ.get("EDGEHA_PRIORITY_CLASS", "").strip(),
        standby_priority_class=environ.get("EDGEHA_STANDBY_PRIORITY_CLASS", "").strip(),
        toleration_seconds=whole("EDGEHA_TOLERATION_SECONDS", 30, 0, 3600),
        storage_class=environ.get("EDGEHA_STORAGE_CLASS", "").strip(),
        storage_access_mode=text("EDGEHA_STORAGE_ACCESS_MODE", "ReadWriteMany"),
        module_volume_size=text("EDGEHA_MODULE_VOLUME_SIZE", "1Gi"),
        own_secrets=_listed(environ.get("EDGEHA_OWN_SECRETS", "")),
        https_proxy=environ.get("EDGEHA_HTTPS_PROXY", "").strip(),
        no_proxy=_listed(environ.get("EDGEHA_NO_PROXY", "")),
        workload_port=whole("EDGEHA_WORKLOAD_PORT", 35001, 1, 65535),
        management_port=whole("EDGEHA_MANAGEMENT_PORT", 35000, 1, 65535),
        health_port=whole("EDGEHA_HEALTH_PORT", 35002, 1, 65535),
        lock_timeout=whole("EDGEHA_LOCK_TIMEOUT", 120, 1, 3600),
        log_level=text("EDGEHA_LOG_LEVEL", "INFO").upper(),
        slot=text("EDGEHA_SLOT", SLOTS[0]),
        slots=_listed(text("EDGEHA_SLOTS", SLOTS[0])),
        daemon_image=environ.get("EDGEHA_IMAGE", "").strip(),
        node_selector=_selector(environ.get("EDGEHA_NODE_SELECTOR", ""), problems),
        keep_images=text("EDGEHA_KEEP_IMAGES", "true") == "true",
        pull_seconds=whole("EDGEHA_PULL_SECONDS", 240, 0, 290),
        check_caller_address=text("EDGEHA_CHECK_CALLER_ADDRESS", "true") == "true",
    )
    if settings.slots not in (SLOTS[:1], SLOTS) or settings.slot not in settings.slots:
        problems.append(
            f"EDGEHA_SLOTS is {','.join(settings.slots)!r} and EDGEHA_SLOT {settings.slot!r}: give a or a,b, "
            "and one of these"
        )
    if (settings.device_certificate_file is None) != (settings.device_private_key_file is None):
        problems.append(
            "EDGEHA_DEVICE_CERTIFICATE_FILE and EDGEHA_DEVICE_PRIVATE_KEY_FILE go together: give both"
        )
    if (settings.device_certificate_file is None) == (settings.device_key_file is None):
        problems.append(
            "give EDGEHA_DEVICE_KEY_FILE or EDGEHA_DEVICE_CERTIFICATE_FILE: a device proves itself in one way"
        )
    if (settings.edge_ca_certificate_file is None) != (settings.edge_ca_key_file is None):
        problems.append("EDGEHA_EDGE_CA_CERTIFICATE_FILE and EDGEHA_EDGE_CA_KEY_FILE go together: give both")
    if settings.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        problems.append(f"EDGEHA_LOG_LEVEL is {settings.log_level!r}: give DEBUG, INFO, WARNING or ERROR")
    if problems:
        raise SettingsError("; ".join(problems))
    return settings
