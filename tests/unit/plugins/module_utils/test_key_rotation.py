# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import item_list, key_rotation, releases
from ansible_collections.edgeha.iotedge.plugins.module_utils.key_rotation import Rotation

FIRST, SECOND, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
DIGESTS = {
    "primary_digest": releases.key_digest(FIRST),
    "secondary_digest": releases.key_digest(SECOND),
}
# As a hub answers a GET.
EDGE: dict[str, Any] = {
    "deviceId": "gw",
    "generationId": "638",
    "etag": "MTIz",
    "connectionState": "Connected",
    "status": "enabled",
    "statusReason": "moved",
    "authentication": {
        "symmetricKey": {"primaryKey": FIRST, "secondaryKey": SECOND},
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        "type": "sas",
    },
    "capabilities": {"iotEdge": True},
    "deviceScope": "ms-azure-iot-edge://gw-638",
    "parentScopes": ["ms-azure-iot-edge://parent-1"],
}


@pytest.mark.parametrize(
    ("rotate", "after"),
    [
        ("primary", {**DIGESTS, "primary_digest": key_rotation.NEW}),
        ("secondary", {**DIGESTS, "secondary_digest": key_rotation.NEW}),
        ("both", dict.fromkeys(DIGESTS, key_rotation.NEW)),
        (
            "swap",
            {
                "primary_digest": DIGESTS["secondary_digest"],
                "secondary_digest": DIGESTS["primary_digest"],
            },
        ),
    ],
)
def test_plan_tells_fingerprints_and_no_key(rotate: str, after: dict[str, str]) -> None:
    plan = key_rotation.plan(EDGE, Rotation("gw", rotate=rotate))
    assert (plan.action, plan.before, plan.after) == ("update", DIGESTS, after)
    assert FIRST not in repr(plan)
    assert SECOND not in repr(plan)


def test_swap_keeps_all_else_of_the_identity() -> None:
    plan = key_rotation.plan(EDGE, Rotation("gw", rotate="swap"))
    assert plan.etag == "MTIz"
    assert plan.body["authentication"]["symmetricKey"] == {"primaryKey": SECOND, "secondaryKey": FIRST}
    kept = ("status", "statusReason", "capabilities", "deviceScope", "parentScopes")
    assert all(plan.body[name] == EDGE[name] for name in kept)
    assert not {"generationId", "connectionState"} & set(plan.body)
    # Both keys are the same text on neither side.
    assert EDGE["authentication"]["symmetricKey"]["primaryKey"] == FIRST


@pytest.mark.parametrize(
    ("rotate", "digest", "changed"),
    [
        ("primary", DIGESTS["primary_digest"], True),
        ("primary", DIGESTS["secondary_digest"], False),
        ("secondary", DIGESTS["secondary_digest"], True),
        ("secondary", DIGESTS["primary_digest"], False),
        ("both", DIGESTS["primary_digest"], True),
        ("swap", DIGESTS["primary_digest"], True),
        ("swap", "0" * 16, False),
    ],
)
def test_expected_digest_makes_it_a_state(rotate: str, digest: str, changed: bool) -> None:
    plan = key_rotation.plan(EDGE, Rotation("gw", rotate=rotate, expected_digest=digest))
    assert plan.changed is changed
    assert plan.before == DIGESTS


@pytest.mark.parametrize("kind", ["selfSigned", "certificateAuthority", "none"])
def test_identity_without_keys_is_refused(kind: str) -> None:
    actual = {**EDGE, "authentication": {"type": kind, "symmetricKey": {"primaryKey": None}}}
    with pytest.raises(item_list.Refused, match="has no keys"):
        key_rotation.plan(actual, Rotation("gw"))


def test_answer_of_a_batch_is_told_apart_by_identity() -> None:
    rotations = [Rotation("gw"), Rotation("gw", "m"), Rotation("other"), Rotation("silent")]
    answer = {
        "policyKey": "primaryKey",
        "rotatedKeys": [{"id": "gw", "primaryKey": NEW}],
        "errors": [
            {"id": "gw", "moduleId": "m", "errorCode": "ModuleNotFound", "errorStatus": "no such module"},
            {"id": "other", "errorCode": "ThrottlingException"},
        ],
    }
    done, *failed = key_rotation.outcomes(rotations, [EDGE] * 4, answer)
    assert isinstance(done, dict)
    assert done["authentication"]["symmetricKey"] == {"primaryKey": NEW, "secondaryKey": SECOND}
    assert [str(error) for error in failed] == [
        "the hub made no new key: ModuleNotFound: no such module",
        "the hub made no new key: ThrottlingException: no message",
        "the hub's answer does not tell whether it made a new key",
    ]


def test_errors_of_a_list_name_the_item() -> None:
    errors = key_rotation.list_errors(
        [
            Rotation("gw"),
            Rotation("g w"),
            Rotation("gw", "m", expected_digest="ABC"),
            Rotation("gw", "m2", expected_digest="0123456789abcdef"),
            Rotation("gw", rotate="swap"),
        ]
    )
    assert [error.partition(":")[0] for error in errors] == [f"identities[{n}]" for n in (1, 2, 4)]
    assert "'ABC' is no fingerprint" in errors[1]
