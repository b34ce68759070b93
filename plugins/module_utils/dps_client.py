# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service side of the Device Provisioning Service: the calls that the modules need.

The contract is the service's data plane API, api-version 2021-10-01.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import rest_client


class DpsClient(rest_client.RestClient):
    """Calls one provisioning service; see RestClient."""

    SERVICE = "DPS"
    API_VERSION = "2021-10-01"

    def get_enrollment(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an enrollment without its keys, or None when there is none of that id.

        kind: ``enrollments`` or ``enrollmentGroups``, here and below.
        """
        try:
            return rest_client.as_object(self.request("GET", _path(kind, name)).body)
        except rest_client.ServiceResponseError as error:
            # 404 alone is not enough: a proxy or a wrong host says it too, and "absent" leads to a creation.
            if error.status == 404 and error.code.startswith(_NOT_FOUND):
                return None
            raise

    def put_enrollment(
        self, kind: str, name: str, body: Mapping[str, Any], etag: str | None
    ) -> dict[str, Any]:
        """Create (etag None) or replace (etag of the version that was read) an enrollment."""
        return rest_client.as_object(
            self.request("PUT", _path(kind, name), body=dict(body), if_match=etag).body
        )

    def delete_enrollment(self, kind: str, name: str, etag: str) -> None:
        """Delete an enrollment with its registrations; the devices stay at their hubs."""
        self.request("DELETE", _path(kind, name), if_match=etag)

    def attestation(self, kind: str, name: str) -> dict[str, Any]:
        """Return the attestation of an enrollment with its symmetric keys: secrets."""
        return rest_client.as_object(self.request("POST", f"{_path(kind, name)}/attestationmechanism").body)


# 404201 and its neighbours, each the number of one kind of record.
_NOT_FOUND = ("4042", "Enrollment")


def _path(kind: str, name: str) -> str:
    return f"/{kind}/{rest_client.segment(name)}"
