# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in the state directory, and how files get there.

ca.pem, ca.key              the hub's own certificate authority
server.pem, server.key      the certificate that HTTPS and MQTT serve
policies.json               shared access policies: {"iothubowner": "<base64 key>", ...}
hub.json                    {"names": [...]}: the host names and addresses the hub answers to
dps.json                    {"idScope": "..."}: what devices name the provisioning service by
azure.json                  tenant, subscription, credentials and signing key of the Azure stand-ins
device-ca/                  authorities whose certificates prove devices
hub.sqlite3                 identities, twins, messages
serve.lock, serve.pid       held and written by the one running server
"""

import contextlib
import errno
import fcntl
import ipaddress
import json
import os
import secrets
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

POLICY_NAMES = ("iothubowner", "service", "device", "registryRead", "registryReadWrite")
DPS_POLICY_NAMES = ("provisioningserviceowner",)


class StateError(Exception):
    """The state directory cannot be used; the text names the file, the fact and the fix."""


class State:
    """Paths and small files of one hub's state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca_certificate = directory / "ca.pem"
        self.ca_key = directory / "ca.key"
        self.server_certificate = directory / "server.pem"
        self.server_key = directory / "server.key"
        self.policies_file = directory / "policies.json"
        self.hub_file = directory / "hub.json"
        self.dps_file = directory / "dps.json"
        self.azure_file = directory / "azure.json"
        self.device_ca = directory / "device-ca"
        self.database = directory / "hub.sqlite3"
        self.lock_file = directory / "serve.lock"
        self.pid_file = directory / "serve.pid"

    def create(self) -> None:
        """Make the directory with mode 0700, also when it was there with a wider one."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory.chmod(0o700)

    def names(self) -> list[str]:
        """Host names and addresses given to `init` so far, in that order."""
        if not self.hub_file.exists():
            return []
        names = _load_json(self.hub_file).get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise StateError(f"{self.hub_file}: 'names' is not a list of strings; run init with --name again")
        return names

    def add_names(self, new: list[str]) -> list[str]:
        """Add host names (kept as given, compared without case); returns all of them."""
        names = self.names()
        known = {name.lower() for name in names}
        for name in new:
            check_name(name)
            if name.lower() not in known:
                known.add(name.lower())
                names.append(name)
        if not names:
            raise StateError(f"{self.directory}: the hub has no name yet; give at least one --name")
        if names != self.names():
            write_private(self.hub_file, json.dumps({"names": names}, indent=2).encode() + b"\n")
        return names

    def policies(self) -> dict[str, str]:
        """The hub's policies: name -> base64 key. Raises StateError when the file is missing or torn."""
        return self._policies(POLICY_NAMES)

    def dps_policies(self) -> dict[str, str]:
        """The same of the provisioning service."""
        return self._policies(DPS_POLICY_NAMES)

    def _policies(self, names: tuple[str, ...]) -> dict[str, str]:
        if not self.policies_file.exists():
            raise StateError(f"{self.policies_file} is missing; run init --state {self.directory} first")
        policies = _load_json(self.policies_file)
        missing = [name for name in names if not isinstance(policies.get(name), str)]
        if missing:
            raise StateError(
                f"{self.policies_file} lacks the policies {', '.join(missing)}; run init again, or restore it"
            )
        return {name: str(policies[name]) for name in names}

    def ensure_policies(self) -> None:
        """Make keys for all policies once; keys that are there stay.

        A state from before the provisioning service gets the keys that it lacks.
        """
        keys: dict[str, object] = {}
        if self.policies_file.exists():
            self.policies()
            keys = _load_json(self.policies_file)
        wanted = POLICY_NAMES + DPS_POLICY_NAMES
        if not keys.keys() >= set(wanted):
            new = {name: b64encode(secrets.token_bytes(32)).decode() for name in wanted if name not in keys}
            write_private(self.policies_file, json.dumps(keys | new, indent=2).encode() + b"\n")

    def id_scope(self) -> str:
        """The provisioning service's scope, made once."""
        if not self.dps_file.exists():
            scope = f"0ne{secrets.token_hex(4).upper()}"
            write_private(self.dps_file, json.dumps({"idScope": scope}).encode() + b"\n", mode=0o644)
        scope_kept = _load_json(self.dps_file).get("idScope")
        if not isinstance(scope_kept, str) or not scope_kept.isalnum():
            raise StateError(f"{self.dps_file}: 'idScope' is not letters and digits; restore the file")
        return scope_kept

    @contextlib.contextmanager
    def server_lock(self) -> Iterator[None]:
        """Hold the right to serve this state. The kernel gives it back when the process dies."""
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
                holder = self._read_pid()
                raise StateError(
                    f"{self.directory}: another server{holder} serves it; stop that or use another --state"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def _read_pid(self) -> str:
        try:
            return f" (process {int(self.pid_file.read_text())})"
        except (OSError, ValueError):
            return ""


def check_name(name: str) -> None:
    """Refuse what cannot stand in a certificate or in a token's resource."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return
    labels = name.split(".")
    if len(name) > 253 or not all(
        0 < len(label) <= 63 and label.isascii() and label.replace("-", "a").isalnum() for label in labels
    ):
        raise StateError(f"--name {name!r} is neither a host name nor an IP address (give it without a port)")


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that it is whole or not there, on disk when this returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _load_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise StateError(
            f"{path} is not JSON ({error}); restore the file or start with a new --state"
        ) from None
    if not isinstance(content, dict):
        raise StateError(f"{path} holds no JSON object; restore the file or start with a new --state")
    return content
