# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of machines share: where they are, what a playbook says of them, what they must not hold."""

from __future__ import annotations

import base64
import os
import re
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import testinfra
import yaml
from testinfra.host import Host

PROJECT = Path(__file__).resolve().parents[2]
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
LAB_HOME = Path(os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab")
LAB = os.environ["EDGEHA_LAB_NAME"]
STATE = LAB_HOME / "run" / LAB
INVENTORY = STATE / "inventory" / "hosts.yml"
_ENVIRONMENT = {"ANSIBLE_COLLECTIONS_PATH": f"{PROJECT}/.collections", "ANSIBLE_FORCE_COLOR": "0"}
_SECRET = "/run/secret"
_SEARCH = f"grep -l -s -r -F -f {_SECRET}"
_SEARCHES = (
    f"journalctl --no-pager --quiet | grep -F -f {_SECRET}",
    f"{_SEARCH} /proc/[0-9]*/cmdline /proc/[0-9]*/environ",
    f"{_SEARCH} /etc/systemd /usr/lib/systemd /run/systemd /var/log /tmp /var/tmp",
    # Files that others than root may read.
    "find /etc /root /var/lib/rancher /run -xdev -type f -size -2048k -perm /077 "
    f"-exec grep -l -s -F -f {_SECRET} {{}} +",
)


class Row(NamedTuple):
    """What the recap of a playbook says of a host."""

    executed: int
    changed: int
    failed: int


def machine(name: str) -> Host:
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def addresses() -> dict[str, str]:
    """Return each machine with its address."""
    groups = yaml.safe_load(INVENTORY.read_text())["all"]["children"]
    return {
        name: values["ansible_host"]
        for group in groups.values()
        for name, values in (group.get("hosts") or {}).items()
    }


def vip() -> str:
    """Return the address that the servers share in scenarios that have one."""
    return addresses()["server1"].rpartition(".")[0] + ".250"


def administrator(kubeconfig: str, folder: Path) -> ssl.SSLContext:
    """Return an administrator's access, which checks that a certificate is one for the address asked."""
    config = yaml.safe_load(kubeconfig)
    values = config["clusters"][0]["cluster"] | config["users"][0]["user"]
    for key in ("certificate-authority-data", "client-certificate-data", "client-key-data"):
        (folder / key).write_bytes(base64.b64decode(values[key]))
    context = ssl.create_default_context(cafile=str(folder / "certificate-authority-data"))
    context.load_cert_chain(folder / "client-certificate-data", folder / "client-key-data")
    return context


def play(
    playbook: str, *options: str, inventory: str = f"{EPHEMERAL}/inventory", limit: int = 300
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the scenario to its end."""
    return subprocess.run(
        ["ansible-playbook", *options, "--inventory", inventory, playbook],
        cwd=SCENARIO, capture_output=True, text=True, timeout=limit, check=False,
        env={**os.environ, **_ENVIRONMENT},
    )  # fmt: skip


def recap(said: str) -> dict[str, Row]:
    """Return the last recap in what a playbook said, or in its log."""
    found = re.findall(r"(\S+)\s*: ok=(\d+)\s+changed=(\d+) .*failed=(\d+)", said)
    return {name: Row(*map(int, figures)) for name, *figures in found}


def nothing_to_change(done: subprocess.CompletedProcess[str]) -> dict[str, Row]:
    """Return the recap of a run, which must have gone well and found all as wanted.

    Molecule's own check step stays green whatever it finds, so tests read what check mode says.
    """
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    rows = recap(done.stdout)
    assert rows, done.stdout[-3000:]
    for name, row in rows.items():
        assert (row.changed, row.failed) == (0, 0), f"{name}: {done.stdout[-4000:]}"
    return rows


def places_of(secret: str, host: Host, folder: Path) -> list[str]:
    """Return where a machine holds a secret outside of files that are root's alone.

    folder: of the controller, for nobody else.
    """
    assert len(secret) >= 16
    # It goes from file to file, so that the search is not what is found.
    (folder / "secret").write_text(f"{secret}\n")
    host.ansible("copy", f"src={folder}/secret dest={_SECRET} mode=0600", check=False)
    try:
        assert host.file(_SECRET).size == len(secret) + 1
        return [found for search in _SEARCHES if (found := host.run(search).stdout)]
    finally:
        host.run(f"rm -f {_SECRET}")
