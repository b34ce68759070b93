# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure Resource Manager over HTTPS."""

import json
import re
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from iothub_emulator import arm
from iothub_emulator.arm import DPS_TYPE, HUB_TYPE, ArmError, Document, Place
from iothub_emulator.clock import HubClock
from iothub_emulator.entra import Entra
from iothub_emulator.errors import UnauthorizedError
from iothub_emulator.rest import json_response
from iothub_emulator.store import Store

T = TypeVar("T")
Handler = Callable[["Call"], Awaitable[web.Response]]

AUDIENCES = frozenset(
    {
        "https://management.azure.com",
        "https://management.core.windows.net",
        "https://management.core.windows.net/",
    }
)
# So long a long-running operation runs. Real ones take minutes; what counts is that clients wait.
_OPERATION_SECONDS = 0.5
_RETRY_SECONDS = 1
_KINDS = {"iothubs": HUB_TYPE, "provisioningservices": DPS_TYPE}


@dataclass(frozen=True)
class Call:
    """A request and the parts of its address."""

    request: web.Request
    parts: dict[str, str]

    @property
    def group(self) -> str:
        return self.parts["group"]

    @property
    def kind(self) -> str:
        return _KINDS[self.parts["kind"].lower()]

    def resource(self, subscription: str) -> str:
        return arm.resource_id(subscription, self.group, self.kind, self.parts["name"])

    async def body(self) -> object:
        try:
            return json.loads(await self.request.read())
        except ValueError:
            raise ArmError(400, "InvalidRequestContent", "The body is not JSON.") from None


@dataclass(frozen=True)
class _Operation:
    """A long-running operation: what it works on, and until when."""

    resource: str
    state: str
    done: float


