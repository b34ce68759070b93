# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure Resource Manager, as far as hubs and provisioning services need it: plain calls.

Source: "IoT Hub resource provider REST API", "DPS resource provider REST API" and "Resource Groups REST API"
(Microsoft Learn).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ansible_collections.edgeha.iotedge.plugins.module_utils import azure_login, rest_client
from ansible_collections.edgeha.iotedge.plugins.module_utils.iothub_auth import CredentialError, SasPolicy

HUBS = "Microsoft.Devices/IotHubs"
PROVISIONING = "Microsoft.Devices/provisioningServices"
GROUPS = "Microsoft.Resources/resourceGroups"
_HOST_NAMES = {HUBS: "hostName", PROVISIONING: "serviceOperationsHostName"}
_LIST_KEYS = {HUBS: "IotHubKeys/{}/listkeys", PROVISIONING: "keys/{}/listkeys"}
_API_VERSIONS = {HUBS: "2023-06-30", PROVISIONING: "2022-12-12", GROUPS: "2021-04-01"}
# A 404 with another code says that the subscription is wrong, or that something else answers.
_ABSENT = ("ResourceNotFound", "ResourceGroupNotFound")


class ArmClient(rest_client.RestClient):
    """Calls Azure Resource Manager in the cloud of a login; see RestClient for the options."""

    SERVICE = "Azure Resource Manager"
    API_VERSION = "2023-06-30"

    def __init__(self, login: azure_login.AzureLogin, **options: Any) -> None:
        host = urlsplit(login.resource_manager).netloc
        if not host:
            raise CredentialError(
                f"resource_manager is {login.resource_manager!r}; write it like https://management.azure.com"
            )
        scope = f"{login.resource_manager}/.default"
        super().__init__(host, azure_login.EntraCredential(login, scope), **options)
        self._subscription = login.subscription

    @property
    def subscription(self) -> str:
        """The id of the subscription that is worked in; raises CredentialError when the login names none."""
        if not self._subscription:
            raise CredentialError("no subscription: give subscription_id (or AZURE_SUBSCRIPTION_ID)")
        return self._subscription

    def policy(self, kind: str, hostname: str, policy_name: str) -> SasPolicy:
        """Return a shared access policy with its key. kind: HUBS or PROVISIONING.

        Raises CredentialError when the subscription has no such hub.
        """
        version = _version(kind)
        wanted = hostname.partition(":")[0].lower()
        resource = self._find(kind, wanted)
        if resource is None:
            raise CredentialError(
                f"the subscription {self.subscription} has no {kind.partition('/')[2]} with the host name "
                f"{wanted}: check subscription_id, and that the login may read it"
            )
        path = f"{resource['id']}/{_LIST_KEYS[kind].format(rest_client.segment(policy_name))}"
        answer = rest_client.as_object(self.request("POST", path, query=version).body)
        return SasPolicy(policy_name, str(answer.get("primaryKey") or ""))

    def read(self, kind: str, group: str, name: str = "") -> dict[str, Any] | None:
        """Return a resource (of kind GROUPS: the group itself), None when there is none of that name."""
        try:
            path = self._path(kind, group, name)
            return rest_client.as_object(self.request("GET", path, query=_version(kind)).body)
        except rest_client.ServiceResponseError as error:
            if error.status == 404 and error.code in _ABSENT:
                return None
            raise

    def write(self, kind: str, group: str, name: str, body: Mapping[str, Any], etag: str = "") -> None:
        """Create or replace a resource. etag: version that was read, empty for none.

        The answer comes before the work is done: `read` tells properties.provisioningState.
        """
        path = self._path(kind, group, name)
        self.request("PUT", path, body=dict(body), query=_version(kind), if_match=etag or None)

    def remove(self, kind: str, group: str, name: str = "") -> None:
        """Begin to delete a resource; one that is gone already is no error."""
        try:
            self.request("DELETE", self._path(kind, group, name), query=_version(kind))
        except rest_client.ServiceResponseError as error:
            if error.status != 404 or error.code not in _ABSENT:
                raise

    def policies(self, kind: str, group: str, name: str) -> list[dict[str, Any]]:
        """Return all shared access policies of a hub or a provisioning service, with their keys."""
        found: list[dict[str, Any]] = []
        path: str | None = f"{self._path(kind, group, name)}/listkeys"
        query = _version(kind)
        while path:
            page = rest_client.as_object(self.request("POST", path, query=query).body)
            found += [dict(policy) for policy in page.get("value") or []]
            following = urlsplit(str(page.get("nextLink") or ""))
            path = following.path or None
            query = dict(parse_qsl(following.query)) or query
        return found

    def _path(self, kind: str, group: str, name: str) -> str:
        segment = rest_client.segment
        path = f"/subscriptions/{segment(self.subscription)}/resourceGroups/{segment(group)}"
        return path if kind == GROUPS else f"{path}/providers/{kind}/{segment(name)}"

    def _find(self, kind: str, hostname: str) -> dict[str, Any] | None:
        path: str | None = f"/subscriptions/{rest_client.segment(self.subscription)}/providers/{kind}"
        query = _version(kind)
        while path:
            page = rest_client.as_object(self.request("GET", path, query=query).body)
            for resource in page.get("value") or []:
                properties = resource.get("properties") or {}
                # Only a stand-in has a port there.
                if str(properties.get(_HOST_NAMES[kind], "")).partition(":")[0].lower() == hostname:
                    return dict(resource)
            following = urlsplit(str(page.get("nextLink") or ""))
            path = following.path or None
            query = dict(parse_qsl(following.query)) or query
        return None


def _version(kind: str) -> dict[str, str]:
    return {"api-version": _API_VERSIONS[kind]}
