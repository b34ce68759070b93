# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what Linux tells of a machine: texts in, plain data out. Nothing here opens a file.

It runs on the machine itself, so it keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import mount_table

# What each distribution calls itself in os-release, and the family that its tools belong to.
_FAMILIES = {
    "debian": "debian",
    "ubuntu": "debian",
    "rhel": "redhat",
    "centos": "redhat",
    "rocky": "redhat",
    "almalinux": "redhat",
    "ol": "redhat",
    "fedora": "redhat",
}
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_SYSCTL_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")
_MODULE_EVIDENCE = {
    # A module that is built into the kernel may show by nothing but what it does.
    "br_netfilter": "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "nf_conntrack": "/proc/sys/net/netfilter/nf_conntrack_max",
    "ip_tables": "/proc/net/ip_tables_names",
}
_LISTEN = "0A"
_UNCONNECTED = "07"


def os_release(text: str) -> dict[str, Any]:
    """Return id, version, name, family and major of an os-release file; family is empty when unknown."""
    values = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            values[name] = " ".join(shlex.split(value))
    identity = values.get("ID", "linux")
    family = ""
    for candidate in (identity, *values.get("ID_LIKE", "").split()):
        family = family or _FAMILIES.get(candidate, "")
    version = values.get("VERSION_ID", "")
    return {
        "id": identity,
        "version": version,
        "major": version.partition(".")[0],
        "name": values.get("PRETTY_NAME", identity),
        "family": family,
    }


def container(pid1_environment: str, systemd_container: str, has_dockerenv: bool) -> str:
    """Return the kind of container that the machine is, empty for a machine with a kernel of its own."""
    for entry in pid1_environment.split("\0"):
        if entry.startswith("container=") and entry != "container=":
            return entry[len("container=") :]
    return systemd_container.strip() or ("docker" if has_dockerenv else "")


def interfaces(ip_json: str) -> list[dict[str, Any]]:
    """Return name, mac and addresses (with prefix length) of `ip -json address`, loopback left out."""
    found = []
    for link in json.loads(ip_json or "[]"):
        if not link.get("ifname") or link.get("link_type") == "loopback":
            continue
        addresses = [
            f"{entry['local']}/{entry['prefixlen']}"
            for entry in link.get("addr_info", [])
            if entry.get("scope") == "global" and entry.get("local")
        ]
        found.append({"name": link["ifname"], "mac": link.get("address", ""), "addresses": addresses})
    return found


def module_state(
    name: str,
    loaded: Iterable[str],
    builtin: Iterable[str],
    available: Iterable[str],
    filesystems: Iterable[str],
    exists: Iterable[str],
) -> str:
    """Return V(loaded), V(builtin), V(available) or V(missing) for one kernel module.

    builtin and available are names with underscores; exists lists the paths of `evidence` that are there.
    """
    wanted = name.replace("-", "_")
    if wanted in set(loaded):
        return "loaded"
    if wanted in set(builtin) or wanted in set(filesystems) or evidence(wanted) in set(exists):
        return "builtin"
    return "available" if wanted in set(available) else "missing"


def evidence(name: str) -> str:
    """Return a path that is there only when the kernel has the module."""
    return _MODULE_EVIDENCE.get(name, f"/sys/module/{name}")


def module_names(modules_file: str) -> set[str]:
    """Return the names in modules.builtin (a path a line) or modules.dep (a path, a colon, what it needs)."""
    names = set()
    for line in modules_file.splitlines():
        file = line.partition(":")[0].rpartition("/")[2].strip()
        if ".ko" in file:
            names.add(file.partition(".ko")[0].replace("-", "_"))
    return names


def first_words(text: str) -> set[str]:
    """Return the first word of each line that is no comment: /proc/modules, modules-load.d."""
    return {
        line.split()[0].replace("-", "_")
        for line in text.splitlines()
        if line.split() and not line.lstrip().startswith(("#", ";"))
    }


def filesystem_names(proc_filesystems: str) -> set[str]:
    """Return the names of /proc/filesystems, where a word may stand before the name."""
    return {line.split()[-1] for line in proc_filesystems.splitlines() if line.split()}


def sysctl_files(present: Iterable[str]) -> list[str]:
    """Return the files that count, in the order in which they are applied; later ones win.

    A file hides those of the same name in a folder of lower rank. /etc/sysctl.conf comes last.
    """
    by_name: dict[str, str] = {}
    paths = list(present)
    for folder in reversed(_SYSCTL_FOLDERS):
        for path in paths:
            place, _slash, name = path.rpartition("/")
            if place == folder and name.endswith(".conf"):
                by_name[name] = path
    ordered = [by_name[name] for name in sorted(by_name)]
    return ordered + [path for path in paths if path == "/etc/sysctl.conf"]


