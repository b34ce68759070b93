# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What k3s is to be on a machine, and what of it is not so yet. Pure.

`release` finds the files of a version in a lock, `server_config`, `agent_config` and `files` make the texts,
and `drift` compares all of it with what the module k3s_probe saw.

The keys by which a server found its cluster stand in a file of their own, `JOIN_FILE`. k3s reads them only
while a server has no data, so that file is no reason to restart one, and nobody stays the founder: once the
cluster is there, its founder names another server as everybody does, and joins again should it lose its disk.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_facts, k3s_options

CONFIG_DIR = "/etc/rancher/k3s"
CONFIG_FILE = f"{CONFIG_DIR}/config.yaml"
JOIN_FILE = f"{CONFIG_DIR}/config.yaml.d/50-edgeha-join.yaml"
TOKEN_FILE = f"{CONFIG_DIR}/token"
ENVIRONMENT_FILE = f"{CONFIG_DIR}/edgeha.env"
REGISTRIES_FILE = f"{CONFIG_DIR}/registries.yaml"
# What a datastore elsewhere is reached with: part of the setting, key of the configuration, file.
_DATASTORE_FILES = (
    ("datastore_ca", "datastore-cafile", f"{CONFIG_DIR}/datastore-ca.crt"),
    ("datastore_certificate", "datastore-certfile", f"{CONFIG_DIR}/datastore.crt"),
    ("datastore_key", "datastore-keyfile", f"{CONFIG_DIR}/datastore.key"),
)
UNIT_DIR = "/etc/systemd/system"
UNITS: Mapping[str, str] = {"server": "k3s", "agent": "k3s-agent"}
# Keys of k3s's configuration that stand in variables of ours, or that would break what is built on them.
OWN_KEYS = frozenset(
    {
        "agent-token", "agent-token-file", "bind-address", "cluster-cidr", "cluster-domain", "cluster-init",
        "cluster-reset", "cluster-reset-restore-path", "data-dir", "datastore-endpoint", "disable",
        "etcd-snapshot-retention", "etcd-snapshot-schedule-cron", "https-listen-port", "node-ip",
        "node-label", "node-name", "node-taint", "secrets-encryption", "server", "service-cidr", "tls-san",
        "token", "token-file", "write-kubeconfig", "write-kubeconfig-mode",
    }
)  # fmt: skip
_ARCHITECTURES: Mapping[str, str] = {
    "x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64",
}  # fmt: skip
_HEADER = (
    "# Kept by edgeha.iotedge: what is changed here is lost. Use edge_k3s_{role}_options for other keys.\n"
)
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.]+))?\+k3s(\d+)")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
# What the CIS benchmark asks beyond k3s's defaults, by k3s's own hardening guide. How many events the API
# takes is left open there; these are far above what a cluster at rest makes.
_CIS_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "Metadata"}],
}
_CIS_ADMISSION = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AdmissionConfiguration",
    "plugins": [
        {
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {
                    f"{mode}{suffix}": value
                    for mode in ("enforce", "audit", "warn")
                    for suffix, value in (("", "restricted"), ("-version", "latest"))
                },
                "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": ["kube-system"]},
            },
        },
        {
            "name": "EventRateLimit",
            "configuration": {
                "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
                "kind": "Configuration",
                "limits": [
                    {"type": "Server", "qps": 500, "burst": 5000},
                    {"type": "Namespace", "qps": 100, "burst": 1000, "cacheSize": 2000},
                ],
            },
        },
    ],
}
_CIS_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
)


def newest(lock: Mapping[str, Any]) -> str:
    """Return the newest version of a lock, empty when it holds none."""
    return max((str(name) for name in lock if _VERSION.fullmatch(str(name))), key=_version_key, default="")


def newest_first(lock: Mapping[str, Any]) -> list[str]:
    """Return the versions of a lock, and after them whatever else it names."""
    names = [str(name) for name in lock]
    versions = sorted(filter(_VERSION.fullmatch, names), key=_version_key, reverse=True)
    return [*versions, *sorted(set(names) - set(versions))]


def _version_key(version: str) -> tuple[int, int, int, bool, str, int]:
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ValueError(f"{version} is not a version of k3s")
    major, minor, patch, before, build = found.groups()
    return int(major), int(minor), int(patch), before is None, before or "", int(build)


