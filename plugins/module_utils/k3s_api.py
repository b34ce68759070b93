# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who asks the API of a k3s, and where: the keys of a server, or a kubeconfig that k3s wrote.

It runs on machines too, so it keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_facts, kube_api

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KUBECONFIG_KEYS = (
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
)


@dataclass(frozen=True)
class Access:
    """Where an API is, and who asks. Each of the three is a path, or the PEM text itself; empty for none."""

    server: str
    authority: str = ""
    certificate: str = ""
    key: str = ""


def of_data_dir(data_dir: str, port: int = 6443) -> Access:
    """Return the access that a server has to its own API."""
    tls = f"{data_dir}/server/tls"
    return Access(
        f"https://127.0.0.1:{port}",
        f"{tls}/server-ca.crt",
        f"{tls}/client-admin.crt",
        f"{tls}/client-admin.key",
    )


def of_kubeconfig(text: str) -> Access:
    """Return the access in a kubeconfig with one cluster and one user, as k3s writes it (YAML or JSON).

    Raises ValueError when there is more than one of them, or no server.
    """
    values: dict[str, str] = {}
    for name in _KUBECONFIG_KEYS:
        found = re.findall(rf'(?m)(?:^|[\s{{,-])"?{name}"?:\s*["\']?([^\s"\',}}]+)', text)
        if len(set(found)) > 1:
            raise ValueError(f"the kubeconfig has more than one {name}")
        values[name] = found[0] if found else ""
    if not values["server"]:
        raise ValueError("the kubeconfig names no server")
    return Access(
        values["server"],
        *(
            _decoded(values[f"{name}-data"]) or values[name]
            for name in ("certificate-authority", "client-certificate", "client-key")
        ),
    )


def _decoded(data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise ValueError("the kubeconfig holds data that is no base64") from error


def connect(access: Access, timeout: float = 5.0) -> kube_api.KubeApi:
    """Return a client for it. Raises KubeError when the certificates cannot be read."""
    parts = urlsplit(access.server)
    if parts.scheme != "https" or not parts.hostname:
        raise kube_api.KubeError(0, "NoAddress", f"{access.server} is no https address")
    context = _context(access, parts.hostname)
    return kube_api.KubeApi(context, parts.hostname, parts.port or 443, timeout)


def readyz(api: kube_api.KubeApi) -> tuple[bool, str]:
    """Return whether the API answers at all, and why it is not ready; empty when it is."""
    try:
        api.text("/readyz?verbose")
    except kube_api.KubeError as error:
        if not error.status:
            return False, error.message
        return True, k3s_facts.readyz_problem(error.status, error.text)
    return True, ""


def node(api: kube_api.KubeApi, name: str) -> dict[str, Any] | None:
    """Return one Node object, None when there is no such node."""
    return api.find(f"/api/v1/nodes/{quote(name, safe='')}")


def is_pem(source: str) -> bool:
    """Return whether one of the three of an access is the text itself."""
    return source.lstrip().startswith("-----BEGIN")


def _context(access: Access, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The authority of a cluster signs nothing but its servers, and one that asks itself needs no name for it.
    context.check_hostname = host not in _LOOPBACK
    try:
        if access.authority:
            with _path(access.authority) as authority:
                context.load_verify_locations(authority)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if access.certificate:
            with _path(access.certificate) as certificate, _path(access.key) as key:
                context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        given = (access.authority, access.certificate, access.key)
        paths = ", ".join(source for source in given if source and not is_pem(source))
        raise kube_api.KubeError(
            0,
            "NoCredentials",
            f"the certificates for {access.server} cannot be read{f' ({paths})' if paths else ''}: {error}",
        ) from error
    return context


@contextlib.contextmanager
def _path(source: str) -> Iterator[str]:
    """Give a path to what is a path or a text; a text stays in memory, and no key comes to a disk."""
    if not is_pem(source):
        yield source
        return
    file = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as out:
            out.write(source.encode())
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)
