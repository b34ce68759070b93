# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credentials of devices in files on the controller, which Ansible Vault may have encrypted."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    dps_keys,
    gateway_identity,
    iothub_auth,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files


class CredentialFileError(Exception):
    """A file is missing or does not hold what it is to; the message names it, and never what is in it."""


def secret_data(gateway: Mapping[str, Any], variables: Mapping[str, Any], loader: Any) -> dict[str, str]:
    """Return the data (base64) of the Secret for a gateway whose credential is in files."""
    credential = gateway["credential"]
    if credential["type"] == gateway_identity.X509:
        pair = _pair(credential, variables, loader)
        return {name: base64.b64encode(content).decode() for name, content in pair.items()}
    key = _key(credential["key_file"], variables, loader)
    if gateway["dps"]["group"]:
        key = dps_keys.derive_device_key(key, gateway["dps"]["registration_id"])
    (name,) = gateway_identity.SECRET_ENTRIES[gateway_identity.SYMMETRIC_KEY]
    return {name: base64.b64encode(key.encode()).decode()}


def error(credential: Mapping[str, Any], variables: Mapping[str, Any], loader: Any) -> str | None:
    """Return what is wrong with the files of a credential, None when they are good."""
    try:
        if credential.get("type") == gateway_identity.X509:
            if credential.get("certificate_file"):
                _pair(credential, variables, loader)
        else:
            _key(credential["key_file"], variables, loader)
    except CredentialFileError as problem:
        return str(problem)
    return None


def _pair(credential: Mapping[str, Any], variables: Mapping[str, Any], loader: Any) -> dict[str, bytes]:
    """Return the entries of the Secret for a certificate and its key."""
    certificate, key = credential["certificate_file"], credential["key_file"]
    with (
        _opened(certificate, variables, loader) as (certificate_place, certificate_content),
        _opened(key, variables, loader) as (key_place, key_content),
    ):
        if b"ENCRYPTED" in key_content:
            raise CredentialFileError(
                f"the file {key} is protected by a passphrase, and a gateway starts without a person: take "
                "the passphrase off, and encrypt the file with ansible-vault"
            )
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_cert_chain(certificate_place, key_place, password="")
        except (ssl.SSLError, ValueError) as problem:
            reason = getattr(problem, "reason", None) or "no PEM"
            raise CredentialFileError(
                f"the files {certificate} and {key} are no certificate with its key ({reason})"
            ) from None
    names = gateway_identity.SECRET_ENTRIES[gateway_identity.X509]
    return dict(zip(names, (certificate_content, key_content), strict=True))


def _key(path: str, variables: Mapping[str, Any], loader: Any) -> str:
    with _opened(path, variables, loader) as (_place, content):
        try:
            key = content.decode("ascii").strip()
            iothub_auth.decode_key(key)
        except (UnicodeDecodeError, iothub_auth.CredentialError):
            raise CredentialFileError(
                f"the file {path} holds no symmetric key: base64 of 16 to 64 bytes"
            ) from None
    return key


@contextlib.contextmanager
def _opened(path: str, variables: Mapping[str, Any], loader: Any) -> Iterator[tuple[str, bytes]]:
    """Give a file, decrypted, and what is in it; OpenSSL reads certificates from files only.

    A file that the loader decrypted is its user's alone, and gone afterwards.
    """
    try:
        place = loader.get_real_file(str(files.find(path, variables)))
        content = Path(place).read_bytes()
    except FileMissingError as problem:
        raise CredentialFileError(
            f"the file {path} does not exist (searched: {', '.join(problem.searched)})"
        ) from None
    except OSError as problem:
        raise CredentialFileError(f"the file {path} cannot be read: {problem.strerror}") from None
    except AnsibleError as problem:
        # Such as a vault without its password; Ansible's text names the file and no content.
        raise CredentialFileError(f"the file {path} cannot be read: {problem.message}") from None
    try:
        yield place, content
    finally:
        loader.cleanup_tmp_file(place)
