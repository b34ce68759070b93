# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of the lab, reached as a role reaches it: by ssh as root."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = "/var/lib/rancher/k3s"
ADMIN = f"{DATA}/server/tls/client-admin"
PAUSE = 0.5

UNIT = """[Unit]
Description=Lightweight Kubernetes
After=network-online.target
[Service]
Type=notify
EnvironmentFile=-/etc/rancher/k3s/k3s.env
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TimeoutStartSec=0
Restart=always
RestartSec=2s
ExecStart=/usr/local/bin/k3s {role}
[Install]
WantedBy=multi-user.target
"""


def eventually(what: str, holds: Callable[[], Any], limit: float = 90) -> Any:
    """Waits until something is true, and returns it."""
    deadline = time.monotonic() + limit
    while True:
        try:
            value = holds()
        except AssertionError as error:
            value, last = None, str(error)
        else:
            last = repr(value)
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {limit:.0f} s for {what}; last seen: {last[-800:]}"
        time.sleep(PAUSE)


@dataclass
class Machine:
    name: str
    address: str
    key: str
    options: str
    source: str
    role: str = "server"

    @property
    def unit(self) -> str:
        return "k3s" if self.role == "server" else "k3s-agent"

    def ask(self, command: str, *, stdin: str = "", limit: float = 120) -> subprocess.CompletedProcess[str]:
        words = [
            "ssh",
            "-i",
            self.key,
            *shlex.split(self.options),
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
        ]
        words += ["-o", "ConnectTimeout=10", f"root@{self.address}", command]
        return subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=limit, check=False)

    def run(self, command: str, *, stdin: str = "", limit: float = 120) -> str:
        done = self.ask(command, stdin=stdin, limit=limit)
        assert done.returncode == 0, f"{self.name}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def write(self, path: str, content: str, mode: str = "600") -> None:
        script = f"umask 077; mkdir -p $(dirname {path}); cat > {path}; chmod {mode} {path}"
        self.run(script, stdin=content)

    def fetch(self, version: str, name: str, target: str) -> None:
        url = f"{self.source}/{version.replace('+', '%2B')}/{name}"
        script = f"import urllib.request as u; u.urlretrieve({url!r}, {target + '.new'!r})"
        self.run(
            f"mkdir -p $(dirname {target}); python3 -c {shlex.quote(script)} && mv {target}.new {target}"
        )

    def install(self, version: str, *, images: bool = True) -> None:
        """The program, its images and its unit: what an installer does."""
        self.fetch(version, "k3s", "/usr/local/bin/k3s")
        self.run("chmod 755 /usr/local/bin/k3s")
        if images:
            archive = "k3s-airgap-images-amd64.tar.zst"
            self.fetch(version, archive, f"{DATA}/agent/images/{archive}")
        self.write(f"/etc/systemd/system/{self.unit}.service", UNIT.format(role=self.role), "644")
        self.run(f"systemctl daemon-reload; systemctl enable -q {self.unit}")

    def configure(self, **settings: Any) -> None:
        document = {name.replace("_", "-"): value for name, value in settings.items()}
        self.write("/etc/rancher/k3s/config.yaml", yaml.safe_dump(document))

    def start(self, limit: float = 180) -> None:
        done = self.ask(f"timeout {limit:.0f} systemctl start {self.unit}", limit=limit + 20)
        state = self.ask(f"systemctl is-active {self.unit}").stdout.strip()
        problem = f"{self.name} is {state}: {self.log()}"
        assert done.returncode == 0, problem
        assert state == "active", problem

    def restart(self) -> None:
        self.run(f"systemctl stop {self.unit}")
        self.start()

    def stop(self) -> None:
        self.run(f"systemctl stop {self.unit}")

    def log(self, lines: int = 25) -> str:
        return self.ask(f"journalctl -u {self.unit} --no-pager -o cat -n {lines}").stdout

    def exists(self, path: str) -> bool:
        return self.ask(f"test -e {path}").returncode == 0

    def mode(self, path: str) -> str:
        return self.run(f"stat -L -c %a {path}").strip()

    def kubectl(self, words: str, *, stdin: str = "") -> str:
        return self.run(f"k3s kubectl {words}", stdin=stdin)

    def get(self, words: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.kubectl(f"get -o json {words}"))
        return document

    def https(self, path: str, *, admin: bool = False, address: str = "127.0.0.1") -> tuple[int, str]:
        """Status and text of a GET at port 6443, checked against the cluster's authority."""
        script = f"""
import ssl, urllib.request, urllib.error
context = ssl.create_default_context(cafile="{DATA}/server/tls/server-ca.crt")
{f'context.load_cert_chain("{ADMIN}.crt", "{ADMIN}.key")' if admin else ""}
try:
    answer = urllib.request.urlopen("https://{address}:6443{path}", context=context, timeout=10)
    print(answer.status); print(answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code); print(error.read().decode())
"""
        status, _, text = self.run("python3 -", stdin=script).partition("\n")
        return int(status), text.rstrip("\n")

    def node(self, name: str | None = None) -> dict[str, Any]:
        return self.get(f"node {name or self.name}")

    def is_ready(self, name: str | None = None) -> bool:
        return condition(self.node(name), "Ready") == "True"

    def members(self) -> dict[str, str]:
        """EtcdIsVoter of each node that has it."""
        nodes = self.get("nodes")["items"]
        return {
            node["metadata"]["name"]: condition(node, "EtcdIsVoter")
            for node in nodes
            if condition(node, "EtcdIsVoter")
        }


def condition(node: dict[str, Any], kind: str) -> str:
    for each in node["status"].get("conditions", []):
        if each["type"] == kind:
            return str(each["status"])
    return ""


def lab(*words: str) -> None:
    name = os.environ.get("LAB_NAME", "contract")
    done = subprocess.run(
        [CHECKOUT / "lab" / "lab", "--name", name, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