def release(
    lock: Mapping[str, Any],
    version: str,
    architecture: str,
    *,
    images: bool = False,
    source: str,
    data_dir: str,
    binary: str = k3s_options.BINARY,
) -> dict[str, Any]:
    """Return ``version``, ``files`` (as the module verified_files takes them, with ``name``) and ``problem``.

    lock:         version → artifact (``k3s``, ``images``) → architecture → SHA-256.
    version:      the wanted one, empty for the newest.
    architecture: of the machine, as it says itself (``x86_64``) or as Go does (``amd64``).
    source:       URL or folder that has a folder for each version.
    problem:      mapping with ``fact`` and ``fix``, empty when all is well.
    """
    wanted = version or newest(lock)
    arch = _ARCHITECTURES.get(architecture, architecture)
    result: dict[str, Any] = {"version": wanted, "files": [], "problem": {}}
    # In the order of the lock.
    known = ", ".join(map(str, lock)) or "none"
    if wanted not in lock:
        result["problem"] = {
            "fact": f"k3s {wanted or 'in any version'} is not in the lock file, which has the files' SHA-256",
            "fix": f"set edge_k3s_version to one that is ({known}), or name a lock of yours in edge_k3s_lock",
        }
        return result
    suffix = "" if arch == "amd64" else f"-{arch}"
    places = {
        "k3s": (f"k3s{suffix}", binary, "0755"),
        "images": (
            f"k3s-airgap-images-{arch}.tar.zst",
            f"{data_dir}/agent/images/k3s-airgap-images-{arch}.tar.zst",
            "0644",
        ),
    }
    for artifact in ["k3s", "images"] if images else ["k3s"]:
        digest = str((lock[wanted].get(artifact) or {}).get(arch, ""))
        if not _DIGEST.fullmatch(digest):
            result["problem"] = {
                "fact": f"the lock file has no SHA-256 of {artifact} {wanted} for {arch}",
                "fix": "add it to a lock file of yours and name that in edge_k3s_lock",
            }
            return result
        name, dest, mode = places[artifact]
        result["files"].append(
            {
                "name": artifact,
                "source": _place(source, wanted, name),
                "dest": dest,
                "sha256": digest.lower(),
                "mode": mode,
                "keep_previous": artifact == "k3s",
            }
        )
    return result


def _place(source: str, version: str, name: str) -> str:
    base = source.rstrip("/")
    if base.startswith(("http://", "https://")):
        return f"{base}/{quote(version, safe='')}/{name}"
    return f"{base}/{version}/{name}"


def option_problems(options: Sequence[str], variable: str) -> list[dict[str, str]]:
    """Return ``subject``, ``fact`` and ``fix`` for each extra option that is not ``key=value`` or is ours."""
    problems = []
    for option in options:
        key, separator, _value = str(option).partition("=")
        if not separator or not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            problems.append(
                {
                    "subject": f"variable {variable}",
                    "fact": f"{option!r} is not key=value",
                    "fix": "write it so",
                }
            )
        elif key in OWN_KEYS:
            problems.append(
                {
                    "subject": f"variable {variable}",
                    "fact": f"the key {key} is kept by this collection",
                    "fix": "remove it, and use the edge_* variable for it",
                }
            )
    return problems


def server_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands in a server's config.yaml.

    settings: node_name, node_ip, tls_san, cluster_cidr, service_cidr, cluster_domain, data_dir, disable,
    secrets_encryption, datastore_endpoint, datastore_ca, datastore_certificate, datastore_key,
    snapshot_schedule, snapshot_retention, profile, options.
    """
    config = _node_config(settings)
    config["write-kubeconfig-mode"] = "0600"
    config["tls-san"] = list(dict.fromkeys(str(name) for name in settings["tls_san"] if name))
    config["cluster-cidr"] = settings["cluster_cidr"]
    config["service-cidr"] = settings["service_cidr"]
    config["cluster-domain"] = settings["cluster_domain"]
    config["secrets-encryption"] = bool(settings["secrets_encryption"])
    config["disable"] = list(settings["disable"])
    config["datastore-endpoint"] = settings["datastore_endpoint"]
    if settings["datastore_endpoint"]:
        config.update({key: path for name, key, path in _DATASTORE_FILES if settings[name]})
    else:
        config["etcd-snapshot-schedule-cron"] = settings["snapshot_schedule"]
        config["etcd-snapshot-retention"] = int(settings["snapshot_retention"] or 0) or None
    if settings["profile"] == "cis":
        server = f"{settings['data_dir']}/server"
        config["kube-apiserver-arg"] = [
            "enable-admission-plugins=NodeRestriction,EventRateLimit",
            f"admission-control-config-file={CONFIG_DIR}/admission.yaml",
            f"audit-policy-file={CONFIG_DIR}/audit.yaml",
            f"audit-log-path={server}/logs/audit.log",
            "audit-log-maxage=30",
            "audit-log-maxbackup=10",
            "audit-log-maxsize=100",
            "service-account-extend-token-expiration=false",
        ]
        config["kube-controller-manager-arg"] = ["terminated-pod-gc-threshold=100"]
    return _with_options(config, settings["options"])


def agent_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands in an agent's config.yaml.

    settings: node_name, node_ip, data_dir, profile, options.
    """
    return _with_options(_node_config(settings), settings["options"])


