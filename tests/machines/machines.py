# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bare machines of the lab, and what stands on them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
NAME = os.environ.get("EDGEHA_MACHINES_LAB", "machines")
SERVERS, AGENTS = 3, 1
# Everything that a role could leave: files with owner, mode, size and time; units; addresses and mounts.
_STATE = r"""
find /etc /opt /srv /usr/local /usr/bin /root /var/lib /lib/systemd/system -xdev \
  \( -path /root/.ansible -o -path /var/lib/systemd -o -path /var/lib/edge/.ansible \) -prune -o \
  -type f -printf '%p %u %m %s %T@\n' -o -type l -printf '%p -> %l\n' -o -type d -printf '%p %u %m\n' | sort
systemctl list-unit-files --no-legend --no-pager
systemctl list-units --all --no-legend --no-pager --plain --type=service,socket,mount,swap | grep -v ssh@
systemctl show --property=Id,ActiveEnterTimestampMonotonic squatter.service ssh.service
ip -oneline address | sed 's/valid_lft.*//'
"""
# What a machine can have that others do not: its clock, its architecture. The module sees no difference.
_ODD: Mapping[str, str] = {
    "late": "import time\n_now = time.time\ntime.time = lambda: _now() - 3600\n",
    "riscv": "import platform\nplatform.machine = lambda: 'riscv64'\n",
    "arm": "import platform\nplatform.machine = lambda: 'aarch64'\n",
}
_PREPARE = r"""
set -e
for name in ODD; do
  mkdir -p /opt/odd/$name
  (echo '#!/bin/sh'; echo "export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/odd/$name"
   echo 'exec /usr/bin/python3 "$@"') > /opt/odd/$name/python3
  chmod 755 /opt/odd/$name/python3
done
mkdir -p /srv/older/server/db /srv/older/agent /srv/small
if [ "$(hostname)" = server1 ]; then mkdir -p /srv/one/server/db; fi
printf '#!/bin/sh\necho "k3s version v1.33.5+k3s1 (0000000)"\n' > /usr/local/bin/k3s
chmod 755 /usr/local/bin/k3s
mountpoint -q /srv/small || mount -t tmpfs -o size=16m tmpfs /srv/small
id edge >/dev/null 2>&1 || useradd --create-home --home-dir /var/lib/edge edge
mkdir -p /var/lib/edge/.ssh /var/lib/edge/.ansible
cp /root/.ssh/authorized_keys /var/lib/edge/.ssh/
chown -R edge /var/lib/edge
"""
_SQUATTER = """[Service]
ExecStart=/usr/bin/python3 -m http.server --directory /srv/small 6443
"""


@dataclass(frozen=True)
class Machines:
    """The lab: its folder, the variables that its inventory has for all, and the address of each machine."""

    folder: Path
    variables: Mapping[str, Any]
    addresses: Mapping[str, str]

    @property
    def gateway(self) -> str:
        """The address of this host in the network of the lab."""
        return next(iter(self.addresses.values())).rpartition(".")[0] + ".1"

    def address(self, last: int) -> str:
        return f"{self.gateway.rpartition('.')[0]}.{last}"

    def run(self, name: str, script: str) -> str:
        """Run a shell script on a machine and return what it prints."""
        command = [
            "ssh", "-i", str(self.variables["ansible_ssh_private_key_file"]),
            *shlex.split(str(self.variables["ansible_ssh_common_args"])),
            "-o", "ControlMaster=auto", "-o", "ControlPersist=30",
            "-o", f"ControlPath={self.folder}/ssh/%h",
            f"root@{self.addresses[name]}", "sh -s",
        ]  # fmt: skip
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        return done.stdout

    def on_all(self, script: str) -> dict[str, str]:
        with ThreadPoolExecutor() as pool:
            return dict(
                zip(
                    self.addresses, pool.map(lambda name: self.run(name, script), self.addresses), strict=True
                )
            )

    def state(self) -> dict[str, str]:
        """Return by machine a text that is another one when anything on it was changed."""
        return self.on_all(_STATE)

    def prepare(self) -> None:
        """Give the machines what some of the wrong inventories meet."""
        script = _PREPARE.replace("ODD", " ".join(_ODD))
        for name, text in _ODD.items():
            script += f"cat > /opt/odd/{name}/sitecustomize.py <<'END'\n{text}END\n"
        self.on_all(script)
        unit = f"cat > /etc/systemd/system/squatter.service <<'END'\n{_SQUATTER}END\n"
        self.run("agent1", f"{unit}systemctl daemon-reload && systemctl start squatter.service")


def up() -> Machines:
    """Start the machines, or take those that run."""
    size = ["--servers", str(SERVERS), "--agents", str(AGENTS)]
    _lab("up", "--topology", "k3s", *size)
    home = os.environ.get("EDGEHA_LAB_HOME") or "~/.cache/edgeha-lab"
    folder = Path(home).expanduser() / "run" / NAME
    inventory = yaml.safe_load((folder / "inventory" / "hosts.yml").read_text())["all"]
    hosts = {
        name: entry["ansible_host"]
        for group in inventory["children"].values()
        for name, entry in group.get("hosts", {}).items()
    }
    return Machines(folder, inventory["vars"], hosts)


def down() -> None:
    _lab("down")


def _lab(*words: str) -> None:
    done = subprocess.run(
        [str(ROOT / "lab" / "lab"), "--name", NAME, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
