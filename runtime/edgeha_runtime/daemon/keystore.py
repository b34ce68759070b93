# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's state on its claim: master key, quickstart CA, and the module identities known so far.

Five files, each written whole and atomically: `master-key.json`, written once and never touched again;
`edge-ca.json`, the quickstart CA where one was needed; `identities.json`, a cache of what the hub
answered, which lets modules sign with the hub away; `deployment.json`, what edgeAgent asked for, which keeps
its modules running with the cloud away; and `module-set.json`, the chart's modules as they could last be
read, which stand where somebody has spoilt the ConfigMap. They carry format, version, owner (device and hub)
and a checksum. A file that is torn, foreign or newer is refused, never replaced: new keys in silence would
cut every module off and hide the loss.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import sealing, transport
from .authority import AuthorityFileError
from .authority import parse as parse_authority
from .logs import fields

FORMAT = "edgeha-keystore"
VERSION = 1
KEY_BYTES = 32
KEY_FILE = "master-key.json"
IDENTITIES_FILE = "identities.json"
AUTHORITY_FILE = "edge-ca.json"
DEPLOYMENT_FILE = "deployment.json"
MODULE_SET_FILE = "module-set.json"
FILES = (KEY_FILE, IDENTITIES_FILE, AUTHORITY_FILE, DEPLOYMENT_FILE, MODULE_SET_FILE)
LOCK_FILE = "lock"
_LOST_KEY = (
    "Restore it from a backup. Only if there is none: delete the whole store; all modules then get new keys "
    "and what they encrypted is lost"
)
_LOST_AUTHORITY = (
    "Restore it from a backup. Only if there is none: delete this one file; devices that trust the gateway's "
    "old quickstart CA then need the new one"
)

_log = logging.getLogger(__name__)


class StoreError(Exception):
    """The store must not be used as it is; the message says why and what to do."""


class StoreLockedError(StoreError):
    """Another process holds the store; the message names its pod and node."""


@dataclass(frozen=True)
class Owner:
    """Whose keys a store holds. Host names compare without case, device ids with it, as IoT Hub does."""

    device_id: str
    iothub_hostname: str

    def document(self) -> dict[str, str]:
        return {"deviceId": self.device_id, "iothubHostname": self.iothub_hostname.lower()}


def temporary(path: Path) -> Path:
    """Where `write_atomic` writes what `path` is to hold. A crash leaves it behind."""
    return path.with_name(f".{path.name}.new")


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a crash at any point leaves the old or the new content, whole.

    Temporary file, fsync, rename, fsync of the folder. Mode 0600. One writer at a time is the caller's duty.
    """
    new = temporary(path)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(path)
    _sync_folder(path.parent)


def cannot_write(error: OSError) -> str:
    """What to tell of a write that failed, and the way out."""
    return f"the store cannot be written: {error.strerror}. Free the volume or make it writable"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _encode(owner: Owner, content: Mapping[str, Any]) -> bytes:
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, **owner.document(), **content}
    document["sha256"] = _checksum(document)
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _decode(path: Path, owner: Owner, way_out: str) -> dict[str, Any] | None:
    """Content of `path`, None when there is no such file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror}. Make it readable for this user"
        ) from error
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise StoreError(f"{path} is torn or not a key store ({len(raw)} bytes). {way_out}")
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise StoreError(
            f"{path} has format version {version}, this daemon knows up to {VERSION}. "
            "Run the newer daemon image again; nothing was changed"
        )
    if document.get("sha256") != _checksum(document):
        raise StoreError(f"{path} is torn: its checksum does not match its content. {way_out}")
    found = Owner(str(document.get("deviceId")), str(document.get("iothubHostname")))
    if found.document() != owner.document():
        raise StoreError(
            f"{path} belongs to device {found.device_id} at hub {found.iothub_hostname}, this gateway is "
            f"device {owner.device_id} at hub {owner.iothub_hostname}. Give this gateway its own claim, or "
            "set device id and hub back to those of the store"
        )
    return document


