# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dynamic client for a cluster's API, with bounded waits and errors that name the fix."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import kubernetes
    import urllib3
    from openshift.dynamic import DynamicClient
except ImportError:
    IMPORT_ERROR: str | None = traceback.format_exc()
else:
    IMPORT_ERROR = None


class ClusterError(Exception):
    """The cluster cannot be used at all. fact and fix as in a problem."""

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(f"{fact}: {fix}")
        self.fact = fact
        self.fix = fix


def argument_spec() -> dict[str, dict[str, Any]]:
    """Return the options of the doc fragment ``cluster``."""
    return {"kubeconfig": {"type": "path"}, "context": {"type": "str"}}


def connect(params: Mapping[str, Any], cache_file: str, timeout: float = 15.0) -> Any:
    """Return an openshift DynamicClient whose every request is bounded by ``timeout`` seconds.

    params: ``kubeconfig`` and ``context``. cache_file: where discovery keeps what it found.
    Raises ClusterError when there is no usable kubeconfig or no answer.
    """
    path = params.get("kubeconfig") or os.environ.get("K8S_AUTH_KUBECONFIG") or "~/.kube/config"
    file = Path(path).expanduser()
    if not file.is_file():
        raise ClusterError(f"the kubeconfig {path} does not exist", "correct edge_kubeconfig")
    configuration = kubernetes.client.Configuration()
    configuration.retries = False
    # Typed as Any because the library ships annotations for some of its functions only.
    load: Any = kubernetes.config.new_client_from_config
    try:
        api = load(
            config_file=str(file),
            context=params.get("context") or os.environ.get("K8S_AUTH_CONTEXT"),
            client_configuration=configuration,
            persist_config=False,
        )
    # A broken kubeconfig makes the library raise whatever its parser stumbles over.
    except Exception as error:
        raise ClusterError(f"the kubeconfig {path} cannot be used: {error}", "correct the file") from error
    # The library offers a limit for each request but none for all of them; discovery sets none at all.
    api.rest_client.request = functools.partial(_bounded, api.rest_client.request, timeout)
    with guard(str(api.configuration.host)):
        kubernetes.client.VersionApi(api).get_code()
        return DynamicClient(api, cache_file=cache_file)


def _bounded(request: Any, timeout: float, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("_request_timeout") is None:
        kwargs["_request_timeout"] = timeout
    return request(*args, **kwargs)


class guard:  # noqa: N801 - reads as a word after `with`
    """Context that turns errors of the API libraries into ClusterError."""

    def __init__(self, server: str) -> None:
        self.server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, urllib3.exceptions.SSLError):
            raise ClusterError(
                f"the API {self.server} has a certificate that is not trusted: {error}",
                "correct certificate-authority in the kubeconfig",
            ) from error
        if isinstance(error, urllib3.exceptions.HTTPError | OSError):
            raise ClusterError(
                f"the API {self.server} cannot be reached: {_short(error)}",
                "check the address in the kubeconfig, the network, and that the API server runs",
            ) from error
        status = getattr(error, "status", None)
        if status == 401:
            raise ClusterError(
                f"the API {self.server} refuses the credentials of the kubeconfig", "renew the kubeconfig"
            ) from error
        if status == 403:
            raise ClusterError(
                f"the API {self.server} forbids it: {getattr(error, 'reason', '')}", "grant the right"
            ) from error
        if isinstance(status, int):
            raise ClusterError(
                f"the API {self.server} answers HTTP {status} {getattr(error, 'reason', '')}",
                "look at the state of the API server",
            ) from error


def _short(error: BaseException) -> str:
    # urllib3 begins its texts with the repr of a pool or a connection, which tells an operator nothing.
    return str(error).rpartition(": ")[2] or type(error).__name__
