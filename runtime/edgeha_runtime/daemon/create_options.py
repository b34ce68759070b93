# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""createOptions of a module (Docker's schema for a new container) as parts of a pod. Pure.

Every option is translated, refused, or has no meaning in a cluster (see `docker_schema`); one that is not
known is refused. Nothing is ignored in silence.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .docker_schema import EXTENSIONS, OPTIONS, Verdict

Manifest = dict[str, Any]

SERVICE_TYPES = ("ClusterIP", "LoadBalancer", "NodePort")
# Where the sidecar of a pod on the node's network listens, in a volume of this pod alone.
SOCKET_FOLDER = "/var/run/edgeha"
SOCKET_VOLUME = "workload-socket"
# Volumes of a module's pod that are not the module's.
RESERVED_VOLUMES = frozenset({"workload-token", SOCKET_VOLUME})
ALL = "ALL"
# What a module has without asking: programs of stock images (edgeHub's) cannot even start without it. It is
# the one that the restricted pod standard lets a container add.
OWN_CAPABILITIES = ("NET_BIND_SERVICE",)
# Folders and sockets of a node that hold tokens and keys of others, or open all containers. Refused with what
# is in them and with the folders that they are in.
NODE_PRIVATE = (
    "/etc/kubernetes",
    "/etc/rancher",
    "/run/containerd",
    "/run/cri-dockerd.sock",
    "/run/crio",
    "/run/docker",
    "/run/docker.sock",
    "/run/k3s",
    "/var/lib/kubelet",
    "/var/lib/longhorn",
    "/var/lib/rancher",
)
_CPU_SHARES = 1024  # of one processor
_NANO = 1_000_000_000
_DEFAULT_PERIOD = 100_000  # microseconds, the kernel's
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?")
_SIZE = re.compile(r"([0-9]+)([kmg]?)b?", re.IGNORECASE)
_HOST_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ENV_NAME = re.compile(r"[!-<>-~]+")
_CAPABILITY = re.compile(r"(?:CAP_)?([A-Z_]+)")
_NOT_DNS = re.compile(r"[^a-z0-9]+")
_EXPANDED = re.compile(r"\$\$+|\$(?=\()")
_UNSET: tuple[object, ...] = (None, False, "", 0, -1, [], {})


@dataclass(frozen=True)
class Port:
    """A port of a module: `port` of its Service leads to `target` of its container."""

    port: int
    target: int
    protocol: str

    def name(self) -> str:
        return f"{self.protocol.lower()}-{self.port}"


@dataclass
class Parts:
    """What createOptions say of a module's objects.

    `container` and `pod` are merged into their specs; `claims` are names of volumes, each one claim; `bound`
    are the ports that Docker binds to the host; `image_user`: it runs as the user that its image says, unless
    `pod_security` says one. Where `problems` is not empty the rest is of no use.
    """

    env: dict[str, str] = field(default_factory=dict)
    container: Manifest = field(default_factory=dict)
    pod: Manifest = field(default_factory=dict)
    pod_security: Manifest = field(default_factory=dict)
    image_user: bool = False
    annotations: dict[str, str] = field(default_factory=dict)
    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    bound: list[Port] = field(default_factory=list)
    service: Manifest = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def claim_name(release: str, volume: str) -> str:
    """Name of the claim for a volume of a gateway; names that are no DNS label get a digest of the whole."""
    own = _NOT_DNS.sub("-", volume.lower()).strip("-")
    if own != volume or len(own) > 40:
        own = f"{own[:31].strip('-')}-{hashlib.sha256(volume.encode()).hexdigest()[:8]}".strip("-")
    return f"{release}-volume-{own}"


def audience(release: str) -> str:
    """Audience of the tokens by which a gateway's daemon knows its modules."""
    return f"edgeha-{release}"


