# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credentials of devices in files on the controller, which Ansible Vault may have encrypted."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.edgeha.iotedge.plugins.module_utils import dps_keys, iothub_auth
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files


class CredentialFileError(Exception):
    """A file is missing or does not hold what it is to; the message names it, and never what is in it."""


def secret_data(gateway: Mapping[str, Any], variables: Mapping[str, Any], loader: Any) -> dict[str, str]:
    """Return the data (base64) of the Secret for a gateway whose credential is in files."""
    credential = gateway["credential"]
    if credential["type"] == "x509":
        pair = _pair(credential, variables, loader)
        return {name: base64.b64encode(content).decode() for name, content in pair.items()}
    key = _key(credential["key_file"], variables, loader)
    if gateway["dps"]["group"]:
        key = dps_keys.derive_device_key(key, gateway["dps"]["registration_id"])
    return {"device-key": base64.b64encode(key.encode()).decode()}


def error(credential: Mapping[str, Any], variables: Mapping[str, Any], loader: Any) -> str | None:
    """Return what is wrong with the files of a credential, None when they are good."""
    try:
        if credential.get("type") == "x509":
            if credential.get("certificate_file"):
                _pair(credential, variables, loader)
        else:
            _key(credential["key_file"], variables, loader)
    except CredentialFileError as problem:
        return str(problem)
    return None


def _pair(credential: Mapping[str, Any], variables: Mapping[str, Any], loader: Any) -> dict[str, bytes]:
    certificate, key = credential["certificate_file"], credential["key_file"]
    found = {
        "tls.crt": _content(certificate, variables, loader),
        "tls.key": _content(key, variables, loader),
    }
    if b"ENCRYPTED" in found["tls.key"]:
        raise CredentialFileError(
            f"the file {key} is protected by a passphrase, and a gateway starts without a person: take the "
            "passphrase off, and encrypt the file with ansible-vault"
        )
    # The library reads them from files only; those that the loader decrypts are its user's alone.
    paths = [loader.get_real_file(str(files.find(path, variables))) for path in (certificate, key)]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(paths[0], paths[1], password="")
    except (ssl.SSLError, ValueError) as problem:
        reason = getattr(problem, "reason", None) or "no PEM"
        raise CredentialFileError(
            f"the files {certificate} and {key} are no certificate with its key ({reason})"
        ) from None
    finally:
        for path in paths:
            loader.cleanup_tmp_file(path)
    return found


def _key(path: str, variables: Mapping[str, Any], loader: Any) -> str:
    try:
        key = _content(path, variables, loader).decode("ascii").strip()
        iothub_auth.decode_key(key)
    except (UnicodeDecodeError, iothub_auth.CredentialError):
        raise CredentialFileError(
            f"the file {path} holds no symmetric key: base64 of 16 to 64 bytes"
        ) from None
    return key


def _content(path: str, variables: Mapping[str, Any], loader: Any) -> bytes:
    """Return what is in a file, decrypted."""
    try:
        place = loader.get_real_file(str(files.find(path, variables)))
        try:
            return Path(place).read_bytes()
        finally:
            loader.cleanup_tmp_file(place)
    except FileMissingError as problem:
        raise CredentialFileError(
            f"the file {path} does not exist (searched: {', '.join(problem.searched)})"
        ) from None
    except OSError as problem:
        raise CredentialFileError(f"the file {path} cannot be read: {problem.strerror}") from None
    except AnsibleError as problem:
        # Such as a vault without its password; Ansible's text names the file and no content.
        raise CredentialFileError(f"the file {path} cannot be read: {problem.message}") from None
