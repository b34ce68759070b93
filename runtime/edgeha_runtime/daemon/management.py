# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Management API 2022-08-03 of IoT Edge, for edgeAgent and nobody else.

Contract: Azure/iotedge, edgelet/api, managementVersion_2022_08_03. Every error has its ErrorResponse body.
What is asked for is kept before it is answered; objects in the cluster follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from . import log_options, pods, support_bundle, system_info
from .callers import Caller, Callers
from .deployment import Deployed, ModuleExistsError, SpecError, UnknownModuleError
from .events import NORMAL, WARNING
from .http_api import ApiError, application, json_body, refused, text
from .hub_errors import HubError, HubUnavailableError
from .images import ImageError, ImageTimeoutError
from .keystore import cannot_write
from .kube import ERRORS, Cluster, describe
from .log_options import LogOptionError, LogOptions
from .logs import fields
from .modules import Modules
from .moduleset import SYSTEM_MODULES, identity_problems

MANAGED_BY = "IotEdge"
# Identities of the chart's modules: a stock agent takes away only what IotEdge manages.
MANAGED_BY_CHART = "edgeha"
# How long a log that is followed may be quiet before its reader is told that it is read, and between two
# looks whether that reader is still there.
QUIET_SECONDS = 2.0

_log = logging.getLogger(__name__)


