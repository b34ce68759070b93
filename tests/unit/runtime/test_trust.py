# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trust bundle: what daemon and modules are given, and what must never get into it."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeha_runtime.daemon import trust

from tests.tls import issue


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a CA and its key."""
    folder = tmp_path_factory.mktemp("ca")
    issue("test root", ca=True).write(folder, "ca")
    return folder


def test_comments_are_dropped_and_certificates_kept(made: Path, tmp_path: Path) -> None:
    pem = (made / "ca.crt").read_text()
    (tmp_path / "bundle").write_text(f"# Wurzel f\u00fcr alle\n{pem}\n# zweite\n{pem}")
    assert trust.load(tmp_path / "bundle").pem == pem * 2


@pytest.mark.parametrize("empty", ["", " \n"])
def test_empty_means_the_systems_bundle(made: Path, tmp_path: Path, empty: str) -> None:
    (tmp_path / "bundle").write_text(empty)
    found = trust.load(tmp_path / "bundle", (tmp_path / "none", made / "ca.crt"))
    assert found.pem == (made / "ca.crt").read_text()


def test_a_private_key_among_the_certificates_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text((made / "ca.crt").read_text() + (made / "ca.key").read_text())
    with pytest.raises(trust.TrustError, match="holds a private key"):
        trust.load(tmp_path / "bundle")


@pytest.mark.parametrize(
    "text", ["no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bundle").write_text(text)
    with pytest.raises(trust.TrustError, match="bundle"):
        trust.load(tmp_path / "bundle")


def test_neither_bundle_nor_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(trust.TrustError, match="no CA certificate"):
        trust.load(tmp_path / "bundle", (tmp_path / "none",))
