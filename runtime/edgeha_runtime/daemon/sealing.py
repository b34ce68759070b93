# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules encrypt and decrypt through the workload API: AES-SIV (RFC 5297) under a key of each module.

The initialization vector comes from the module, and edgeHub uses one for all that it ever encrypts. Modes
that fall when a vector comes twice, such as GCM, are therefore out: under SIV equal texts are seen to be
equal, and nothing else is lost.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 64  # two keys of AES-256
_FORMAT = b"\x01"
# A text of no bytes is none that a library encrypts; one byte before each makes the empty one possible.
_PAD = b"\x00"


class SealError(Exception):
    """Not what `seal` made for this key and vector."""


def module_key(master: bytes, module: str, generation: str) -> bytes:
    """Return the key (64 bytes) of one generation of a module; HKDF-SHA256 (RFC 5869) of the master key."""
    info = b"\x00".join((b"edgeha encrypt 1", module.encode(), generation.encode()))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master)


def seal(key: bytes, plaintext: bytes, vector: bytes) -> bytes:
    """Return `plaintext` encrypted and authenticated, 18 bytes longer than it was."""
    return _FORMAT + AESSIV(key).encrypt(_PAD + plaintext, [vector])


def unseal(key: bytes, ciphertext: bytes, vector: bytes) -> bytes:
    """Undo `seal`. Raises SealError for anything but what it returned for the same key and vector."""
    if ciphertext[:1] != _FORMAT:
        raise SealError("it has no format of this daemon")
    try:
        return AESSIV(key).decrypt(ciphertext[1:], [vector])[len(_PAD) :]
    except (InvalidTag, ValueError):
        raise SealError("it is damaged, or of another module, generation or vector") from None