class ManagementApi:
    """The routes. `state` is the folder whose disk is told; `provisioning` the kind that is told.

    `reprovision` asks the provisioning service anew, where there is one; it raises HubError.
    """

    def __init__(
        self,
        callers: Callers,
        modules: Modules,
        cluster: Cluster,
        *,
        state: Path,
        provisioning: str,
        reprovision: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._callers = callers
        self._modules = modules
        self._deployment = modules.deployment
        self._identities = modules.identities
        self._cluster = cluster
        self._state = state
        self._provisioning = provisioning
        self._provision_again = reprovision

    def application(self) -> web.Application:
        """The aiohttp application with all routes of the contract."""
        app = application("management", self._callers, self._agent_only)
        module = "/modules/{name}"
        app.add_routes(
            [
                web.get("/modules", self._list, allow_head=False),
                web.post("/modules", self._create),
                web.get(module, self._get, allow_head=False),
                web.put(module, self._update),
                web.delete(module, self._remove),
                web.post(f"{module}/prepareupdate", self._prepare),
                web.post(f"{module}/start", self._start),
                web.post(f"{module}/stop", self._stop),
                web.post(f"{module}/restart", self._restart),
                web.get(f"{module}/logs", self._logs, allow_head=False),
                web.get("/identities/", self._list_identities, allow_head=False),
                web.post("/identities/", self._create_identity),
                web.put("/identities/{name}", self._update_identity),
                web.delete("/identities/{name}", self._delete_identity),
                web.get("/systeminfo", self._system_info, allow_head=False),
                web.get("/systeminfo/resources", self._resources, allow_head=False),
                web.get("/systeminfo/supportbundle", self._support_bundle, allow_head=False),
                web.post("/device/reprovision", self._reprovision),
            ]
        )
        return app

    def _agent_only(self, request: web.Request, caller: Caller) -> None:
        if caller.module != self._modules.agent:
            reason = f"module {caller.module} is not edgeAgent, which alone may use the management API"
            raise refused(request, caller, 403, reason)

    # Modules

    async def _list(self, _request: web.Request) -> web.Response:
        found = [self._details(name, module) for name, module in sorted(self._deployment.modules.items())]
        return web.json_response({"modules": found})

    async def _get(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response(self._details(name, self._known(name)))

    async def _create(self, request: web.Request) -> web.Response:
        spec = await json_body(request)
        with _answers():
            await self._deployment.create(spec)
        name = str(spec["name"])
        _log.info("module created", extra=fields(module=name))
        return web.json_response(self._details(name, self._known(name)), status=201)

    async def _update(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        with _answers():
            start = log_options.flag("start", request.query["start"]) if "start" in request.query else False
        self._known(name)
        spec = await json_body(request)
        with _answers():
            await self._deployment.update(name, spec, start=start)
        _log.info("module updated", extra=fields(module=name, started=start))
        self._modules.tell(NORMAL, name, "Updated", f"edgeAgent updated module {name}")
        return web.json_response(self._details(name, self._known(name)))

    async def _prepare(self, request: web.Request) -> web.Response:
        # edgeAgent prepares modules that do not exist yet too; what cannot be is told before anything stops.
        spec = await json_body(request)
        with _answers():
            module = self._deployment.prepare(request.match_info["name"], spec)
            try:
                await self._modules.pull(module)
            except ImageError as error:
                self._modules.tell(WARNING, module.name, "ImageNotPulled", str(error))
                raise
        return web.Response(status=204)

    async def _remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        with _answers():
            await self._deployment.remove(name)
        _log.info("module removed", extra=fields(module=name))
        return web.Response(status=204)

    async def _start(self, request: web.Request) -> web.Response:
        return await self._run(request.match_info["name"], True)

    async def _stop(self, request: web.Request) -> web.Response:
        return await self._run(request.match_info["name"], False)

    async def _run(self, name: str, running: bool) -> web.Response:
        with _answers():
            changed = await self._deployment.run(name, running)
            if running and not changed and self._modules.has_ended(name):
                # Its end was told before it was noted.
                await self._deployment.restart(name)
                changed = True
        if changed:
            what = "started" if running else "stopped"
            _log.info("module %s", what, extra=fields(module=name))
            self._modules.tell(NORMAL, name, what.capitalize(), f"edgeAgent {what} module {name}")
        return web.Response(status=204 if changed else 304)

    async def _restart(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        with _answers():
            await self._deployment.restart(name)
        _log.info("module restarted", extra=fields(module=name))
        self._modules.tell(NORMAL, name, "Restarted", f"edgeAgent restarted module {name}")
        return web.Response(status=204)

    def _known(self, name: str) -> Deployed:
        found = self._deployment.modules.get(name)
        if found is None:
            raise ApiError(404, f"no module {name[:128]}")
        return found

    def _details(self, name: str, module: Deployed) -> dict[str, Any]:
        """The contract's ModuleDetails. Logins of registries do not go out again."""
        config = module.spec["config"]
        settings = {key: value for key, value in config["settings"].items() if key != "auth"}
        return {
            "id": name,
            "name": name,
            "type": "docker",
            "config": {"settings": settings, "env": config.get("env") or []},
            "status": self._modules.status(name, running=module.running).document(),
        }

    # Logs

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self._known(name)
        with _answers():
            options = log_options.read(request.query, time.time())
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        sending = asyncio.create_task(self._send(request, response, self._lines(name, options)))
        try:
            while not sending.done():
                await asyncio.wait({sending}, timeout=QUIET_SECONDS)
                if _has_left(request):
                    break
                if options.follow and not sending.done() and not response.prepared:
                    await response.prepare(request)
            else:
                await sending
        except ERRORS as error:
            if not response.prepared:
                # A log that cannot be read is an error, and not an empty log.
                raise ApiError(503, f"the log of {name} cannot be read: {describe(error)}") from None
            _log.warning("log cut", extra=fields(module=name, reason=describe(error)))
            # Half a log must not look like a whole one.
            if request.transport is not None:
                request.transport.abort()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return response

    @staticmethod
    async def _send(request: web.Request, response: web.StreamResponse, lines: AsyncGenerator[str]) -> None:
        """Send the lines; the answer begins with the first of them. A reader that leaves is no error."""
        async with contextlib.aclosing(lines):
            line = await anext(lines, None)
            if not response.prepared:
                await response.prepare(request)
            with contextlib.suppress(ConnectionResetError):
                while line is not None:
                    await response.write(log_options.frame(line))
                    line = await anext(lines, None)

    async def _lines(self, module: str, options: LogOptions) -> AsyncGenerator[str]:
        """The wanted lines of a module's newest pod; none where there is no pod."""
        found = self._modules.pods.of(module)
        if not found:
            return
        pod = pods.newest(found).name

        def read() -> AsyncGenerator[str]:
            return self._cluster.log(
                pod,
                pods.CONTAINER,
                follow=options.follow,
                since=max(1, math.ceil(time.time() - options.since)) if options.since else None,
                tail=options.tail if options.until is None else None,
            )

        # Closed when the client leaves, and with it the connection to the cluster's API.
        async with contextlib.aclosing(log_options.chosen(read, options)) as wanted:
            async for line in wanted:
                yield line

    # Identities

    async def _list_identities(self, _request: web.Request) -> web.Response:
        found = [self._identity(name, known) for name, known in sorted(self._identities.known.items())]
        return web.json_response({"identities": found})

    async def _create_identity(self, request: web.Request) -> web.Response:
        document = await json_body(request)
        name = text(document, "moduleId")
        if problems := identity_problems(name):
            raise ApiError(400, f"moduleId: {'; '.join(problems)}")
        self._managed(document)
        return await self._ensure(name)

    async def _update_identity(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        document = await json_body(request)
        text(document, "generationId")
        self._managed(document)
        if name not in self._identities.known:
            raise ApiError(404, f"no identity {name[:128]}")
        return await self._ensure(name)

    @staticmethod
    def _managed(document: Mapping[str, object]) -> None:
        if document.get("managedBy") is not None:
            text(document, "managedBy")

    async def _ensure(self, name: str) -> web.Response:
        known = self._identities.known.get(name)
        with self._modules.making(name), _answers():
            try:
                generation = await self._identities.ensure(name)
            except HubUnavailableError:
                # With the cloud away a module that is known goes on under the identity that it has.
                if known is None:
                    raise
                generation = known
            await self._deployment.keep_identity(name)
        return web.json_response(self._identity(name, str(generation)))

    def _identity(self, name: str, generation: str) -> dict[str, str]:
        chart = self._modules.own_identities - {self._modules.agent} - self._deployment.identities
        managed_by = MANAGED_BY_CHART if name in chart else MANAGED_BY
        return {"moduleId": name, "managedBy": managed_by, "generationId": generation, "authType": "Sas"}

    async def _delete_identity(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._identities.known and name not in self._deployment.identities:
            raise ApiError(404, f"no identity {name[:128]}")
        if name == self._modules.agent:
            raise ApiError(409, f"{name} is the identity that this call is made with")
        if name in self._modules.own_identities:
            raise ApiError(
                409, f"{name} is the identity of a module of the chart, which makes and removes it"
            )
        with _answers():
            await self._identities.remove(name)
            await self._deployment.drop_identity(name)
        return web.Response(status=204)

    # The machine and the device

    async def _system_info(self, _request: web.Request) -> web.Response:
        return web.json_response(system_info.info(self._provisioning))

    async def _resources(self, _request: web.Request) -> web.Response:
        return web.json_response(await system_info.resources(self._state))

    async def _support_bundle(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        with _answers():
            only_runtime = "edge_runtime_only" in query and log_options.flag(
                "edge_runtime_only", query["edge_runtime_only"]
            )
            times = {name: query[name] for name in ("since", "until") if name in query}
            options = log_options.read({**times, "timestamps": "true"}, time.time())
        modules = self._deployment.modules
        documents = {
            "systeminfo.json": system_info.info(self._provisioning),
            "resources.json": await system_info.resources(self._state),
            "identities.json": dict(self._identities.known),
            "not-ready.json": self._modules.not_ready(),
            "modules.json": [
                support_bundle.without_secrets(self._details(name, module))
                for name, module in sorted(modules.items())
            ],
        }
        logs = {
            f"logs/{name}.txt": self._told(name, options)
            for name in sorted(modules)
            if name in SYSTEM_MODULES or not only_runtime
        }
        response = web.StreamResponse(headers={"Content-Type": "application/zip"})
        await response.prepare(request)
        async with contextlib.aclosing(support_bundle.stream(documents, logs)) as parts:
            with contextlib.suppress(ConnectionResetError):
                async for part in parts:
                    await response.write(part)
        return response

    async def _told(self, module: str, options: LogOptions) -> AsyncGenerator[str]:
        """The log of a module, or why it cannot be read."""
        try:
            async with contextlib.aclosing(self._lines(module, options)) as lines:
                async for line in lines:
                    yield line
        except ERRORS as error:
            yield f"{describe(error)}\n"

    async def _reprovision(self, _request: web.Request) -> web.Response:
        _log.info("reprovision")
        if self._provision_again is not None:
            with _answers():
                await self._provision_again()
        self._modules.reprovision()
        return web.Response()


def _has_left(request: web.Request) -> bool:
    """Whether the client hung up, which aiohttp tells a handler only when it writes."""
    return request.transport is None or request.transport.is_closing()


@contextlib.contextmanager
def _answers() -> Iterator[None]:
    """Turn what the parts raise into answers of the contract."""
    try:
        yield
    except UnknownModuleError as error:
        raise ApiError(404, str(error)) from None
    except ModuleExistsError as error:
        raise ApiError(409, str(error)) from None
    except (SpecError, LogOptionError) as error:
        raise ApiError(400, str(error)) from None
    except (HubUnavailableError, ImageTimeoutError) as error:
        raise ApiError(503, str(error)) from None
    except (HubError, ImageError) as error:
        raise ApiError(502, str(error)) from None
    except OSError as error:
        raise ApiError(503, cannot_write(error)) from None