def persisted_sysctls(files: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return (value, path) for each name in files of (path, text), given in the order of `sysctl_files`."""
    found = {}
    for path, text in files:
        for line in text.splitlines():
            name, separator, value = line.strip().partition("=")
            if separator and not line.lstrip().startswith(("#", ";")):
                found[name.strip().lstrip("-").replace("/", ".")] = (" ".join(value.split()), path)
    return found


def sysctl_belongs_to_host(name: str) -> bool:
    """Whether a container sets this for the whole host: all but what the network namespace holds."""
    return not name.startswith("net.")


def swaps(proc_swaps: str) -> list[dict[str, Any]]:
    """Return name, kind and size in KiB of each swap in use."""
    rows = [line.split() for line in proc_swaps.splitlines()[1:]]
    return [{"name": row[0], "kind": row[1], "size_kib": int(row[2])} for row in rows if len(row) >= 3]


def fstab_swaps(fstab: str) -> list[dict[str, str]]:
    """Return source and target of each swap that is mounted at start-up."""
    return [
        {"source": entry.source, "target": entry.place}
        for entry in mount_table.fstab(fstab)
        if entry.kind == "swap"
    ]


def unit_properties(show: str) -> dict[str, dict[str, str]]:
    """Return what `systemctl show` tells of each unit."""
    blocks = show.strip().split("\n\n")
    found = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks]
    return {fields["Id"]: fields for fields in found if fields.get("Id")}


def units(show: str) -> dict[str, dict[str, str]]:
    """Return load, active, enabled and file of each unit in `systemctl show` with these properties."""
    names = {
        "load": "LoadState",
        "active": "ActiveState",
        "enabled": "UnitFileState",
        "file": "FragmentPath",
    }
    return {
        unit: {key: fields.get(name, "") for key, name in names.items()}
        for unit, fields in unit_properties(show).items()
    }


def cgroups(root_filesystem: str, cgroup2_controllers: str, proc_cgroups: str) -> dict[str, Any]:
    """Return version, controllers, and which of those that the kubelet needs are missing.

    root_filesystem is what is mounted on /sys/fs/cgroup; on version 1 /proc/cgroups has the last column 1 for
    each controller that is enabled.
    """
    if root_filesystem == "cgroup2":
        version, controllers = 2, cgroup2_controllers.split()
    else:
        rows = [line.split() for line in proc_cgroups.splitlines() if not line.startswith("#")]
        version, controllers = 1, [row[0] for row in rows if len(row) >= 4 and row[3] == "1"]
    missing = [name for name in CONTROLLERS if name not in controllers]
    return {"version": version, "controllers": sorted(controllers), "missing": missing}


def firewall(found_units: Mapping[str, Mapping[str, str]], ufw_conf: str) -> str:
    """Return what keeps firewall rules: V(firewalld), V(ufw), V(nftables), V(iptables) or V(none).

    Rules that a container engine or Kubernetes makes are no firewall.
    """

    def active(unit: str) -> bool:
        return found_units.get(unit, {}).get("active") == "active"

    enabled = dict(line.partition("=")[::2] for line in ufw_conf.splitlines()).get("ENABLED", "no")
    if active("firewalld.service"):
        return "firewalld"
    if enabled.strip().strip('"').lower() == "yes":
        return "ufw"
    if active("nftables.service"):
        return "nftables"
    if active("netfilter-persistent.service") or active("iptables.service"):
        return "iptables"
    return "none"


def ufw_opened(user_rules: str) -> tuple[list[str], list[str]]:
    """Return the ports (V(6443/tcp), V(2379:2380/tcp)) and the networks that ufw's user.rules let in."""
    ports, sources = [], []
    for line in user_rules.splitlines():
        words = line.split()
        # ### tuple ### allow PROTOCOL PORT DESTINATION SOURCE-PORT SOURCE in
        if words[:4] == ["###", "tuple", "###", "allow"] and len(words) >= 10:
            protocol, port, source = words[4], words[5], words[8]
            if port != "any" and source == "0.0.0.0/0":
                ports.append(f"{port}/{protocol}")
            elif port == "any" and source != "0.0.0.0/0":
                sources.append(source)
    return sorted(ports), sorted(sources)


def selinux(enforce: str | None, config: str) -> dict[str, str]:
    """Return state (V(enforcing), V(permissive), V(disabled)) and what the next start will have."""
    states = {"1": "enforcing", "0": "permissive"}
    configured = "disabled"
    for line in config.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and name == "SELINUX":
            configured = value.strip()
    state = "disabled" if enforce is None else states.get(enforce.strip(), "disabled")
    return {"state": state, "configured": configured}


def dpkg_versions(status: str, wanted: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each wanted package in dpkg's status file, None when it is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(wanted)
    for paragraph in status.split("\n\n"):
        if not paragraph.startswith("Package: "):
            continue
        name = paragraph[len("Package: ") :].partition("\n")[0].strip()
        if name not in versions:
            continue
        fields = dict(line.partition(": ")[::2] for line in paragraph.splitlines() if line[:1].strip())
        if fields.get("Status", "").split()[-1:] == ["installed"]:
            versions[name] = fields.get("Version")
    return versions


def rpm_versions(listing: str, wanted: Iterable[str]) -> dict[str, str | None]:
    """The same from `rpm -q --queryformat '%{NAME} %{VERSION}-%{RELEASE}\\n'`; other lines do not count."""
    versions: dict[str, str | None] = dict.fromkeys(wanted)
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] in versions:
            versions[words[0]] = words[1]
    return versions


def memory_mib(meminfo: str) -> int:
    """Return MemTotal of /proc/meminfo in MiB."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def sockets(tables: Mapping[str, str]) -> Iterator[tuple[str, int, str]]:
    """Return protocol, port and inode of each listening socket in /proc/net/{tcp,tcp6,udp,udp6}.

    A socket of the kernel itself has the inode 0.
    """
    for name, text in tables.items():
        protocol = name[:3]
        for line in text.splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == (_LISTEN if protocol == "tcp" else _UNCONNECTED):
                yield protocol, int(words[1].rpartition(":")[2], 16), words[9]


def listening(tables: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return protocol and port of each listening socket, each port once."""
    found = {(protocol, port) for protocol, port, _inode in sockets(tables)}
    return [{"protocol": protocol, "port": port} for protocol, port in sorted(found)]


def disks(lsblk_json: str, wipefs_json: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return whole disks of `lsblk --json --bytes`: path, size, signatures, mounts, parts, and whether empty.

    Signatures are those that lsblk knows (partition table, file systems of it and its parts) and those that
    `wipefs --no-act --json` read from the disk itself, whose answers stand in wipefs_json by path. A disk is
    empty when it was read, and has no signature, parts or mounts; one that could not be read never is.
    """
    found = []
    for device in json.loads(lsblk_json or "{}").get("blockdevices", []):
        if device.get("type") != "disk" or str(device.get("name", "")).startswith(("zram", "ram")):
            continue
        path = f"/dev/{device['name']}"
        answer = wipefs_json.get(path, "").strip()
        signatures = {entry["type"] for entry in json.loads(answer or "{}").get("signatures", [])}
        family = _with_children(device)
        for entry in family:
            signatures |= {entry[key] for key in ("fstype", "pttype") if entry.get(key)}
        mounts = sorted({place for entry in family for place in _mounts(entry)})
        found.append(
            {
                "path": path,
                "size_bytes": int(device.get("size") or 0),
                "signatures": sorted(signatures),
                "mounts": mounts,
                "parts": len(family) - 1,
                "empty": bool(answer) and not signatures and not mounts and len(family) == 1,
            }
        )
    return found


def _with_children(device: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = [device]
    for child in device.get("children", []):
        found += _with_children(child)
    return found


def _mounts(device: Mapping[str, Any]) -> list[str]:
    # util-linux before 2.37 tells one mount point only.
    places = device.get("mountpoints") or [device.get("mountpoint")]
    return [place for place in places if place]


def filesystem_of(mounts: str, path: str) -> str:
    """Return the kind of the file system that holds an absolute path, from /proc/self/mounts."""
    best, kind = "", ""
    for _source, place, name, _options in mount_table.mounted(mounts):
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if name and inside and len(place) >= len(best):
            best, kind = place, name
    return kind


def swap_units(found_units: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return name, and whether it is active, of each swap unit; those made from fstab are marked."""
    return [
        {
            "name": name,
            "active": unit["active"] == "active",
            "from_fstab": unit["file"].startswith("/run/systemd/generator/"),
        }
        for name, unit in sorted(found_units.items())
        if name.endswith(".swap") and unit["load"] == "loaded"
    ]


def managed_block(text: str, name: str) -> str | None:
    """Return the lines between `# BEGIN name` and `# END name`, None without such a block."""
    lines = text.splitlines()
    try:
        begin = lines.index(f"# BEGIN {name}")
        end = lines.index(f"# END {name}", begin)
    except ValueError:
        return None
    return "\n".join(lines[begin + 1 : end])


def cannot_be_set(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return subject, fact and fix of all that is not as wanted and cannot be set on this machine."""
    found = []
    kind = facts["kernel"]["container"]
    whose = f"this machine is a container ({kind}) and the kernel is its host's"
    for name, state in facts["modules"].items():
        if state["state"] == "missing":
            fact = f"kernel {facts['kernel']['release']} does not have it"
            fix = "install the kernel's extra modules, or a kernel that has it"
            if kind:
                fact, fix = f"not loaded, and {whose}", f"load {name} on the host"
            found.append(_problem(f"kernel module {name}", fact, fix))
        elif state["state"] == "available" and kind:
            found.append(
                _problem(f"kernel module {name}", f"not loaded, and {whose}", f"load {name} on the host")
            )
    for name, value in facts["sysctls"].items():
        if value["live"] == value["wanted"]:
            continue
        if value["live"] is None and not value["settable"]:
            fact = "this kernel does not have it" if not kind else f"not there, and {whose}"
            found.append(_problem(f"sysctl {name}", fact, "load the module that brings it"))
        elif not value["settable"]:
            fact = f"{value['live']} instead of {value['wanted']}, and {whose}"
            found.append(_problem(f"sysctl {name}", fact, f"set {name}={value['wanted']} on the host"))
    for name, value in facts["sysctls"].items():
        if value["overridden_by"]:
            fact = f"{value['overridden_by']} sets {value['persisted']} and is read after ours"
            found.append(_problem(f"sysctl {name}", fact, f"take {name} out of {value['overridden_by']}"))
    if kind and facts["swap"]["live"]:
        found.append(_problem("swap", f"in use, and {whose}", "swapoff --all on the host"))
    if kind and not facts["clock"]["synchronised"]:
        found.append(_problem("clock", f"not synchronised, and {whose}", "synchronise the host's clock"))
    if facts["cgroups"]["missing"]:
        missing = ", ".join(facts["cgroups"]["missing"])
        fix = f"start the host's kernel with cgroup_enable for {missing}"
        found.append(_problem("cgroups", f"controllers are missing: {missing}", fix))
    return found


def _problem(subject: str, fact: str, fix: str) -> dict[str, str]:
    return {"subject": subject, "fact": fact, "fix": fix}


def is_later(path: str, ours: str) -> bool:
    """Whether a sysctl file is applied after ours."""
    return path == "/etc/sysctl.conf" or path.rpartition("/")[2] > ours.rpartition("/")[2]


def sysctl_view(
    wanted: Mapping[str, str],
    live: Mapping[str, str | None],
    persisted: Mapping[str, tuple[str, str]],
    writable: Iterable[str],
    in_container: bool,
    ours: str,
) -> dict[str, dict[str, Any]]:
    """Return for each wanted name: wanted, live, persisted, settable, as_wanted, and what overrides ours.

    writable are the names that can be written, and those that come with a module that can be loaded.
    """
    can_write = set(writable)
    view = {}
    for name, raw in wanted.items():
        value = " ".join(str(raw).split())
        kept, path = persisted.get(name, (None, ""))
        view[name] = {
            "wanted": value,
            "live": live.get(name),
            "persisted": kept,
            "settable": name in can_write and not (in_container and sysctl_belongs_to_host(name)),
            "as_wanted": live.get(name) == kept == value,
            "overridden_by": path if kept is not None and kept != value and is_later(path, ours) else "",
        }
    return view


def reboot_reasons(release: str, releases: Iterable[str], marker: bool, kind: str) -> list[str]:
    """Return why the machine should start again; never for a container, which has no kernel to start.

    releases are the kernels that have modules on the disk. A kernel without any is one that needs none.
    """
    installed = sorted(releases)
    reasons = ["a package asks for it (/run/reboot-required)"] if marker else []
    if installed and release not in installed:
        reasons.append(f"kernel {release} runs and its modules are gone; {installed[-1]} is installed")
    return [] if kind else reasons


def initiator(initiatorname_iscsi: str) -> str:
    """Return the machine's iSCSI name, empty when there is none."""
    for line in initiatorname_iscsi.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and name == "InitiatorName":
            return value.strip()
    return ""


def disk_paths(lsblk_json: str) -> list[str]:
    """Return the device files of whole disks."""
    return [disk["path"] for disk in disks(lsblk_json, {})]
