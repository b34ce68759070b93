# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.edgeha.iotedge.plugins.module_utils import dps_keys, inventory_rules
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import credential_files

KEY = base64.b64encode(b"0123456789abcdef").decode()
X509 = {"type": "x509", "certificate_file": "gw.pem", "key_file": "gw.key"}


def certificate(folder: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, Any]:
    certificate(tmp_path, "gw")
    certificate(tmp_path, "other")
    (tmp_path / "enrollment.key").write_text(f"{KEY}\n")
    (tmp_path / "text.key").write_text("no key")
    return {"inventory_dir": str(tmp_path)}


@pytest.fixture
def loader() -> DataLoader:
    found = DataLoader()
    found.set_vault_secrets([("default", VaultSecret(b"password"))])
    return found


def encrypt(path: Path) -> None:
    path.write_bytes(VaultLib([("default", VaultSecret(b"password"))]).encrypt(path.read_bytes()))


def data(variables: dict[str, Any], loader: DataLoader, **entry: Any) -> dict[str, str]:
    (gateway,) = inventory_rules.normalise_gateways([{"name": "gw", **entry}])
    found = credential_files.secret_data(gateway, variables, loader)
    return {name: base64.b64decode(text).decode() for name, text in found.items()}


def test_a_certificate_and_its_key(variables: dict[str, Any], loader: DataLoader) -> None:
    folder = Path(variables["inventory_dir"])
    plain = {"tls.crt": (folder / "gw.pem").read_text(), "tls.key": (folder / "gw.key").read_text()}
    assert (data(variables, loader, credential=X509) == plain) is True  # no keys in a failure's text
    assert credential_files.error(X509, variables, loader) is None
    encrypt(folder / "gw.key")
    assert (data(variables, loader, credential=X509) == plain) is True
    assert credential_files.error(X509, variables, loader) is None


def test_of_a_group_only_the_devices_own_key_leaves(variables: dict[str, Any], loader: DataLoader) -> None:
    given = {"key_file": "enrollment.key"}
    alone = data(variables, loader, credential=given, dps={"id_scope": "0ne1"})
    assert (alone == {"device-key": KEY}) is True
    group = data(variables, loader, credential=given, dps={"id_scope": "0ne1", "group": True})
    assert (group == {"device-key": dps_keys.derive_device_key(KEY, "gw")}) is True


@pytest.mark.parametrize(
    ("credential", "text"),
    [
        ({**X509, "key_file": "other.key"}, "gw.pem and other.key are no certificate with its key"),
        ({**X509, "certificate_file": "text.key"}, "text.key and gw.key are no certificate with its key"),
        ({**X509, "key_file": "away.key"}, "the file away.key does not exist (searched: "),
        ({"key_file": "text.key"}, "the file text.key holds no symmetric key"),
        ({"key_file": "gw.pem"}, "the file gw.pem holds no symmetric key"),
    ],
)
def test_files_that_do_not_do(
    variables: dict[str, Any], loader: DataLoader, credential: dict[str, Any], text: str
) -> None:
    found = credential_files.error(credential, variables, loader)
    assert found is not None
    assert text in found


def test_a_vault_without_its_password_is_told(variables: dict[str, Any]) -> None:
    encrypt(Path(variables["inventory_dir"]) / "gw.key")
    found = credential_files.error(X509, variables, DataLoader())
    assert found is not None
    assert found.startswith("the file gw.key cannot be read: ")


def test_a_passphrase_is_refused(variables: dict[str, Any], loader: DataLoader) -> None:
    path = Path(variables["inventory_dir"]) / "gw.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", path, "-out", path.with_suffix(".new"),
         "-passout", "pass:secret"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.with_suffix(".new").rename(path)
    found = credential_files.error(X509, variables, loader)
    assert found is not None
    assert "protected by a passphrase" in found