def _node_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "data-dir": settings["data_dir"],
        "token-file": TOKEN_FILE,
        "node-name": settings["node_name"],
        "node-ip": settings["node_ip"],
    }
    if settings["profile"] == "cis":
        config["protect-kernel-defaults"] = True
        config["kubelet-arg"] = [
            "streaming-connection-idle-timeout=5m",
            f"tls-cipher-suites={','.join(_CIS_CIPHERS)}",
        ]
    return config


def _with_options(config: dict[str, Any], options: Iterable[str]) -> dict[str, Any]:
    given: dict[str, list[Any]] = {}
    for option in options:
        key, _separator, value = str(option).partition("=")
        if key not in OWN_KEYS:
            given.setdefault(key, []).append({"true": True, "false": False}.get(value.lower(), value))
    for key, values in given.items():
        if isinstance(config.get(key), list):
            config[key] = config[key] + values
        else:
            config[key] = values if len(values) > 1 or key.endswith("-arg") else values[0]
    return {key: value for key, value in config.items() if value not in ("", None, [])}


def render(config: Mapping[str, Any], role: str = "server") -> str:
    """Return a configuration as text, one key a line, in the order of the mapping."""
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in config.items()]
    return _HEADER.format(role=role) + "".join(lines)


def files(role: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files of a node but token and `JOIN_FILE`, each with path, content, mode, state and hidden.

    role:     ``server`` or ``agent``.
    settings: as for `server_config` and `agent_config`, and binary, registries, proxy, no_proxy,
              cluster_cidr, service_cidr, cluster_domain, and addresses (of what is inside of the cluster).
    """
    make = server_config if role == "server" else agent_config
    found = [_file(CONFIG_FILE, render(make(settings), role), "0600")]
    found.append(_file(ENVIRONMENT_FILE, _environment(settings), "0600"))
    # Without a text of ours the file may be the operator's own.
    if settings["registries"]:
        registries = f"{settings['registries'].rstrip()}\n"
        found.append(_file(REGISTRIES_FILE, registries, "0600", hidden=True))
    if role == "server" and settings["datastore_endpoint"]:
        for name, _key, path in _DATASTORE_FILES:
            if settings[name]:
                found.append(_file(path, f"{settings[name].rstrip()}\n", "0600", hidden=True))
    if role == "server" and settings["profile"] == "cis":
        for name, document in (("audit", _CIS_AUDIT), ("admission", _CIS_ADMISSION)):
            found.append(_file(f"{CONFIG_DIR}/{name}.yaml", json.dumps(document, indent=2) + "\n", "0600"))
    found.append(_file(f"{UNIT_DIR}/{UNITS[role]}.service", unit(role, settings["binary"]), "0644"))
    return found


def _file(path: str, content: str, mode: str, hidden: bool = False) -> dict[str, Any]:
    state = "present" if content else "absent"
    return {"path": path, "content": content, "mode": mode, "state": state, "hidden": hidden}


def unit(role: str, binary: str) -> str:
    """Return the unit of systemd. A stop ends k3s alone: pods go on while it restarts."""
    lines = [
        "# Kept by edgeha.iotedge",
        "[Unit]",
        f"Description=k3s {role}",
        "Documentation=https://docs.k3s.io",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        # A server says when it is ready. After a power cut that takes until enough others are back.
        f"Type={'notify' if role == 'server' else 'exec'}",
        f"EnvironmentFile=-{ENVIRONMENT_FILE}",
        f"ExecStart={binary} {role}",
        "KillMode=process",
        "Delegate=yes",
        "LimitNOFILE=1048576",
        "LimitNPROC=infinity",
        "LimitCORE=infinity",
        "TasksMax=infinity",
        "TimeoutStartSec=0",
        "Restart=always",
        "RestartSec=5s",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "".join(f"{line}\n" for line in lines)


def _environment(settings: Mapping[str, Any]) -> str:
    """Return the environment of k3s, which containerd inherits; empty without a proxy.

    What is inside of the cluster never goes through the proxy.
    """
    if not settings["proxy"]:
        return ""
    inside = ["127.0.0.0/8", "localhost", ".svc", f".{settings['cluster_domain']}"]
    inside += [settings["cluster_cidr"], settings["service_cidr"], *settings["addresses"]]
    inside += [entry.strip() for entry in settings["no_proxy"].split(",")]
    bypass = ",".join(dict.fromkeys(entry for entry in inside if entry))
    values = {"HTTP_PROXY": settings["proxy"], "HTTPS_PROXY": settings["proxy"], "NO_PROXY": bypass}
    return "".join(f"{name}={json.dumps(value)}\n" for name, value in values.items())


def url(address: str) -> str:
    """Return the address of a server's join port as k3s takes it; a URL stays as it is."""
    if not address or address.startswith("https://"):
        return address
    try:
        if ipaddress.ip_address(address).version == 6:
            return f"https://[{address}]:6443"
    except ValueError:
        pass
    return f"https://{address}:6443"


def join_text(
    *, init: bool = False, server: str = "", labels: Sequence[str] = (), taints: Sequence[str] = ()
) -> str:
    """Return the text of `JOIN_FILE`; empty when nothing stands in it.

    Labels and taints are for the first registration: from then on they are kept through the API.
    """
    config: dict[str, Any] = {}
    if init:
        config["cluster-init"] = True
    if server:
        config["server"] = url(server)
    if labels:
        config["node-label"] = list(labels)
    if taints:
        config["node-taint"] = list(taints)
    if not config:
        return ""
    return "# Kept by edgeha.iotedge: read while this node has no data\n" + "".join(
        f"{key}: {json.dumps(value)}\n" for key, value in config.items()
    )


def drift(look: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be done on a machine, in names and paths and without any secret.

    look:   ``k3s`` of the module k3s_probe.
    wanted: ``role``; ``plan``, the machine's entry of cluster_plan; ``files`` of `files`; ``release`` of
            `release`; ``init``, whether a founder needs ``cluster-init``; ``servers``, the addresses that may
            stand in `JOIN_FILE`, the preferred one first; ``token``, one that is given; ``labels`` and
            ``taints``; ``change_version``, whether a node with data may get another version;
            ``may_restart``, false where the cluster cannot do without this server now.

    ``action`` and ``wave``: those of the plan. ``reasons``: why, as texts; empty when all is as wanted.
    ``install``:  artifacts to install. ``write``: paths of files to write.
    ``token``:    where its token comes from: ``given``, ``generate``, ``read`` (of a server that lives),
                  ``own`` (of its own data), or empty when the file is good.
    ``join``:     `JOIN_FILE` before the start, and ``settled`` afterwards; None where it stays as it is.
    ``service``:  ``started``, ``restarted`` or empty.
    ``notes``:    what is left alone, as texts. ``problems``: with subject, fact and fix.
    """
    data = bool(look["data"]["server"] if wanted["role"] == "server" else look["data"]["agent"])
    plan = wanted["plan"]
    unit_state = look["unit"]
    expected = UNITS[wanted["role"]]
    running = unit_state["active"] == "active" and unit_state["name"] == expected
    reasons: list[str] = []
    notes: list[str] = []
    problems: list[dict[str, str]] = []

    install = _artifacts(look, wanted, data, reasons, notes, problems)
    write = []
    for entry in wanted["files"]:
        seen = look["files"].get(entry["path"], {"exists": False})
        text = _difference(seen, entry)
        if text:
            write.append(entry["path"])
            reasons.append(f"{entry['path']} {text}")
    token = _token(look, wanted, problems)
    if token:
        reasons.append(f"{TOKEN_FILE} is to be written")
    join, settled = _join(look, wanted)
    if join is not None or settled is not None:
        reasons.append(f"{JOIN_FILE} is to be written")

    changed = bool(write or token or "k3s" in install or plan.get("convert"))
    stale = [path for path in look["stale"] if path != JOIN_FILE]
    service = ""
    if running:
        if changed or stale:
            service = "restarted"
        if stale:
            reasons.append(f"it has been running since before a change of {', '.join(stale)}")
    elif unit_state["active"] == "activating" and unit_state["name"] == expected:
        service = "restarted" if changed or stale else ""
        reasons.append(f"{expected}.service is still starting")
    else:
        service = "started"
        reasons.append(f"{expected}.service does not run")
    if not service and not unit_state["enabled"] and running:
        service = "started"
        reasons.append(f"{expected}.service is not started with the machine")
    if service == "restarted" and not wanted["may_restart"]:
        problems.append(
            {
                "subject": f"{expected}.service",
                "fact": "is to restart, and the cluster cannot do without this server: others are away",
                "fix": "bring the other servers back first",
            }
        )
    return {
        "action": plan["action"],
        "wave": plan.get("wave", 0),
        "reasons": reasons,
        "install": install,
        "write": write,
        "token": token,
        "join": join,
        "settled": settled,
        "service": service,
        "notes": notes,
        "problems": problems,
    }


def _difference(seen: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    if entry["state"] == "absent":
        return "is to go" if seen["exists"] else ""
    if not seen["exists"]:
        return "is missing"
    if seen["sha256"] != hashlib.sha256(entry["content"].encode()).hexdigest():
        return "differs"
    if seen["mode"] != entry["mode"]:
        return f"has the mode {seen['mode']}"
    return "" if seen["uid"] == 0 else "is not root's"


def _artifacts(
    look: Mapping[str, Any],
    wanted: Mapping[str, Any],
    data: bool,
    reasons: list[str],
    notes: list[str],
    problems: list[dict[str, str]],
) -> list[str]:
    there, version = look["binary"], wanted["release"]["version"]
    problem = wanted["release"]["problem"]
    if problem and not (data and there["sha256"]):
        problems.append({"subject": "k3s", **problem})
    elif problem:
        notes.append(f"{problem['fact']}: {problem['fix']}")
    install = []
    for entry in wanted["release"]["files"]:
        if entry["name"] == "k3s":
            seen = there["sha256"]
        else:
            seen = look["files"].get(entry["dest"], {}).get("sha256", "")
        if seen == entry["sha256"]:
            continue
        # Another version than that of the program would be an upgrade, which goes its own way.
        if data and not wanted["change_version"] and there["version"] not in ("", version):
            if entry["name"] == "k3s":
                notes.append(f"has k3s {there['version']}, wanted is {version}: run edgeha.iotedge.upgrade")
            continue
        install.append(entry["name"])
        reasons.append(f"{entry['dest']} is not that of {version}")
    return install


def _token(look: Mapping[str, Any], wanted: Mapping[str, Any], problems: list[dict[str, str]]) -> str:
    seen = look["files"].get(TOKEN_FILE, {"exists": False, "mode": ""})
    there = seen["exists"] and seen["mode"] == "0600"
    given = k3s_facts.token_digest(wanted["token"])
    action = wanted["plan"]["action"]
    if action == "found":
        if given:
            return "given"
        return "" if there else "generate"
    if action == "join":
        return "read"
    own = look["data"]["token_sha256"]
    if given and own and given != own:
        problems.append(
            {
                "subject": "variable edge_k3s_token",
                "fact": "is another than the token of the cluster",
                "fix": "correct it, or leave it out; to change the token use edgeha.iotedge.rotate_keys",
            }
        )
    if there:
        return ""
    return "own" if wanted["role"] == "server" else "read"


def _join(look: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the text before the start and the one after it, None where nothing is to be written."""
    seen = look["files"].get(JOIN_FILE, {"exists": False, "sha256": ""})
    good = [join_text(server=address) for address in wanted["servers"]]
    if not good:
        # Nobody to join: one server, or a datastore that is elsewhere.
        good = [join_text(init=wanted["init"])]
    registration = {"labels": wanted["labels"], "taints": wanted["taints"]}
    plan = wanted["plan"]
    if plan.get("convert"):
        before = join_text(init=True)
    elif plan["action"] == "found":
        before = join_text(init=wanted["init"], **registration)
    elif plan["action"] == "join":
        preferred = plan["via"]
        if not wanted["servers"]:
            # Servers of a datastore that is elsewhere meet there.
            preferred = ""
        elif wanted["role"] == "agent":
            preferred = wanted["servers"][0]
        before = join_text(server=preferred, **registration)
    else:
        if (seen["sha256"] if seen["exists"] else "") in {_digest(text) for text in good}:
            return None, None
        return None, good[0]
    after = before if before in good else good[0]
    same = _digest(before) == (seen["sha256"] if seen["exists"] else "")
    return (None if same else before), (None if after == before else after)


def _digest(text: str) -> str:
    """Return the digest of a file's text; that of no text is empty, as that of no file."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
