# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dynamic client for a cluster's API, with bounded waits and errors that name the fix."""

from __future__ import annotations

import contextlib
import functools
import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_environment

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
    return {"kubeconfig": {"type": "raw", "no_log": True}, "context": {"type": "str"}}


def show_names(module: Any) -> None:
    """Let a module's results show what is no secret of its kubeconfig: a path, or addresses and names.

    Ansible takes every value in an option that is not logged for a secret, the address of the API too.
    """
    given = module.params.get("kubeconfig")
    if isinstance(given, Mapping):
        shown = {
            str(entry.get("name"))
            for key in ("clusters", "users", "contexts")
            for entry in given.get(key, [])
        }
        shown |= {str((entry.get("cluster") or {}).get("server")) for entry in given.get("clusters", [])}
        shown |= {str(given.get(key)) for key in ("apiVersion", "kind", "current-context")}
        for entry in given.get("contexts", []):
            shown |= {str(value) for value in (entry.get("context") or {}).values()}
        module.no_log_values -= shown
    else:
        module.no_log_values -= {given}


@contextlib.contextmanager
def opened(module: AnsibleModule) -> Iterator[Any]:
    """Give a module the client that its options ask for; what the API refuses meanwhile becomes ClusterError.

    Fails the module where the libraries are not there.
    """
    show_names(module)
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("openshift"), exception=IMPORT_ERROR)
    client = connect(module.params, str(Path(module.tmpdir) / "discovery.json"))
    with guard(client.client.configuration.host):
        yield client


def connect(params: Mapping[str, Any], cache_file: str, timeout: float = 15.0) -> Any:
    """Return an openshift DynamicClient whose every request is bounded by ``timeout`` seconds.

    params: ``kubeconfig`` (a path, or its content as a mapping) and ``context``.
    cache_file: where discovery keeps what it found.
    Raises ClusterError when there is no usable kubeconfig or no answer.
    """
    given = params.get("kubeconfig")
    names = cluster_environment.misleading(os.environ, in_memory=isinstance(given, Mapping))
    if names:
        raise ClusterError(f"{' '.join(names)} {cluster_environment.FACT}", cluster_environment.FIX)
    # In the order of kubernetes.core, so that its modules find the same cluster.
    given = given or os.environ.get("K8S_AUTH_KUBECONFIG") or os.environ.get("KUBECONFIG") or "~/.kube/config"
    configuration = kubernetes.client.Configuration()
    configuration.retries = False
    options: dict[str, Any] = {
        "context": params.get("context") or os.environ.get("K8S_AUTH_CONTEXT"),
        "client_configuration": configuration,
        "persist_config": False,
    }
    # Typed as Any because the library ships annotations for some of its functions only.
    load: Any = kubernetes.config.new_client_from_config
    if isinstance(given, Mapping):
        name = "the kubeconfig of this run"
        load, options["config_dict"] = kubernetes.config.new_client_from_config_dict, dict(given)
    else:
        name = f"the kubeconfig {given}"
        files = [Path(part).expanduser() for part in str(given).split(os.pathsep) if part]
        if not any(file.is_file() for file in files):
            raise ClusterError(f"{name} does not exist", "correct edge_kubeconfig")
        options["config_file"] = os.pathsep.join(map(str, files))
    try:
        api = load(**options)
    # A broken kubeconfig makes the library raise whatever its parser stumbles over.
    except Exception as error:
        raise ClusterError(f"{name} cannot be used: {error}", "correct it") from error
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
