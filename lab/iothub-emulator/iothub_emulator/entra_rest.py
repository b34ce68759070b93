# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where clients get tokens: the token endpoints of a tenant, and those of a managed identity."""

from collections.abc import Mapping
from hmac import compare_digest
from typing import Any

from aiohttp import web

from iothub_emulator.clock import HubClock
from iothub_emulator.entra import TOKEN_SECONDS, Entra
from iothub_emulator.rest import json_response


class EntraRest:
    """Request handlers. `add_to` puts them into an application."""

    def __init__(self, entra: Entra, clock: HubClock) -> None:
        self._entra = entra
        self._credentials = entra.credentials
        self._clock = clock

    def add_to(self, application: web.Application) -> None:
        router = application.router
        router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._configuration)
        router.add_get("/{tenant}/.well-known/openid-configuration", self._configuration)
        router.add_get("/{tenant}/discovery/v2.0/keys", self._keys)
        router.add_get("/common/discovery/instance", self._instance)
        router.add_post("/{tenant}/oauth2/v2.0/token", self._token)
        router.add_post("/{tenant}/oauth2/token", self._token)
        router.add_get("/metadata/identity/oauth2/token", self._instance_metadata)
        router.add_get("/msi/token", self._app_service)

    async def _configuration(self, request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        if not self._knows(tenant):
            return _refusal(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.", 90002)
        base = _base(request)
        return json_response(
            {
                "issuer": self._issuer(request),
                "authorization_endpoint": f"{base}/{tenant}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/{tenant}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{base}/{tenant}/oauth2/v2.0/devicecode",
                "jwks_uri": f"{base}/{tenant}/discovery/v2.0/keys",
                "response_types_supported": ["code", "token"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            }
        )

    async def _keys(self, _request: web.Request) -> web.Response:
        return json_response(self._entra.key_set())

    async def _instance(self, request: web.Request) -> web.Response:
        """Tell a client that asks that this is the authority it has."""
        host = request.host
        configuration = f"{_base(request)}/{self._credentials.tenantId}/v2.0/.well-known/openid-configuration"
        metadata = [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}]
        return json_response(
            {
                "tenant_discovery_endpoint": configuration,
                "api-version": "1.1",
                "metadata": metadata,
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        tenant = request.match_info["tenant"]
        if not self._knows(tenant):
            return _refusal(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.", 90002)
        if form.get("grant_type") != "client_credentials":
            return _refusal(
                400, "unsupported_grant_type", "AADSTS70003: Only client_credentials is built.", 70003
            )
        client_id, secret = form.get("client_id"), form.get("client_secret")
        if client_id != self._credentials.clientId:
            return _refusal(
                400, "unauthorized_client", "AADSTS700016: The application was not found.", 700016
            )
        if not isinstance(secret, str) or not compare_digest(
            secret.encode(), self._credentials.clientSecret.encode()
        ):
            return _refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.", 7000215)
        scopes = [scope for scope in str(form.get("scope") or "").split() if scope.endswith("/.default")]
        audience = scopes[0].removesuffix("/.default") if scopes else str(form.get("resource") or "")
        if not audience:
            return _refusal(400, "invalid_scope", "AADSTS70011: Ask for <resource>/.default.", 70011)
        return json_response(self._issued(request, audience, self._credentials.clientId))

    async def _instance_metadata(self, request: web.Request) -> web.Response:
        """As virtual machines ask for the token of their identity."""
        if request.headers.get("Metadata", "").lower() != "true":
            return _refusal(400, "bad_request_102", "Required metadata header not specified", 0)
        return self._identity_token(request, as_text=True)

    async def _app_service(self, request: web.Request) -> web.Response:
        """As app services ask for it: IDENTITY_ENDPOINT and IDENTITY_HEADER."""
        header = request.headers.get("X-IDENTITY-HEADER", "")
        if not compare_digest(header.encode(), self._credentials.identityHeader.encode()):
            return _refusal(401, "unauthorized", "X-IDENTITY-HEADER is not that of this service", 0)
        return self._identity_token(request, as_text=True)

    def _identity_token(self, request: web.Request, *, as_text: bool) -> web.Response:
        identity = self._credentials.identityClientId
        if request.query.get("client_id", identity) != identity:
            return _refusal(400, "invalid_request", "Identity not found", 0)
        resource = request.query.get("resource")
        if not resource:
            return _refusal(400, "invalid_request", "resource is missing", 0)
        issued = self._issued(request, resource, identity)
        issued["expires_on"] = int(self._clock.now()) + TOKEN_SECONDS
        if as_text:
            # These two send their numbers as strings.
            issued = {name: str(value) for name, value in issued.items()}
        return json_response(issued | {"resource": resource, "client_id": identity})

    def _issued(self, request: web.Request, audience: str, client_id: str) -> dict[str, Any]:
        token = self._entra.issue(audience, client_id, self._issuer(request), self._clock.now())
        return {
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS - 1,
            "ext_expires_in": TOKEN_SECONDS - 1,
            "access_token": token,
        }

    def _issuer(self, request: web.Request) -> str:
        return f"{_base(request)}/{self._credentials.tenantId}/v2.0"

    def _knows(self, tenant: str) -> bool:
        return tenant.lower() in (self._credentials.tenantId, "common", "organizations")


def _base(request: web.Request) -> str:
    return f"https://{request.host}"


def _refusal(status: int, error: str, text: str, number: int) -> web.Response:
    body: Mapping[str, Any] = {"error": error, "error_description": text, "error_codes": [number]}
    return json_response(body, status=status)
