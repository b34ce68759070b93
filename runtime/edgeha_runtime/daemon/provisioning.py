# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which device this gateway is and at which hub, as the Device Provisioning Service says.

REST and proofs: "Device Provisioning Service, runtime registration", "symmetric key attestation" and "X.509
certificate attestation". What the
service once answered is kept beside the key store, so that a gateway starts with the cloud away; it is asked
again only by `ask`, or when nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from .credential import Credential, quoted
from .hub import REQUEST_TIMEOUT, no_answer, whole
from .hub_errors import HubError, HubUnavailableError
from .keystore import StoreError, temporary, write_atomic
from .logs import fields
from .settings import Dps, Settings

API_VERSION = "2021-06-01"
FILE = "provisioning.json"
FORMAT = "edgeha-provisioning"
VERSION = 1  # files without one are of the first
# Between two looks at a registration where the service does not say, and between two tries where it is away.
POLL_SECONDS = 2.0
RETRY_SECONDS = (2.0, 5.0, 10.0, 30.0, 60.0)
LIMIT_SECONDS = 120.0

_log = logging.getLogger(__name__)


class ProvisioningError(HubError):
    """The service refuses, and asking again would not help; the message says why and what to do."""


@dataclass(frozen=True)
class Assignment:
    """The device and its hub."""

    device_id: str
    iothub_hostname: str


def kept(folder: Path, dps: Dps) -> Assignment | None:
    """What the service answered before; None when it was not asked yet.

    Raises StoreError for a file that is torn, newer, or of another registration. To be called by the one
    writer of the folder: what a crash left of a write is cleared away.
    """
    path = folder / FILE
    with contextlib.suppress(FileNotFoundError):
        temporary(path).unlink()
    way_out = "It holds no key: delete this one file, and the provisioning service is asked again"
    try:
        document = json.loads(path.read_bytes())
        if document["format"] == FORMAT and int(document.get("version", VERSION)) > VERSION:
            raise StoreError(
                f"{path} has format version {document['version']}, this daemon knows up to {VERSION}. "
                "Run the newer daemon image again; nothing was changed"
            )
        content = {
            name: document[name] for name in ("idScope", "registrationId", "deviceId", "iothubHostname")
        }
        sound = document["format"] == FORMAT and document["sha256"] == _digest(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror}. Make it readable for this user"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is torn or no provisioning result. {way_out}") from error
    if not sound:
        raise StoreError(f"{path} is torn: its checksum does not match its content. {way_out}")
    if (content["idScope"], content["registrationId"]) != (dps.id_scope, dps.registration_id):
        raise StoreError(
            f"{path} belongs to registration {content['registrationId']} in scope {content['idScope']}, "
            f"this gateway is registration {dps.registration_id} in scope {dps.id_scope}. Give this gateway "
            "its own claim, or set both back to those of the store"
        )
    return Assignment(str(content["deviceId"]), str(content["iothubHostname"]))