def private_folder(path: str) -> str:
    """The one of NODE_PRIVATE, or a kubelet's folder, that a node's path would give; empty for none."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if parts[:2] == ["var", "run"]:
        parts = parts[1:]  # a link, on all systems that run a kubelet
    for folder in NODE_PRIVATE:
        private = folder.split("/")[1:]
        shared = min(len(parts), len(private))
        if parts[:shared] == private[:shared]:
            return folder
    return path if "kubelet" in parts else ""


def read(value: Any) -> Any:
    """createOptions as they come, an object or the JSON text of one; raises ValueError, with the reason."""
    if isinstance(value, str):
        if not value.strip():
            return {}
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"createOptions is not JSON: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("createOptions is not a JSON object")  # noqa: TRY004 - one error for the caller
    return value


def translate(options: Mapping[str, Any], release: str, own_secrets: frozenset[str] = frozenset()) -> Parts:
    """Translate createOptions; all that cannot be is in `problems`, each with the option's path.

    `own_secrets`: Secrets of the gateway itself, which no module may mount.
    """
    translator = _Translator(release, own_secrets)
    translator.check(options, "")
    if not translator.parts.problems:
        translator.translate(options)
    return translator.parts


class _Translator:
    def __init__(self, release: str, own_secrets: frozenset[str]) -> None:
        self.release = release
        self.own_secrets = own_secrets
        self.parts = Parts()
        self.security: Manifest = {}
        self.limits: Manifest = {}
        self.requests: Manifest = {}

    # What is known, and of the kind that it has to be.

    def refuse(self, path: str, reason: str) -> None:
        self.parts.problems.append(f"createOptions.{path}: {reason}")

    def check(self, options: Mapping[str, Any], prefix: str) -> None:
        """Refuse what is unknown, and what is set although it cannot be translated."""
        for key, value in options.items():
            path = f"{prefix}{key}"
            option = OPTIONS.get(path)
            if option is None:
                siblings = [name[len(prefix) :] for name in OPTIONS if name.startswith(prefix)]
                close = difflib.get_close_matches(key, [name for name in siblings if "." not in name], n=1)
                self.refuse(path[:200], "no such option" + (f", did you mean {close[0]}?" if close else ""))
            elif (
                option.verdict is Verdict.REFUSED
                and not _is_unset(value)
                and not self._is_default(path, value)
            ):
                self.refuse(path, option.text)
            elif option.verdict is Verdict.TRANSLATED:
                self._check_inside(path, value)

    def _check_inside(self, path: str, value: Any) -> None:
        if not any(name.startswith(f"{path}.") for name in OPTIONS) or value is None:
            return
        if path == "HostConfig.Mounts":
            for entry in self._list(path, value):
                self._check_object(path, entry)
        elif path == "NetworkingConfig.EndpointsConfig":
            for entry in self._object(path, value).values():
                if entry is not None:
                    self._check_object(path, entry)
        else:
            self._check_object(path, value)

    def _check_object(self, path: str, value: Any) -> None:
        if isinstance(value, dict):
            self.check(value, f"{path}.")
        else:
            self.refuse(path, "is not an object")

    @staticmethod
    def _is_default(path: str, value: Any) -> bool:
        """Values by which clients say what is the case anyway."""
        return value in {
            "HostConfig.CgroupnsMode": ("private",),
            "HostConfig.Isolation": ("default",),
            "HostConfig.Runtime": ("runc",),
            "HostConfig.VolumeDriver": ("local",),
            "StopSignal": ("SIGTERM", "15"),
        }.get(path, ())

    def _object(self, path: str, value: Any) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.refuse(path, "is not an object")
            return {}
        return value

    def _list(self, path: str, value: Any) -> Sequence[Any]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self.refuse(path, "is not a list")
            return ()
        return value

    def _texts(self, path: str, value: Any) -> list[str]:
        found = [entry for entry in self._list(path, value) if isinstance(entry, str)]
        if len(found) != len(self._list(path, value)):
            self.refuse(path, "is not a list of texts")
        return found

    def _map(self, path: str, value: Any) -> dict[str, str]:
        found = {key: text for key, text in self._object(path, value).items() if isinstance(text, str)}
        if len(found) != len(self._object(path, value)):
            self.refuse(path, "is not an object of texts")
        return found

    def _named_values(self, path: str, value: Any) -> dict[str, str]:
        """A list of {name, value}, as Kubernetes writes what is a map of texts."""
        found: dict[str, str] = {}
        for entry in self._list(path, value):
            name, text = (entry.get("name"), entry.get("value")) if isinstance(entry, dict) else (None, None)
            if not isinstance(name, str) or not isinstance(text, str) or len(entry) != 2:
                self.refuse(path, "is not a list of {name, value}, both texts")
            else:
                found[name] = text
        return found

    def _text(self, path: str, value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(path, "is not a text")
            return ""
        return value

    def _flag(self, path: str, value: Any) -> bool:
        if value is not None and not isinstance(value, bool):
            self.refuse(path, "is neither true nor false")
        return value is True

    def _number(self, path: str, value: Any, least: int = 0) -> int:
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
            self.refuse(path, f"is not a whole number from {least} on")
            return 0
        return value

    # What becomes of it.

    def translate(self, options: Mapping[str, Any]) -> None:
        host = self._object("HostConfig", options.get("HostConfig"))
        self._process(options)
        self._health(options.get("Healthcheck"))
        self._users(options, host)
        self._rights(host)
        self._resources(host)
        self._namespaces(options, host)
        self._names(host)
        self._ports(options, host)
        self._storage(options, host)
        self._extensions(self._object(EXTENSIONS, options.get(EXTENSIONS)))
        resources = {"limits": self.limits, "requests": self.requests}
        if any(resources.values()):
            self.parts.container["resources"] = {key: value for key, value in resources.items() if value}
        if self.security:
            self.parts.container["securityContext"] = self.security

    def _process(self, options: Mapping[str, Any]) -> None:
        container = self.parts.container
        words = {}
        for name in ("Entrypoint", "Cmd"):
            value = options.get(name)
            words[name] = [value] if isinstance(value, str) else self._texts(name, value)
        if any(words["Entrypoint"]):
            container["command"] = _literal(words["Entrypoint"])
            if words["Cmd"]:
                container["args"] = _literal(words["Cmd"])
        elif options.get("Entrypoint") is not None and words["Cmd"]:
            # An empty entrypoint takes the image's away, which a pod has no other way to say.
            container["command"] = _literal(words["Cmd"])
        elif words["Cmd"]:
            container["args"] = _literal(words["Cmd"])
        if folder := self._text("WorkingDir", options.get("WorkingDir")):
            container["workingDir"] = folder
        for name, key in (("Tty", "tty"), ("OpenStdin", "stdin")):
            if self._flag(name, options.get(name)):
                container[key] = True
        for position, entry in enumerate(self._texts("Env", options.get("Env"))):
            name, separator, value = entry.partition("=")
            if not separator or not _ENV_NAME.fullmatch(name):
                self.refuse(f"Env[{position}]", "is not NAME=value")
            else:
                self.parts.env[name] = value
        self.parts.annotations |= self._map("Labels", options.get("Labels"))
        host = self._object("HostConfig", options.get("HostConfig"))
        self.parts.annotations |= self._map("HostConfig.Annotations", host.get("Annotations"))
        if (seconds := options.get("StopTimeout")) is not None:
            # At 0 the API server forgets a pod before its kubelet said that the containers ended.
            self.parts.pod["terminationGracePeriodSeconds"] = max(1, self._number("StopTimeout", seconds))

    def _health(self, value: Any) -> None:
        check = self._object("Healthcheck", value)
        test = self._texts("Healthcheck.Test", check.get("Test"))
        if not test or test == ["NONE"]:
            return
        kind, *words = test
        if kind == "CMD-SHELL" and len(words) == 1:
            words = ["/bin/sh", "-c", words[0]]
        elif kind != "CMD" or not words:
            self.refuse("Healthcheck.Test", "begins with none of NONE, CMD and CMD-SHELL")
            return

        def seconds(name: str, default: int) -> int:
            path = f"Healthcheck.{name}"
            return math.ceil(self._number(path, check.get(name)) / _NANO) or default

        self.parts.container["livenessProbe"] = {
            "exec": {"command": words},
            "periodSeconds": seconds("Interval", 30),
            "timeoutSeconds": seconds("Timeout", 30),
            "failureThreshold": self._number("Healthcheck.Retries", check.get("Retries")) or 3,
            "initialDelaySeconds": seconds("StartPeriod", 0),
        }

    def _users(self, options: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        user = self._text("User", options.get("User"))
        if user:
            numbers = ["0" if part == "root" else part for part in user.split(":")]
            if len(numbers) > 2 or not all(part.isdecimal() and int(part) < 2**31 for part in numbers):
                self.refuse("User", f"{user!r}: only the image knows names; give uid or uid:gid")
            else:
                self.security["runAsUser"] = int(numbers[0])
                self.security["runAsNonRoot"] = int(numbers[0]) != 0
                if len(numbers) == 2:
                    self.security["runAsGroup"] = int(numbers[1])
        groups = self._texts("HostConfig.GroupAdd", host.get("GroupAdd"))
        if groups:
            if not all(group.isdecimal() and int(group) < 2**31 for group in groups):
                self.refuse("HostConfig.GroupAdd", "only the image knows names; give numbers")
            else:
                self.parts.pod_security["supplementalGroups"] = [int(group) for group in groups]

    def _rights(self, host: Mapping[str, Any]) -> None:
        named: dict[str, list[str]] = {}
        for name in ("CapAdd", "CapDrop"):
            named[name] = []
            for entry in self._texts(f"HostConfig.{name}", host.get(name)):
                if matched := _CAPABILITY.fullmatch(entry.upper()):
                    named[name].append(matched[1])
                else:
                    self.refuse(f"HostConfig.{name}", f"{entry[:40]!r} is no capability")
        privileged = self._flag("HostConfig.Privileged", host.get("Privileged"))
        if privileged:
            self.security |= {"privileged": True, "allowPrivilegeEscalation": True}
            # Instead of what a module gets otherwise: the runtime gives it all of them.
            self.security["capabilities"] = {}
        elif any(named.values()):
            self.security["capabilities"] = _capabilities(named["CapAdd"], named["CapDrop"])
        # As in Docker these are rights of the image's user, mostly root: another one would get none of them.
        self.parts.image_user = (privileged or bool(named["CapAdd"])) and "runAsUser" not in self.security
        if self._flag("HostConfig.ReadonlyRootfs", host.get("ReadonlyRootfs")):
            self.security["readOnlyRootFilesystem"] = True
        for entry in self._texts("HostConfig.SecurityOpt", host.get("SecurityOpt")):
            option = entry.replace(":", "=", 1).lower()
            if option in ("no-new-privileges", "no-new-privileges=true"):
                if privileged:
                    self.refuse("HostConfig.SecurityOpt", f"{entry} beside Privileged: no cluster takes both")
                self.security["allowPrivilegeEscalation"] = False
            elif option == "seccomp=unconfined":
                self.security["seccompProfile"] = {"type": "Unconfined"}
            else:
                self.refuse("HostConfig.SecurityOpt", f"{entry[:60]!r} is not translated")
        if sysctls := self._map("HostConfig.Sysctls", host.get("Sysctls")):
            self._set_sysctls(sysctls)

    def _set_sysctls(self, values: Mapping[str, str]) -> None:
        self.parts.pod_security["sysctls"] = [
            {"name": name, "value": value} for name, value in sorted(values.items())
        ]

    def _resources(self, host: Mapping[str, Any]) -> None:
        def number(name: str) -> int:
            value = host.get(name)
            return 0 if value == -1 else self._number(f"HostConfig.{name}", value)

        if memory := number("Memory"):
            self.limits["memory"] = str(memory)
        if reserved := number("MemoryReservation"):
            if memory and reserved > memory:
                self.refuse("HostConfig.MemoryReservation", "is more than Memory")
            self.requests["memory"] = str(reserved)
        nano, quota, limit = number("NanoCpus"), number("CpuQuota"), 0
        if nano and quota:
            self.refuse("HostConfig.CpuQuota", "says again what NanoCpus says")
        elif nano:
            limit = math.ceil(nano * 1000 / _NANO)
        elif quota:
            period = number("CpuPeriod") or _DEFAULT_PERIOD
            limit = math.ceil(quota * 1000 / period)
        if limit:
            self.limits["cpu"] = f"{limit}m"
        if shares := number("CpuShares"):
            # A weight on Docker, which may be more than the limit; here it is what is asked for.
            asked = math.ceil(shares * 1000 / _CPU_SHARES)
            self.requests["cpu"] = f"{min(asked, limit or asked)}m"

    def _namespaces(self, options: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        pod = self.parts.pod
        network = self._text("HostConfig.NetworkMode", host.get("NetworkMode"))
        if network == "host":
            pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
        elif network == "none" or network.startswith("container:"):
            self.refuse(
                "HostConfig.NetworkMode", f"{network[:60]!r}: a module's pod has a network of its own"
            )
        for name, key, plain in (
            ("IpcMode", "hostIPC", ("", "private", "shareable")),
            ("PidMode", "hostPID", ("",)),
        ):
            mode = self._text(f"HostConfig.{name}", host.get(name))
            if mode == "host":
                pod[key] = True
            elif mode not in plain:
                self.refuse(f"HostConfig.{name}", f"{mode[:60]!r} is not translated, only host is")
        if hostname := self._text("Hostname", options.get("Hostname")):
            if network == "host" or not _HOST_LABEL.fullmatch(hostname):
                reason = (
                    "is no DNS label" if network != "host" else "on the node's network a pod has its name"
                )
                self.refuse("Hostname", f"{hostname[:64]!r} {reason}")
            else:
                pod["hostname"] = hostname

    def _names(self, host: Mapping[str, Any]) -> None:
        config: Manifest = {}
        for name, key in (("Dns", "nameservers"), ("DnsSearch", "searches")):
            if found := self._texts(f"HostConfig.{name}", host.get(name)):
                config[key] = found
        if options := self._texts("HostConfig.DnsOptions", host.get("DnsOptions")):
            pairs = [entry.partition(":") for entry in options]
            config["options"] = [
                {"name": name, "value": value} if colon else {"name": name} for name, colon, value in pairs
            ]
        if config:
            self.parts.pod["dnsConfig"] = config
            if "nameservers" in config:
                self.parts.pod["dnsPolicy"] = "None"
        aliases: dict[str, list[str]] = {}
        for entry in self._texts("HostConfig.ExtraHosts", host.get("ExtraHosts")):
            name, colon, address = entry.replace("=", ":", 1).partition(":")
            if not colon or not name or not address or address == "host-gateway":
                self.refuse("HostConfig.ExtraHosts", f"{entry[:80]!r} is not name:address")
            else:
                aliases.setdefault(address.strip("[]"), []).append(name)
        if aliases:
            self.parts.pod["hostAliases"] = [
                {"ip": address, "hostnames": names} for address, names in sorted(aliases.items())
            ]

    def _ports(self, options: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        bound: list[Port] = []
        for text, bindings in self._object("HostConfig.PortBindings", host.get("PortBindings")).items():
            path = f"HostConfig.PortBindings.{text[:20]}"
            targets = self._port_numbers(path, text)
            for binding in self._list(path, bindings):
                if not isinstance(binding, dict) or set(binding) - {"HostIp", "HostPort"}:
                    self.refuse(path, "is not a list of {HostIp, HostPort}")
                    continue
                if str(binding.get("HostIp") or "") not in ("", "0.0.0.0", "::"):  # noqa: S104 - it is compared
                    self.refuse(path, "HostIp: a Service has one address for all ports")
                wanted = str(binding.get("HostPort") or "") or text.partition("/")[0]
                ports = self._port_numbers(path, wanted)
                if len(ports) != len(targets):
                    self.refuse(path, "the ranges are not of one length")
                bound += [
                    Port(port, target, protocol)
                    for (port, _protocol), (target, protocol) in zip(ports, targets, strict=False)
                ]
        targets_of: dict[tuple[int, str], set[int]] = {}
        for entry in bound:
            targets_of.setdefault((entry.port, entry.protocol), set()).add(entry.target)
        for (port, protocol), found in sorted(targets_of.items()):
            if len(found) > 1:
                several = " and ".join(map(str, sorted(found)))
                self.refuse(
                    "HostConfig.PortBindings",
                    f"HostPort {port}/{protocol.lower()} leads to {several}: one only",
                )
        exposed: list[Port] = []
        for text in self._object("ExposedPorts", options.get("ExposedPorts")):
            for port, protocol in self._port_numbers(f"ExposedPorts.{text[:20]}", text):
                if not any((entry.target, entry.protocol) == (port, protocol) for entry in bound):
                    exposed.append(Port(port, port, protocol))
        taken = {(entry.port, entry.protocol) for entry in bound}
        self.parts.bound = list(dict.fromkeys(bound))
        self.parts.ports = self.parts.bound + [
            entry for entry in dict.fromkeys(exposed) if (entry.port, entry.protocol) not in taken
        ]

    def _port_numbers(self, path: str, text: str) -> list[tuple[int, str]]:
        matched = _PORT.fullmatch(text)
        first, last = (int(matched[1]), int(matched[2] or matched[1])) if matched else (0, 0)
        if matched is None or not 1 <= first <= last <= 65535 or last - first > 99:
            self.refuse(path, "is no port from 1 to 65535, or range of at most 100, with /tcp, /udp or /sctp")
            return []
        protocol = (matched[3] or "tcp").upper()
        return [(number, protocol) for number in range(first, last + 1)]

    # Volumes.

    def _storage(self, options: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        for target in self._object("Volumes", options.get("Volumes")):
            self._mount("Volumes", {"emptyDir": {}}, target)
        for entry in self._texts("HostConfig.Binds", host.get("Binds")):
            self._bind(entry)
        for position, entry in enumerate(self._list("HostConfig.Mounts", host.get("Mounts"))):
            self._mount_entry(f"HostConfig.Mounts[{position}]", entry)
        for target, text in self._map("HostConfig.Tmpfs", host.get("Tmpfs")).items():
            self._mount("HostConfig.Tmpfs", self._memory("HostConfig.Tmpfs", text), target)
        if size := self._number("HostConfig.ShmSize", host.get("ShmSize")):
            volume = {"emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}
            self._mount("HostConfig.ShmSize", volume, "/dev/shm")  # noqa: S108 - of the container
        paths = [mount["mountPath"] for mount in self.parts.mounts]
        if self.parts.pod.get("hostNetwork"):
            paths.append(SOCKET_FOLDER)
        for path in sorted({path for path in paths if paths.count(path) > 1}):
            self.refuse("HostConfig", f"two volumes are mounted at {path}")

    def _bind(self, entry: str) -> None:
        path = "HostConfig.Binds"
        source, _colon, rest = entry.partition(":")
        target, _colon, text = rest.partition(":")
        if not target:
            self.refuse(path, f"{entry[:80]!r} is not source:target[:options]")
            return
        if source == target and (source == SOCKET_FOLDER or source.startswith(f"{SOCKET_FOLDER}/")):
            # So a stock edgeAgent hands its own sockets on, where it has some; each pod has its own.
            return
        more: Manifest = {}
        for option in filter(None, text.split(",")):
            if option == "ro":
                more["readOnly"] = True
            elif option in _PROPAGATION:
                more |= _propagation(option)
            elif option not in ("rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"):
                self.refuse(path, f"{option[:40]!r} in {entry[:80]!r} is not translated")
        self._mount(path, self._source(path, source), target, **more)

    def _source(self, path: str, source: str) -> Manifest:
        """What the node has at a path, a claim for a name."""
        if source.startswith("/"):
            if ".." in source.split("/"):
                self.refuse(path, f"{source[:80]!r} leads upwards")
            self._node_path(path, source)
            # Without a type the kubelet looks at nothing: it may be a file or a device. What is missing the
            # machine's runtime makes as a folder, as Docker does.
            return {"hostPath": {"path": source, "type": ""}}
        if not _VOLUME_NAME.fullmatch(source):
            self.refuse(path, f"{source[:80]!r} is neither an absolute path nor the name of a volume")
            return {"emptyDir": {}}
        if source not in self.parts.claims:
            self.parts.claims.append(source)
        return {"persistentVolumeClaim": {"claimName": claim_name(self.release, source)}}

    def _node_path(self, path: str, source: str) -> None:
        if folder := private_folder(source):
            self.refuse(
                path,
                f"{source[:80]!r} gives {folder} of the node, with keys and tokens that are not the module's",
            )

    def _mount_entry(self, path: str, entry: Mapping[str, Any]) -> None:
        kind = self._text(f"{path}.Type", entry.get("Type"))
        source = self._text(f"{path}.Source", entry.get("Source"))
        more: Manifest = {}
        if self._flag(f"{path}.ReadOnly", entry.get("ReadOnly")):
            more["readOnly"] = True
        if kind == "bind":
            bind = self._object(f"{path}.BindOptions", entry.get("BindOptions"))
            propagation = self._text(f"{path}.BindOptions.Propagation", bind.get("Propagation"))
            if propagation and propagation not in _PROPAGATION:
                self.refuse(f"{path}.BindOptions.Propagation", f"{propagation[:40]!r} is not translated")
            elif propagation:
                more |= _propagation(propagation)
            volume = self._source(path, source)
            if "hostPath" not in volume:
                self.refuse(f"{path}.Source", "a bind has an absolute path of the node")
            # What it asks for is done in any case.
            self._flag(f"{path}.BindOptions.CreateMountpoint", bind.get("CreateMountpoint"))
        elif kind == "volume":
            named = self._object(f"{path}.VolumeOptions", entry.get("VolumeOptions"))
            if subpath := self._text(f"{path}.VolumeOptions.Subpath", named.get("Subpath")):
                if subpath.startswith("/") or ".." in subpath.split("/"):
                    self.refuse(f"{path}.VolumeOptions.Subpath", f"{subpath[:80]!r} leads out of the volume")
                more["subPath"] = subpath
            if source.startswith("/"):
                self.refuse(f"{path}.Source", "a volume has a name and no path")
            volume = self._source(path, source) if source else {"emptyDir": {}}
        elif kind == "tmpfs":
            limits = self._object(f"{path}.TmpfsOptions", entry.get("TmpfsOptions"))
            size = self._number(f"{path}.TmpfsOptions.SizeBytes", limits.get("SizeBytes"))
            volume = {"emptyDir": {"medium": "Memory"} | ({"sizeLimit": str(size)} if size else {})}
        else:
            self.refuse(f"{path}.Type", f"{kind[:20]!r} is none of bind, volume and tmpfs")
            return
        self._mount(path, volume, self._text(f"{path}.Target", entry.get("Target")), **more)

    def _memory(self, path: str, text: str) -> Manifest:
        found: Manifest = {"medium": "Memory"}
        for option in filter(None, text.split(",")):
            name, _equals, value = option.partition("=")
            matched = _SIZE.fullmatch(value) if name == "size" else None
            if matched:
                factor = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}[matched[2].lower()]
                found["sizeLimit"] = str(int(matched[1]) * factor)
            elif option != "rw":
                self.refuse(path, f"{option[:40]!r} is not translated")
        return {"emptyDir": found}

    def _mount(self, path: str, volume: Manifest, target: str, **more: Any) -> None:
        if (
            not target.startswith("/")
            or ".." in target.split("/")
            or ":" in target
            or target.strip("/") == ""
        ):
            self.refuse(path, f"{target[:80]!r} is no absolute path to mount at")
            return
        # One volume of the pod for each source: a source that is mounted twice is there once.
        for known in self.parts.volumes:
            if {
                key: value for key, value in known.items() if key != "name"
            } == volume and "emptyDir" not in volume:
                name = known["name"]
                break
        else:
            name = f"volume-{len(self.parts.volumes)}"
            self.parts.volumes.append({"name": name, **volume})
        self.parts.mounts.append({"name": name, "mountPath": target.rstrip("/"), **more})

    # What Docker has no word for.

    def _extensions(self, more: Mapping[str, Any]) -> None:
        def path(name: str) -> str:
            return f"{EXTENSIONS}.{name}"

        if selector := self._map(path("nodeSelector"), more.get("nodeSelector")):
            self.parts.pod["nodeSelector"] = selector
        if tolerations := self._list(path("tolerations"), more.get("tolerations")):
            if not all(isinstance(entry, dict) for entry in tolerations):
                self.refuse(path("tolerations"), "is not a list of objects")
            self.parts.pod["tolerations"] = list(tolerations)
        if affinity := self._object(path("affinity"), more.get("affinity")):
            pods = self._object(path("affinity.podAffinity"), affinity.get("podAffinity"))
            # The daemon adds a term of its own.
            required = "requiredDuringSchedulingIgnoredDuringExecution"
            self._list(path(f"affinity.podAffinity.{required}"), pods.get(required))
            self.parts.pod["affinity"] = dict(affinity)
        for name, value in self._object(path("resources"), more.get("resources")).items():
            known = {"limits": self.limits, "requests": self.requests}.get(name)
            if known is None:
                self.refuse(f"{path('resources')}.{name[:40]}", "is neither limits nor requests")
            else:
                known |= self._object(f"{path('resources')}.{name}", value)
        security = dict(self._object(path("securityContext"), more.get("securityContext")))
        where = path("securityContext.sysctls")
        if sysctls := self._named_values(where, security.pop("sysctls", None)):
            before = {entry["name"]: entry["value"] for entry in self.parts.pod_security.get("sysctls", [])}
            self._set_sysctls(before | sysctls)
        if "runAsUser" in security and "runAsNonRoot" not in security:
            security["runAsNonRoot"] = security["runAsUser"] != 0
        self.parts.pod_security |= security
        service = self._object(path("serviceOptions"), more.get("serviceOptions"))
        for name, value in service.items():
            where = f"{path('serviceOptions')}.{name[:40]}"
            text = self._text(where, value)
            if name not in ("type", "loadBalancerIP"):
                self.refuse(where, "is neither type nor loadBalancerIP")
            elif name == "type" and text not in SERVICE_TYPES:
                self.refuse(where, f"is none of {', '.join(SERVICE_TYPES)}")
            else:
                self.parts.service[name] = text
        for position, entry in enumerate(self._list(path("volumes"), more.get("volumes"))):
            self._extension_volume(f"{path('volumes')}[{position}]", entry)

    def _extension_volume(self, path: str, entry: Any) -> None:
        volume = entry.get("volume") if isinstance(entry, dict) else None
        mounts = entry.get("volumeMounts") if isinstance(entry, dict) else None
        if (
            not isinstance(volume, dict)
            or not isinstance(mounts, list)
            or set(entry) != {"volume", "volumeMounts"}
            or not all(isinstance(mount, dict) for mount in mounts)
            or not isinstance(volume.get("name"), str)
        ):
            self.refuse(path, "is not {volume: {name, ...}, volumeMounts: [{mountPath, ...}]}")
            return
        name = volume["name"]
        if name in RESERVED_VOLUMES or any(known["name"] == name for known in self.parts.volumes):
            self.refuse(path, f"the name {name[:63]!r} is taken")
        for reason in sorted({self._not_the_modules(text) for text in _texts_in(volume)} - {""}):
            self.refuse(path, reason)
        node = volume.get("hostPath")
        if isinstance(node, dict) and isinstance(node.get("path"), str):
            self._node_path(f"{path}.volume.hostPath", node["path"])
        self.parts.volumes.append(volume)
        self.parts.mounts += [{**mount, "name": name} for mount in mounts]

    def _not_the_modules(self, text: str) -> str:
        """Why a text of a volume may not stand there: it names what is the daemon's or another module's."""
        release = re.escape(self.release)
        if text == audience(self.release):
            return f"tokens for {text} are for the sidecar alone"
        if text == f"{self.release}-state":
            return "the claim with the gateway's keys is for the daemon alone"
        if text.startswith(f"{self.release}-volume-"):
            return (
                f"the claim {text[:80]} is of a named volume: name the volume in HostConfig.Binds or Mounts"
            )
        if text in self.own_secrets:
            return f"the Secret {text} is the gateway's own"
        if re.fullmatch(rf"{release}-.+-(registry|pull-[0-9a-f]{{8}})", text):
            return f"the Secret {text[:80]} is a module's login of its registry"
        if re.fullmatch(rf"sh\.helm\.release\.v1\.{release}\.v[0-9]+", text):
            return f"the Secret {text[:80]} holds the gateway's release"
        if text == f"{self.release}-modules":
            return "the ConfigMap with the module set holds variables of other modules"
        return ""


_PROPAGATION = {
    "private": "None", "rprivate": "None", "slave": "HostToContainer", "rslave": "HostToContainer",
    "shared": "Bidirectional", "rshared": "Bidirectional",
}  # fmt: skip


def _capabilities(add: list[str], drop: list[str]) -> Manifest:
    """What Docker makes of CapAdd and CapDrop, but that a module has few by itself."""
    if ALL in add:
        # Only what is dropped by its name goes; runtimes take both ALL for none.
        found: Manifest = {"add": [ALL]}
        if named := [name for name in drop if name != ALL]:
            found["drop"] = named
        return found
    # What is added stays, although it is dropped too.
    own = [name for name in OWN_CAPABILITIES if not {name, ALL} & set(drop)]
    found = {"drop": [ALL]}
    if added := list(dict.fromkeys([*own, *add])):
        found["add"] = added
    return found


def _texts_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value, but for names of keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(part)


def _propagation(option: str) -> Manifest:
    return {"mountPropagation": _PROPAGATION[option]}


def literal(text: str) -> str:
    """A text for a command or a variable of a container; it is meant as it is.

    Kubernetes expands $(NAME) and makes one $ of two.
    """
    return _EXPANDED.sub(lambda found: found[0] * 2, text)


def _literal(words: Sequence[str]) -> list[str]:
    return [literal(word) for word in words]


def _is_unset(value: Any) -> bool:
    return any(value == unset and type(value) is type(unset) for unset in _UNSET)
