# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent keeps on disk: the last good deployment, encrypted, and what it remembers of its modules.

Both are files of `edgeAgent` in `storageFolder` (default: the folder for temporary files), written whole.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import requests
from plan import Memory

_VERSION = "2020-07-07"
_SECONDS = 60.0


class StorageError(Exception):
    """What is kept cannot be read or written; the message names the file and why."""


class Cipher(Protocol):
    """What encrypts for this module. Both raise OSError, KeyError, ValueError."""

    def encrypt(self, plaintext: bytes, vector: bytes) -> bytes: ...

    def decrypt(self, ciphertext: bytes, vector: bytes) -> bytes: ...


class Workload:
    """The workload API's encryption. `own`: the agent's variables."""

    def __init__(self, own: Mapping[str, str]) -> None:
        module, generation = (
            quote(own[name], safe="") for name in ("IOTEDGE_MODULEID", "IOTEDGE_MODULEGENERATIONID")
        )
        uri = own["IOTEDGE_WORKLOADURI"].rstrip("/")
        self._url = f"{uri}/modules/{module}/genid/{generation}"
        self._session = requests.Session()
        self._session.trust_env = False  # it is on this pod's loopback

    def encrypt(self, plaintext: bytes, vector: bytes) -> bytes:
        return self._call("encrypt", "plaintext", plaintext, vector, "ciphertext")

    def decrypt(self, ciphertext: bytes, vector: bytes) -> bytes:
        return self._call("decrypt", "ciphertext", ciphertext, vector, "plaintext")

    def _call(self, action: str, key: str, value: bytes, vector: bytes, wanted: str) -> bytes:
        body = {
            key: base64.b64encode(value).decode(),
            "initializationVector": base64.b64encode(vector).decode(),
        }
        url, query = f"{self._url}/{action}", {"api-version": _VERSION}
        answer = self._session.post(url, params=query, json=body, timeout=(5, _SECONDS))
        answer.raise_for_status()
        return base64.b64decode(answer.json()[wanted], validate=True)


class Storage:
    """The agent's files."""

    def __init__(self, folder: Path, cipher: Cipher) -> None:
        self._backup, self._modules = folder / "backup.json", folder / "modules.json"
        self._cipher = cipher
        self._kept: dict[str, Any] | None = None

    def keep(self, deployment: dict[str, Any]) -> None:
        """Keep a deployment, unless it is the one that is kept. Raises StorageError."""
        if deployment == self._kept:
            return
        vector = os.urandom(16)
        try:
            ciphertext = self._cipher.encrypt(json.dumps(deployment).encode(), vector)
            document = {
                "initializationVector": base64.b64encode(vector).decode(),
                "ciphertext": base64.b64encode(ciphertext).decode(),
            }
            _write(self._backup, document)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise _failed(self._backup, error) from None
        self._kept = deployment

    def deployment(self) -> dict[str, Any] | None:
        """The deployment that is kept; None for none. Raises StorageError."""
        if self._kept is not None:
            return self._kept
        try:
            document = json.loads(self._backup.read_bytes())
            vector, ciphertext = (
                base64.b64decode(document[key], validate=True)
                for key in ("initializationVector", "ciphertext")
            )
            found = json.loads(self._cipher.decrypt(ciphertext, vector))
        except FileNotFoundError:
            return None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise _failed(self._backup, error) from None
        if not isinstance(found, dict):
            raise _failed(self._backup, TypeError("it holds no deployment"))
        self._kept = found
        return found

    def memories(self) -> dict[str, Memory]:
        """What was remembered of the modules. Raises StorageError."""
        try:
            document = json.loads(self._modules.read_bytes())
            return {str(name): Memory.of(entry) for name, entry in document.items()}
        except FileNotFoundError:
            return {}
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise _failed(self._modules, error) from None

    def remember(self, memories: Mapping[str, Memory]) -> None:
        """Remember this and no more. Raises StorageError."""
        try:
            _write(self._modules, {name: memory.document() for name, memory in memories.items()})
        except OSError as error:
            raise _failed(self._modules, error) from None


def folder(environment: Mapping[str, str]) -> Path:
    """Where the agent keeps its files; a stock agent's settings know no case."""
    by_name = {name.lower(): value for name, value in environment.items()}
    return Path(by_name.get("storagefolder") or tempfile.gettempdir()) / "edgeAgent"


def _failed(path: Path, error: Exception) -> StorageError:
    return StorageError(f"{path}: {type(error).__name__}: {error}")


def _write(path: Path, document: object) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    # The agent's own; what a module's deployment holds is encrypted all the same.
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