def keep(folder: Path, dps: Dps, assignment: Assignment) -> None:
    """Keep an answer, on disk before this returns."""
    content = {
        "idScope": dps.id_scope,
        "registrationId": dps.registration_id,
        "deviceId": assignment.device_id,
        "iothubHostname": assignment.iothub_hostname,
    }
    document = {"format": FORMAT, "version": VERSION, **content, "sha256": _digest(content)}
    write_atomic(folder / FILE, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


async def first(
    settings: Settings, credential: Credential, dps: Dps, waits: Callable[[str], None]
) -> Assignment:
    """The assignment: what is kept, else what the service answers, asked until it does.

    `waits` is told why it takes longer. Raises ProvisioningError, StoreError, OSError.
    """
    known = await asyncio.to_thread(kept, settings.state_dir, dps)
    if known is not None:
        return known
    failures = 0
    while True:
        try:
            assignment = await ask(settings, credential, dps)
        except HubUnavailableError as error:
            pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
            failures += 1
            waits(str(error))
            _log.warning("not provisioned yet", extra=fields(reason=str(error), retry_s=pause))
            await asyncio.sleep(pause)
            continue
        await asyncio.to_thread(keep, settings.state_dir, dps, assignment)
        return assignment


async def ask(settings: Settings, credential: Credential, dps: Dps) -> Assignment:
    """Register with the service and wait for its answer.

    Raises HubUnavailableError when it is away, ProvisioningError when it refuses.
    """
    base = f"https://{dps.endpoint}/{quoted(dps.id_scope)}/registrations/{quoted(dps.registration_id)}"
    proxy = settings.proxy_for(dps.endpoint)
    deadline = time.monotonic() + LIMIT_SECONDS
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=credential.tls),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
        trust_env=False,
    ) as session:

        async def call(method: str, path: str, body: object = None) -> tuple[dict[str, Any], float]:
            resource = f"{dps.id_scope}/registrations/{dps.registration_id}"
            try:
                async with session.request(
                    method,
                    URL(f"{base}/{path}?api-version={API_VERSION}", encoded=True),
                    json=body,
                    headers=credential.headers(resource, time.time(), "&skn=registration"),
                    proxy=proxy,
                    allow_redirects=False,
                ) as answer:
                    raw = await whole(answer)
                    return _document(dps, credential, answer, raw), _pause(answer)
            except aiohttp.ClientConnectorCertificateError as error:
                raise ProvisioningError(
                    f"provisioning service {dps.endpoint}: its certificate is not trusted "
                    f"({error.certificate_error}). Put the CA into the trust bundle, or correct the host name"
                ) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise HubUnavailableError(
                    no_answer(f"provisioning service {dps.endpoint}", proxy, error)
                ) from error

        document, pause = await call("PUT", "register", {"registrationId": dps.registration_id})
        while document.get("status") == "assigning":
            if time.monotonic() > deadline:
                raise HubUnavailableError(
                    f"provisioning service {dps.endpoint} still assigns {dps.registration_id} after "
                    f"{LIMIT_SECONDS:g} s"
                )
            await asyncio.sleep(pause)
            document, pause = await call("GET", f"operations/{quoted(str(document.get('operationId')))}")
    return _assignment(dps, document)


def _pause(answer: aiohttp.ClientResponse) -> float:
    """How long the service asks to wait, in seconds, within bounds."""
    try:
        return min(30.0, max(0.2, float(answer.headers.get("Retry-After", POLL_SECONDS))))
    except ValueError:
        return POLL_SECONDS


def _document(dps: Dps, credential: Credential, answer: aiohttp.ClientResponse, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    said = f"provisioning service {dps.endpoint} answered {answer.status}"
    if answer.status == 429 or answer.status >= 500:
        raise HubUnavailableError(said)
    if answer.status >= 400:
        message = str(document.get("message", ""))[:300] if isinstance(document, dict) else ""
        reason = f"{said} for registration {dps.registration_id} in scope {dps.id_scope}: {message}".rstrip(
            ": "
        )
        if answer.status == 401:
            doubts = credential.doubts()
            raise ProvisioningError(
                f"{reason}. {doubts[:1].upper()}{doubts[1:]}, another id scope, or nothing is enrolled for it"
            )
        raise ProvisioningError(reason)
    if not isinstance(document, dict):
        raise ProvisioningError(f"{said} and no JSON. Is this host a provisioning service?")
    return document


def _assignment(dps: Dps, document: Mapping[str, Any]) -> Assignment:
    state = document.get("registrationState")
    state = state if isinstance(state, Mapping) else {}
    device, hub = state.get("deviceId"), state.get("assignedHub")
    if document.get("status") != "assigned" or not isinstance(device, str) or not isinstance(hub, str):
        reason = str(state.get("errorMessage") or "no reason given")[:300]
        raise ProvisioningError(
            f"provisioning service {dps.endpoint}: registration {dps.registration_id} is "
            f"{document.get('status')!r} ({reason}). Correct the enrollment"
        )
    _log.info("provisioned", extra=fields(device=device, hub=hub, registration=dps.registration_id))
    return Assignment(device, hub)


async def again(settings: Settings, credential: Credential, dps: Dps) -> None:
    """Ask the service anew. Raises HubUnavailableError, ProvisioningError; this for another assignment too.

    Keys and identities of this store belong to its device and hub, so moving is a person's decision.
    """
    found = await ask(settings, credential, dps)
    if found != Assignment(settings.device_id, settings.iothub_hostname):
        raise ProvisioningError(
            f"the provisioning service now assigns device {found.device_id} at hub {found.iothub_hostname}; "
            f"this gateway is device {settings.device_id} at hub {settings.iothub_hostname}. Give it a claim "
            "of its own for that, or correct the enrollment"
        )
