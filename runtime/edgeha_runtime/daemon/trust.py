# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CAs that daemon and modules trust: the chart's bundle, or the system's where that is empty."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

# Debian, Alpine; Red Hat; SUSE: where the distribution keeps its bundle.
SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
)


class TrustError(Exception):
    """There is no usable CA; the message says where it was looked for."""


@dataclass(frozen=True)
class TrustBundle:
    """CA certificates in PEM, as text."""

    pem: str

    def context(self) -> ssl.SSLContext:
        """TLS settings for a client that trusts these CAs and nothing else."""
        return ssl.create_default_context(cadata=self.pem)


def load(path: Path, system: tuple[Path, ...] = SYSTEM_BUNDLES) -> TrustBundle:
    """Read the bundle at `path`; missing or empty means the system's.

    Raises TrustError when neither holds a certificate, or when a private key stands among them: this text is
    handed to every module.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    source = path
    if not text.strip():
        source = next((candidate for candidate in system if candidate.exists()), path)
        text = source.read_text(encoding="utf-8") if source.exists() else ""
    bundle = TrustBundle(_certificates(text, source))
    if not bundle.pem or not bundle.context().get_ca_certs():
        raise TrustError(
            f"no CA certificate in {source}. Set the chart's trustBundle, or use an image with CAs"
        )
    return bundle


def load_manifest(path: Path | None) -> str:
    """Read the certificates (PEM) by which signed deployments are checked; empty where there are none.

    Raises TrustError as `load` does.
    """
    if path is None or not path.exists():
        return ""
    return _certificates(path.read_text(encoding="utf-8"), path)


def _certificates(text: str, source: Path) -> str:
    """Only the certificates of a text, each of which can be read. Raises TrustError."""
    if "PRIVATE KEY" in text:
        raise TrustError(
            f"{source} holds a private key. A trust bundle is given to every module: take it out"
        )
    pem = _ascii_blocks(text)
    try:
        if pem:
            TrustBundle(pem).context()
    except ssl.SSLError as error:
        raise TrustError(f"{source} holds a block that is no certificate ({error.reason})") from error
    return pem


def _ascii_blocks(text: str) -> str:
    """Only the certificate blocks: the comments of some bundles are not ASCII, which OpenSSL refuses."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    blocks = [part.split(end)[0] for part in text.split(begin)[1:] if end in part]
    return "".join(f"{begin}{block}{end}\n" for block in blocks)
