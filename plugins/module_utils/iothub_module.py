# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules for IoT Hub and DPS share: options, the client made from them, and readable errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth, iothub_client, rest_client

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# A token is refused as soon as the clocks differ by more than its life, and TLS and logs suffer long before.
CLOCK_LIMIT_SECONDS = 60.0

# More threads do not help: the service's throttle and not the latency bounds a fleet.
MAX_THREADS = 8
# Ways to log in at Azure, see azure_login.
LOGINS = ("cli", "service_principal", "managed_identity")
T = TypeVar("T")


def argument_spec() -> dict[str, dict[str, Any]]:
    """Return the options of the doc fragments ``iothub`` and ``azure_login``."""
    return _service_options("iothubowner")


def dps_argument_spec() -> dict[str, dict[str, Any]]:
    """Return the options of the doc fragments ``dps`` and ``azure_login``."""
    return _service_options("provisioningserviceowner")


def login_argument_spec(*, sas: bool) -> dict[str, dict[str, Any]]:
    """Return the options of the doc fragment ``azure_login``. sas: whether a shared access key will do."""
    methods = (["sas"] if sas else []) + list(LOGINS)
    return {
        "auth": {"type": "str", "choices": methods, "default": methods[0]},
        "subscription_id": {"type": "str"},
        "tenant_id": {"type": "str"},
        "client_id": {"type": "str"},
        "client_secret": {"type": "str", "no_log": True},
        "authority": {"type": "str"},
        "resource_manager": {"type": "str"},
        "ca_file": {"type": "path"},
        "timeout": {"type": "int", "default": 30},
        "retry_budget": {"type": "int", "default": 180},
    }


def _service_options(policy: str) -> dict[str, dict[str, Any]]:
    return {
        "hostname": {"type": "str"},
        "policy_name": {"type": "str", "default": policy},
        "policy_key": {"type": "str", "no_log": True},
        "connection_string": {"type": "str", "no_log": True},
        # no_log=False: a switch and an audience, neither is a secret.
        "fetch_key": {"type": "bool", "default": False, "no_log": False},
        "token_scope": {"type": "str", "no_log": False},
        **login_argument_spec(sas=True),
    }


# What AnsibleModule takes beside the options; every module of the group gives it.
RULES: dict[str, Any] = {
    "mutually_exclusive": [("connection_string", "hostname"), ("connection_string", "policy_key")],
    "required_one_of": [("connection_string", "hostname")],
    "required_if": [("auth", "sas", ("policy_key", "connection_string"), True)],
    "supports_check_mode": True,
}


def client(params: Mapping[str, Any]) -> iothub_client.HubClient:
    """Return a client of the hub for a module's options; raises CredentialError or ServiceUntrusted."""
    return iothub_client.HubClient(*credential(params, "hub"), **connection_options(params))


def connection_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what RestClient takes beside host name and credential."""
    return {
        "ca_file": params.get("ca_file"),
        "timeout": float(params["timeout"]),
        "retry_budget": float(params["retry_budget"]),
    }


def credential(params: Mapping[str, Any], service: str) -> tuple[str, rest_client.Credential]:
    """Return (host name, what signs calls) for a module's options. service: ``hub`` or ``dps``.

    Raises CredentialError.
    """
    if params["auth"] == "sas":
        if params.get("connection_string"):
            hostname, policy = iothub_auth.service_connection(params["connection_string"])
        else:
            hostname = params["hostname"]
            policy = iothub_auth.SasPolicy(params["policy_name"], params["policy_key"])
        iothub_auth.decode_key(policy.key)
        return hostname, policy
    if not params.get("hostname"):
        raise iothub_auth.CredentialError(
            f"auth: {params['auth']} takes hostname; a connection_string holds a key and belongs to auth: sas"
        )
    # Only now: every task pays for what is imported, and most sign with a key.
    from ansible_collections.edgeha.iotedge.plugins.module_utils import arm_client, azure_login

    login = azure_login.login(params)
    if params["fetch_key"]:
        arm = arm_client.ArmClient(login, **connection_options(params))
        kind = {"hub": arm_client.HUBS, "dps": arm_client.PROVISIONING}[service]
        return params["hostname"], arm.policy(kind, params["hostname"], params["policy_name"])
    scope = {"hub": azure_login.HUB_SCOPE, "dps": azure_login.DPS_SCOPE}[service]
    return params["hostname"], azure_login.EntraCredential(login, params.get("token_scope") or scope)


def each(function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
    """Call function for every item (as map does) with at most MAX_THREADS at a time; results keep the order.

    The first exception is raised again once the calls under way are over, and no further call is begun.
    """
    with ThreadPoolExecutor(max_workers=MAX_THREADS) as pool:
        futures = [pool.submit(function, *row) for row in zip(*items, strict=True)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def failing(module: AnsibleModule) -> Iterator[None]:
    """Turn an error of a service or a credential into the module's failure, with its fix.

    Refuses to return keys to a task that would print them.
    """
    if module.params.get("return_keys") and not module.no_log:
        module.fail_json(
            msg="Nothing was changed. return_keys: true needs no_log: true on the task, or the keys would be "
            "printed and logged"
        )
    try:
        yield
    except (rest_client.ServiceError, iothub_auth.CredentialError) as error:
        module.fail_json(msg=explain(error))


def explain(error: Exception) -> str:
    """Return an error as one line with the fix, as far as the answer tells."""
    if isinstance(error, rest_client.ServiceResponseError):
        offset = error.clock_offset
        if error.status == 401 and offset is not None and abs(offset) > CLOCK_LIMIT_SECONDS:
            return f"{error}. {clock_fact(offset)}: set this machine's clock first, signatures depend on it"
        if error.status == 401:
            return f"{error}. Check policy_name, policy_key and the rights of the policy or login"
        if error.status == 412:
            return f"{error}. Somebody else changed it meanwhile: run again"
        if error.status == 429:
            return f"{error}. The service limits calls for its tier: wait, raise retry_budget, or add units"
    if isinstance(error, rest_client.ServiceUntrusted):
        return f"{error}. Name the authority that signed it in ca_file"
    if isinstance(error, rest_client.ServiceUnreachable):
        return f"{error}. Check the host name, DNS, the firewall (443 outwards) and https_proxy"
    return str(error)


def clock_fact(offset: float) -> str:
    """Say a clock difference: offset is the hub's clock minus ours in seconds."""
    return f"this machine's clock is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} the hub's"