class ArmRest:
    """Request handlers. `add_to` puts them into an application."""

    def __init__(self, entra: Entra, store: Store, clock: HubClock, place: Place) -> None:
        self._entra = entra
        self._store = store
        self._clock = clock
        self._place = place
        self._subscription = entra.credentials.subscriptionId
        self._operations: dict[str, _Operation] = {}
        subscription = "/subscriptions/(?P<subscription>[^/]+)"
        devices = "/providers/Microsoft\\.Devices"
        group = f"{subscription}/resourceGroups/(?P<group>[^/]+)"
        kinds = "(?P<kind>IotHubs|provisioningServices)"
        resource = f"{group}{devices}/{kinds}/(?P<name>[^/]+)"
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/tenants", self._tenants),
            ("GET", "/subscriptions", self._subscriptions),
            ("GET", subscription, self._show_subscription),
            ("GET", f"{subscription}/locations", self._locations),
            ("GET", f"{subscription}/providers", self._providers),
            ("GET", f"{subscription}{devices}", self._provider),
            ("POST", f"{subscription}{devices}/register", self._provider),
            ("POST", f"{subscription}{devices}/checkNameAvailability", self._check_hub_name),
            (
                "POST",
                f"{subscription}{devices}/checkProvisioningServiceNameAvailability",
                self._check_dps_name,
            ),
            ("GET", f"{subscription}{devices}/{kinds}", self._list),
            ("GET", f"{subscription}{devices}/operationResults/(?P<operation>[^/]+)", self._operation),
            ("GET", f"{subscription}/operationresults/(?P<operation>[^/]+)", self._operation_result),
            ("GET", f"{subscription}/resourceGroups", self._list_groups),
            ("GET", group, self._show_group),
            ("HEAD", group, self._group_exists),
            ("PUT", group, self._put_group),
            ("PATCH", group, self._patch_group),
            ("DELETE", group, self._delete_group),
            ("GET", f"{subscription}/resources", self._list_all),
            ("GET", f"{group}/resources", self._list_all),
            ("GET", f"{group}{devices}/{kinds}", self._list),
            ("GET", resource, self._show),
            ("PUT", resource, self._put),
            ("PATCH", resource, self._patch),
            ("DELETE", resource, self._delete),
            ("POST", f"{resource}/listkeys", self._list_keys),
            ("POST", f"{resource}/(?:IotHubKeys|keys)/(?P<policy>[^/]+)/listkeys", self._show_key),
        ]
        self._routes = [
            (method, re.compile(pattern, re.IGNORECASE), handler) for method, pattern, handler in routes
        ]

    def add_to(self, application: web.Application) -> None:
        # Azure's addresses have no case, aiohttp's have; so what nobody else took is looked up here.
        application.router.add_get("/metadata/endpoints", self._cloud)
        application.router.add_route("*", "/{tail:.*}", self._dispatch)

    async def _cloud(self, request: web.Request) -> web.Response:
        """What `az cloud register --endpoint-resource-manager` asks before anybody is logged in."""
        base = f"https://{request.host}"
        return json_response(
            {
                "name": "Emulator",
                "authentication": {
                    "loginEndpoint": base,
                    "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
                    "tenant": "common",
                    "identityProvider": "AAD",
                },
                "graphAudience": base,
                "resourceManager": base,
                "suffixes": {},
            }
        )

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ArmError as error:
            request["reason"] = error.text
            return json_response(error.envelope(), status=error.status)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        fitting = [
            (method, match, handler)
            for method, pattern, handler in self._routes
            if (match := pattern.fullmatch(path))
        ]
        if not fitting:
            raise ArmError(404, "InvalidResourceType", f"The emulator does not have {path}.")
        self._authorize(request)
        if not request.query.get("api-version"):
            raise ArmError(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        for method, match, handler in fitting:
            if method == request.method:
                parts = match.groupdict()
                if parts.get("subscription", self._subscription).lower() != self._subscription:
                    raise ArmError(
                        404,
                        "SubscriptionNotFound",
                        f"The subscription '{parts['subscription']}' could not be found.",
                    )
                return await handler(Call(request, parts))
        raise ArmError(405, "MethodNotAllowed", f"The emulator does not have {request.method} {path}.")

    def _authorize(self, request: web.Request) -> None:
        header = request.headers.get("Authorization", "")
        try:
            audiences = AUDIENCES | {f"https://{request.host}"}
            request["caller"] = self._entra.check(
                header.removeprefix("Bearer ").strip(), audiences, self._clock.now()
            )
        except UnauthorizedError as error:
            request["refused"] = error.reason
            raise ArmError(
                401, "InvalidAuthenticationToken", "The access token is missing or not good here."
            ) from None

    async def _run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await self._store.run(operation)

    async def _tenants(self, _call: Call) -> web.Response:
        tenant = self._entra.credentials.tenantId
        return _list_of([{"id": f"/tenants/{tenant}", "tenantId": tenant, "displayName": "emulator"}])

    async def _subscriptions(self, _call: Call) -> web.Response:
        return _list_of([self._subscription_document()])

    async def _show_subscription(self, _call: Call) -> web.Response:
        return json_response(self._subscription_document())

    def _subscription_document(self) -> Document:
        return {
            "id": f"/subscriptions/{self._subscription}",
            "subscriptionId": self._subscription,
            "tenantId": self._entra.credentials.tenantId,
            "displayName": "emulator",
            "state": "Enabled",
            "authorizationSource": "RoleBased",
            "subscriptionPolicies": {"quotaId": "emulator", "spendingLimit": "Off"},
            "managedByTenants": [],
        }

    async def _locations(self, _call: Call) -> web.Response:
        address = f"/subscriptions/{self._subscription}/locations/{arm.LOCATION}"
        return _list_of([{"id": address, "name": arm.LOCATION, "displayName": "West Europe"}])

    async def _providers(self, _call: Call) -> web.Response:
        return _list_of([self._provider_document()])

    async def _provider(self, _call: Call) -> web.Response:
        return json_response(self._provider_document())

    def _provider_document(self) -> Document:
        return {
            "id": f"/subscriptions/{self._subscription}/providers/Microsoft.Devices",
            "namespace": "Microsoft.Devices",
            "registrationState": "Registered",
            "resourceTypes": [
                {
                    "resourceType": kind.partition("/")[2],
                    "locations": ["West Europe"],
                    "apiVersions": ["2023-06-30", "2022-12-12"],
                }
                for kind in _KINDS.values()
            ],
        }

    async def _check_hub_name(self, call: Call) -> web.Response:
        return await self._check_name(call, HUB_TYPE)

    async def _check_dps_name(self, call: Call) -> web.Response:
        return await self._check_name(call, DPS_TYPE)

    async def _check_name(self, call: Call, kind: str) -> web.Response:
        body = await call.body()
        name = body.get("name") if isinstance(body, dict) else None
        if not isinstance(name, str):
            raise ArmError(400, "InvalidRequestContent", "name is missing.")
        try:
            await self._run(lambda database: arm.check_name(database, kind, name))
        except ArmError as error:
            reason = "AlreadyExists" if error.status == 409 else "Invalid"
            return json_response({"nameAvailable": False, "reason": reason, "message": error.text})
        return json_response({"nameAvailable": True, "reason": None, "message": None})

    async def _list_groups(self, _call: Call) -> web.Response:
        return _list_of(await self._run(arm.list_groups))

    async def _show_group(self, call: Call) -> web.Response:
        return json_response(
            await self._run(lambda database: arm.get_group(database, self._subscription, call.group))
        )

    async def _group_exists(self, call: Call) -> web.Response:
        await self._run(lambda database: arm.get_group(database, self._subscription, call.group))
        return web.Response(status=204)

    async def _put_group(self, call: Call) -> web.Response:
        body = await call.body()
        group, new = await self._run(
            lambda database: arm.put_group(database, self._subscription, call.group, body)
        )
        return json_response(group, status=201 if new else 200)

    async def _patch_group(self, call: Call) -> web.Response:
        body = await call.body()

        def operation(database: sqlite3.Connection) -> Document:
            arm.get_group(database, self._subscription, call.group)
            return arm.patch_tags(database, arm.group_id(self._subscription, call.group), body)

        return json_response(await self._run(operation))

    async def _delete_group(self, call: Call) -> web.Response:
        await self._run(lambda database: arm.delete_group(database, self._subscription, call.group))
        response = web.Response(status=202)
        self._start(call, response, "Deleting", arm.group_id(self._subscription, call.group))
        return response

    async def _list_all(self, call: Call) -> web.Response:
        group = call.parts.get("group")
        address = arm.group_id(self._subscription, group) if group else None
        found = await self._run(lambda database: arm.list_resources(database, None, address))
        names = ("id", "name", "type", "location", "tags", "sku")
        return _list_of([{name: resource[name] for name in names} for resource in found])

    async def _list(self, call: Call) -> web.Response:
        def operation(database: sqlite3.Connection) -> list[Document]:
            address = None
            if "group" in call.parts:
                arm.get_group(database, self._subscription, call.group)
                address = arm.group_id(self._subscription, call.group)
            return arm.list_resources(database, call.kind, address)

        return _list_of([self._shown(resource) for resource in await self._run(operation)])

    async def _show(self, call: Call) -> web.Response:
        address = call.resource(self._subscription)
        if self._state(address) == "Deleting":
            raise arm.not_found(address)
        return json_response(
            self._shown(await self._run(lambda database: arm.get_resource(database, address)))
        )

    async def _put(self, call: Call) -> web.Response:
        body, if_match = await call.body(), call.request.headers.get("If-Match")
        resource, new = await self._run(
            lambda database: arm.put_resource(
                database, self._subscription, call.group, call.kind, call.parts["name"], body, if_match
            )
        )
        response = web.Response(status=201 if new else 200)
        self._start(call, response, "Activating", resource["id"])
        shown = json.dumps(self._shown(resource)).encode()
        response.body, response.content_type = shown, "application/json"
        return response

    async def _patch(self, call: Call) -> web.Response:
        body, address = await call.body(), call.resource(self._subscription)
        resource = await self._run(lambda database: arm.patch_tags(database, address, body))
        return json_response(self._shown(resource))

    async def _delete(self, call: Call) -> web.Response:
        address = call.resource(self._subscription)
        if not await self._run(lambda database: arm.delete_resource(database, address)):
            return web.Response(status=204)
        response = web.Response(status=202)
        self._start(call, response, "Deleting", address)
        return response

    async def _list_keys(self, call: Call) -> web.Response:
        keys = await self._keys(call)
        return _list_of(list(keys.values()))

    async def _show_key(self, call: Call) -> web.Response:
        keys, policy = await self._keys(call), call.parts["policy"]
        if policy not in keys:
            raise ArmError(404, "KeyNotFound", f"There is no policy '{policy}'.")
        return json_response(keys[policy])

    async def _keys(self, call: Call) -> dict[str, Document]:
        address = call.resource(self._subscription)
        return await self._run(lambda database: arm.keys_of(database, address, call.kind, self._place))

    def _shown(self, resource: Document) -> Document:
        return arm.shown(resource, self._place, self._state(resource["id"]))

    def _state(self, address: str) -> str:
        now = self._clock.now()
        for operation in self._operations.values():
            if operation.resource == address.lower() and operation.done > now:
                return operation.state
        return "Succeeded"

    def _start(self, call: Call, response: web.Response, state: str, address: str) -> None:
        """Begin a long-running operation and tell the client where to look for its end."""
        now = self._clock.now()
        # Kept as long as a client may ask.
        self._operations = {
            name: operation for name, operation in self._operations.items() if operation.done > now - 600
        }
        name = secrets.token_hex(12)
        self._operations[name] = _Operation(address.lower(), state, now + _OPERATION_SECONDS)
        base = f"https://{call.request.host}/subscriptions/{self._subscription}"
        version = f"api-version={call.request.query['api-version']}"
        devices = f"{base}/providers/Microsoft.Devices/operationResults/{name}?{version}"
        if "kind" in call.parts:
            response.headers["Azure-AsyncOperation"] = devices
        if state == "Deleting":
            response.headers["Location"] = f"{base}/operationresults/{name}?{version}"
        response.headers["Retry-After"] = str(_RETRY_SECONDS)

    async def _operation(self, call: Call) -> web.Response:
        """How an operation stands, as Azure-AsyncOperation tells it."""
        operation = self._find_operation(call)
        running = operation.done > self._clock.now()
        response = json_response(
            {"name": call.parts["operation"], "status": "Running" if running else "Succeeded"}
        )
        response.headers["Retry-After"] = str(_RETRY_SECONDS)
        return response

    async def _operation_result(self, call: Call) -> web.Response:
        """The same as Location tells it: 202 until it is done."""
        running = self._find_operation(call).done > self._clock.now()
        response = web.Response(status=202 if running else 200)
        if running:
            response.headers["Location"] = str(call.request.url)
            response.headers["Retry-After"] = str(_RETRY_SECONDS)
        return response

    def _find_operation(self, call: Call) -> _Operation:
        operation = self._operations.get(call.parts["operation"])
        if operation is None:
            raise ArmError(404, "OperationNotFound", "There is no such operation.")
        return operation


def _list_of(items: list[Any]) -> web.Response:
    return json_response({"value": items})