class StoreLock:
    """One writer for a store: an fcntl lock on its folder, held until `release` or the end of the process.

    The lock file names its holder (pod, node). It is opened once, because closing any descriptor of a file
    drops the process's POSIX locks on it.
    """

    def __init__(self, directory: Path, *, pod: str, node: str) -> None:
        self._path = directory / LOCK_FILE
        self._me = {"pod": pod, "node": node}
        self._descriptor: int | None = None

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreError(
                    f"{self._path.parent} cannot be written by user {os.getuid()}: {error.strerror}. Make "
                    "the volume writable for that user or its group (fsGroup, or owner and mode on NFS)"
                ) from error
        return self._descriptor

    def try_acquire(self) -> bool:
        """Take the lock if it is free. Raises StoreError when the folder cannot be used at all."""
        descriptor = self._open()
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be locked: {error.strerror}. The volume must offer POSIX locks"
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({**self._me, "since": int(time.time())}).encode(), 0)
        except OSError as error:
            # It only tells others who holds the lock; modules can sign without a byte being written.
            _log.warning("the store's lock has no name in it", extra=fields(reason=cannot_write(error)))
        return True

    def holder(self) -> str:
        """Who says to hold the lock, for messages."""
        try:
            found = json.loads(os.pread(self._open(), 4096, 0))
            return f"pod {found['pod']} on node {found['node']}"
        except (ValueError, KeyError, TypeError):
            return "a process that left no name"

    async def acquire(self, timeout: float, poll: float = 0.5) -> None:
        """Wait up to `timeout` seconds for the lock. Raises StoreLockedError, which names the holder."""
        deadline = time.monotonic() + timeout
        told = ""
        # In a thread: on a network file system each of these calls may hang with the server.
        while not await asyncio.to_thread(self.try_acquire):
            holder = await asyncio.to_thread(self.holder)
            if time.monotonic() >= deadline:
                raise StoreLockedError(
                    f"{self._path.parent} is in use by {holder}, waited {timeout:g} s. Two daemons must "
                    "never share a store: stop that pod, or fence that node if it does not answer"
                )
            if holder != told:
                _log.warning("waiting for the store's lock", extra=fields(holder=holder, limit_s=timeout))
                told = holder
            await asyncio.sleep(poll)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class KeyStore:
    """Keys and known identities of one device. Open it only while its StoreLock is held."""

    def __init__(
        self,
        directory: Path,
        owner: Owner,
        master: bytes,
        identities: dict[str, str],
        authority: tuple[str, str] | None = None,
        deployment: dict[str, Any] | None = None,
        module_set: str = "",
    ) -> None:
        self._directory = directory
        self._owner = owner
        self._master = master
        self._identities = identities
        self._authority = authority
        self._deployment = deployment
        self._module_set = module_set
        self._encryption_keys: dict[tuple[str, str], bytes] = {}

    @classmethod
    def open(cls, directory: Path, owner: Owner) -> KeyStore:
        """Open the store in `directory`; an empty folder gets a new one.

        Raises StoreError when a file is torn, foreign or newer (but for the module set, which the cluster has
        too), or when the master key alone is gone.
        """
        key_path, identities_path = directory / KEY_FILE, directory / IDENTITIES_FILE
        key_document = _decode(
            key_path,
            owner,
            _LOST_KEY,
        )
        identities_document = _decode(
            identities_path,
            owner,
            "It holds no key: delete this one file, and the identities are read from the hub again",
        )
        authority_path = directory / AUTHORITY_FILE
        authority_document = _decode(authority_path, owner, _LOST_AUTHORITY)
        deployment_path = directory / DEPLOYMENT_FILE
        deployment_document = _decode(
            deployment_path,
            owner,
            "It holds no key: delete this one file, and edgeAgent makes its modules again; identities stay",
        )
        module_set_path = directory / MODULE_SET_FILE
        try:
            module_set_document = _decode(module_set_path, owner, "")
        except StoreError as error:
            # The cluster has it, and the next one that can be read takes its place.
            _log.warning("kept module set is of no use", extra=fields(reason=str(error)))
            module_set_document = None
        for path, document in (
            (module_set_path, module_set_document),
            (identities_path, identities_document),
            (authority_path, authority_document),
            (deployment_path, deployment_document),
        ):
            if key_document is None and document is not None:
                raise StoreError(f"{key_path} is missing although {path} exists. {_LOST_KEY}")
        authority = None
        if authority_document is not None:
            authority = str(authority_document.get("key", "")), str(authority_document.get("chain", ""))
            try:
                parse_authority(*(text.encode() for text in authority))
            except AuthorityFileError as error:
                raise StoreError(f"{authority_path} holds no CA: {error}. {_LOST_AUTHORITY}") from error
        # What a crash before the rename left behind was never used by anybody.
        for leftover in FILES:
            with contextlib.suppress(FileNotFoundError):
                temporary(directory / leftover).unlink()
        if key_document is None:
            master = secrets.token_bytes(KEY_BYTES)
            write_atomic(key_path, _encode(owner, {"masterKey": base64.b64encode(master).decode()}))
            _log.warning("made a new key store", extra=fields(directory=str(directory), **owner.document()))
        else:
            try:
                master = base64.b64decode(str(key_document["masterKey"]), validate=True)
            except (KeyError, ValueError):
                master = b""
            if len(master) != KEY_BYTES:
                raise StoreError(
                    f"{key_path} holds no master key of {KEY_BYTES} bytes. Restore it from a backup"
                )
        identities: dict[str, str] = {}
        if identities_document is not None:
            identities = {str(k): str(v) for k, v in dict(identities_document.get("identities", {})).items()}
        deployment = None
        if deployment_document is not None:
            deployment = dict(deployment_document.get("deployment", {}))
        module_set = str((module_set_document or {}).get("moduleSet", ""))
        return cls(directory, owner, master, identities, authority, deployment, module_set)

    @property
    def identities(self) -> Mapping[str, str]:
        """Module id to generation id, as the hub last said."""
        return self._identities

    def module_key(self, module: str, generation: str, which: Literal["primary", "secondary"]) -> bytes:
        """Key (32 bytes) of one generation of a module: HMAC-SHA256 over "module:generation:which".

        The same derivation as Azure's identity service uses (aziot-identityd, derived keys): a module that is
        deleted and made again at the hub never shares a key with its predecessor.
        """
        return hmac.digest(self._master, f"{module}:{generation}:{which}".encode(), "sha256")

    def encryption_key(self, module: str, generation: str) -> bytes:
        """Key (64 bytes) under which one generation of a module encrypts."""
        known = self._encryption_keys.get((module, generation))
        if known is None:
            known = sealing.module_key(self._master, module, generation)
            self._encryption_keys[module, generation] = known
        return known

    def transport(self) -> tuple[str, str]:
        """Key and certificate (PEM) of the daemon's own port; the same as long as the master key is."""
        return transport.derive(self._master)

    @property
    def authority(self) -> tuple[str, str] | None:
        """Key and certificate of the quickstart CA, in PEM."""
        return self._authority

    def keep_authority(self, key: str, chain: str) -> None:
        """Keep a quickstart CA, on disk before this returns."""
        content = {"key": key, "chain": chain}
        write_atomic(self._directory / AUTHORITY_FILE, _encode(self._owner, content))
        self._authority = key, chain

    @property
    def deployment(self) -> Mapping[str, Any] | None:
        """What edgeAgent asked for, as `keep_deployment` was given it.

        None where there is no file: edgeAgent asked for nothing yet, or the file is lost.
        """
        return self._deployment

    def keep_deployment(self, content: dict[str, Any]) -> None:
        """Keep what edgeAgent asked for, on disk before this returns."""
        write_atomic(self._directory / DEPLOYMENT_FILE, _encode(self._owner, {"deployment": content}))
        self._deployment = content

    @property
    def module_set(self) -> str:
        """The chart's module set (JSON) as `keep_module_set` was given it; empty before there was one."""
        return self._module_set

    def keep_module_set(self, text: str) -> None:
        """Keep a module set that could be read, on disk before this returns."""
        write_atomic(self._directory / MODULE_SET_FILE, _encode(self._owner, {"moduleSet": text}))
        self._module_set = text

    def remember(self, module: str, generation: str) -> None:
        """Keep an identity, on disk before this returns."""
        if self._identities.get(module) != generation:
            self._save({**self._identities, module: generation})

    def forget(self, module: str) -> None:
        """Drop an identity that is gone at the hub, on disk before this returns."""
        if module in self._identities:
            self._save({name: gen for name, gen in self._identities.items() if name != module})

    def _save(self, identities: dict[str, str]) -> None:
        write_atomic(self._directory / IDENTITIES_FILE, _encode(self._owner, {"identities": identities}))
        self._identities = identities
