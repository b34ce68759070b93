# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Microsoft Entra tokens for IoT Hub, DPS and Azure Resource Manager, from the login that an operator has.

Every import of an Azure package happens when a token is wanted and not before: a task that signs with a
shared access key pays for none of them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.iothub_auth import CredentialError

# The public cloud's names. Other clouds differ in nothing but these, so each can be given as an option.
HUB_SCOPE = "https://iothubs.azure.net/.default"
DPS_SCOPE = "https://azure-devices-provisioning.net/.default"
RESOURCE_MANAGER = "https://management.azure.com"

# Where an option comes from when it is not given: azure-identity's names first, then those that a credential
# of AWX puts into the environment.
_VARIABLES = {
    "subscription_id": ("AZURE_SUBSCRIPTION_ID",),
    "tenant_id": ("AZURE_TENANT_ID", "AZURE_TENANT"),
    "client_id": ("AZURE_CLIENT_ID",),
    "client_secret": ("AZURE_CLIENT_SECRET", "AZURE_SECRET"),
}

# (token, Unix time at which it ends) for a scope such as HUB_SCOPE
TokenSource = Callable[[str], "tuple[str, float]"]


@dataclass(frozen=True)
class AzureLogin:
    """A login. token: see TokenSource. subscription: its id, empty when the login names none.

    resource_manager: base address of Azure Resource Manager in the login's cloud, without a closing slash.
    """

    token: TokenSource = field(repr=False)
    subscription: str
    resource_manager: str


@dataclass(frozen=True)
class EntraCredential:
    """Signs calls with a bearer token for one scope; see rest_client.Credential."""

    login: AzureLogin
    scope: str

    def authorization(self, _hostname: str, _now: float) -> tuple[str, float]:
        """Return ``Bearer TOKEN`` and when it ends; the host name does not matter to Entra."""
        token, expiry = self.login.token(self.scope)
        return f"Bearer {token}", expiry


def login(params: Mapping[str, Any]) -> AzureLogin:
    """Return the login that a module's options ask for; see the doc fragment ``azure_login``.

    params: ``auth`` is one of iothub_module.LOGINS; ``subscription_id``, ``tenant_id``, ``client_id``,
    ``client_secret``, ``authority`` and ``resource_manager`` may be None. Raises CredentialError, naming the
    fix, when a package is missing, nobody is logged in, or an option is missing.
    """
    return _LOGINS[params["auth"]](params)


def _cli(params: Mapping[str, Any]) -> AzureLogin:
    core = _package("azure.cli.core", "azure-cli-core", "auth: cli")
    profiles = _package("azure.cli.core._profile", "azure-cli-core", "auth: cli")
    cli = core.get_default_cli()
    profile = profiles.Profile(cli_ctx=cli)
    try:
        subscription = profile.get_subscription(params.get("subscription_id"))
    except Exception as error:
        raise CredentialError(
            f"auth: cli: {_line(error)}. Run 'az login' as the user of this task"
        ) from error

    def token(scope: str) -> tuple[str, float]:
        resource = scope.removesuffix("/.default")
        try:
            (_kind, value, details), _subscription, _tenant = profile.get_raw_token(
                resource=resource, subscription=subscription["id"]
            )
        except Exception as error:
            raise CredentialError(
                f"auth: cli: no token for {resource}: {_line(error)}. Run 'az login' as the user of this task"
            ) from error
        return str(value), float(details["expires_on"])

    manager = params.get("resource_manager") or cli.cloud.endpoints.resource_manager
    return AzureLogin(token, str(subscription["id"]), str(manager).rstrip("/"))


def _service_principal(params: Mapping[str, Any]) -> AzureLogin:
    given = {
        name: params.get(name) or _environment(name) for name in ("tenant_id", "client_id", "client_secret")
    }
    missing = [
        f"{name} (or {_VARIABLES[name][0]} in the environment)" for name, value in given.items() if not value
    ]
    if missing:
        raise CredentialError(f"auth: service_principal needs {', '.join(missing)}")
    identity = _package("azure.identity", "azure-identity", "auth: service_principal")
    more = {"authority": params["authority"]} if params.get("authority") else {}
    # Microsoft's public cloud cannot be asked about an authority where only that authority is reachable.
    credential = identity.ClientSecretCredential(
        given["tenant_id"],
        given["client_id"],
        given["client_secret"],
        disable_instance_discovery=bool(more),
        **more,
    )
    return _from_identity(params, credential)


def _managed_identity(params: Mapping[str, Any]) -> AzureLogin:
    identity = _package("azure.identity", "azure-identity", "auth: managed_identity")
    client_id = params.get("client_id") or _environment("client_id")
    return _from_identity(params, identity.ManagedIdentityCredential(client_id=client_id))


def _from_identity(params: Mapping[str, Any], credential: Any) -> AzureLogin:
    def token(scope: str) -> tuple[str, float]:
        try:
            found = credential.get_token(scope)
        except Exception as error:
            raise CredentialError(f"auth: {params['auth']}: no token for {scope}: {_line(error)}") from error
        return str(found.token), float(found.expires_on)

    subscription = params.get("subscription_id") or _environment("subscription_id") or ""
    return AzureLogin(token, subscription, (params.get("resource_manager") or RESOURCE_MANAGER).rstrip("/"))


def _environment(option: str) -> str | None:
    return next((os.environ[name] for name in _VARIABLES[option] if os.environ.get(name)), None)


def _package(name: str, distribution: str, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CredentialError(
            f"{purpose} needs the Python package {distribution} where the task runs, and it cannot be "
            f"imported ({error}): pip install {distribution}"
        ) from error


def _line(error: Exception) -> str:
    """Return the first sentence of an error: the packages add pages of advice."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


_LOGINS: dict[str, Callable[[Mapping[str, Any]], AzureLogin]] = {
    "cli": _cli,
    "service_principal": _service_principal,
    "managed_identity": _managed_identity,
}
