# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_device
from ansible_collections.edgeha.iotedge.plugins.module_utils.iothub_device import DesiredDevice
from hypothesis import given
from hypothesis import strategies as st

KEYS = {"primaryKey": "cHJpbWFyeXByaW1hcnk=", "secondaryKey": "c2Vjb25kYXJ5c2Vjb24="}
# As a hub answers a GET for an edge device.
EDGE: dict[str, Any] = {
    "deviceId": "gw",
    "generationId": "638",
    "etag": "MTIz",
    "connectionState": "Connected",
    "status": "enabled",
    "statusReason": None,
    "lastActivityTime": "0001-01-01T00:00:00Z",
    "authentication": {"symmetricKey": KEYS, "x509Thumbprint": {}, "type": "sas"},
    "capabilities": {"iotEdge": True},
    "deviceScope": "ms-azure-iot-edge://gw-638",
    "parentScopes": ["ms-azure-iot-edge://parent-1"],
}
LEAF: dict[str, Any] = {**EDGE, "capabilities": {"iotEdge": False}, "deviceScope": "ms-azure-iot-edge://p-1"}


def test_new_device_lets_the_hub_mint_the_keys() -> None:
    plan = iothub_device.plan(None, DesiredDevice("gw", edge=True))
    assert plan.action == "create"
    assert plan.body["authentication"]["symmetricKey"] == {"primaryKey": "", "secondaryKey": ""}
    assert plan.body["capabilities"] == {"iotEdge": True}
    assert "etag" not in plan.body


def test_device_as_wanted_is_left_alone() -> None:
    plan = iothub_device.plan(EDGE, DesiredDevice("gw", edge=True, status="enabled", status_reason=""))
    assert plan.action == "none"
    assert not plan.changed
    assert plan.before == plan.after


def test_update_keeps_keys_scope_and_parents() -> None:
    plan = iothub_device.plan(EDGE, DesiredDevice("gw", status="disabled", status_reason="repair"))
    assert plan.action == "update"
    assert plan.etag == "MTIz"
    for name in ("authentication", "deviceScope", "parentScopes", "capabilities"):
        assert plan.body[name] == EDGE[name]
    assert (plan.body["status"], plan.body["statusReason"]) == ("disabled", "repair")
    # What the hub writes itself is not sent back.
    assert not {"generationId", "connectionState", "lastActivityTime"} & set(plan.body)


def test_leaf_becomes_edge_with_an_emptied_scope() -> None:
    plan = iothub_device.plan(LEAF, DesiredDevice("gw", edge=True))
    assert plan.body["deviceScope"] == ""
    assert "parentScopes" not in plan.body
    assert plan.body["authentication"] == LEAF["authentication"]


def test_edge_does_not_become_leaf() -> None:
    with pytest.raises(iothub_device.UnsupportedChange, match="cannot become a leaf"):
        iothub_device.plan(EDGE, DesiredDevice("gw", edge=False))


def test_device_with_a_certificate_is_not_touched() -> None:
    actual = {**EDGE, "authentication": {"type": "selfSigned"}}
    with pytest.raises(iothub_device.UnsupportedChange, match="selfSigned"):
        iothub_device.plan(actual, DesiredDevice("gw", status="disabled"))


def test_absent() -> None:
    assert iothub_device.plan(None, DesiredDevice("gw", present=False)).action == "none"
    plan = iothub_device.plan(EDGE, DesiredDevice("gw", present=False))
    assert (plan.action, plan.etag, plan.after) == ("delete", "MTIz", {})


def test_keys_are_in_no_diff() -> None:
    plans = [
        iothub_device.plan(EDGE, DesiredDevice("gw", status="disabled")),
        iothub_device.plan(EDGE, DesiredDevice("gw", present=False)),
    ]
    for plan in plans:
        assert KEYS["primaryKey"] not in repr(plan)


def test_tags_alone_change_a_device() -> None:
    plan = iothub_device.plan(
        EDGE, DesiredDevice("gw", tags={"site": "b", "old": None}), {"site": "a", "old": 1}
    )
    assert plan.action == "none"
    assert plan.changed
    assert plan.tag_patch == {"site": "b", "old": None}
    assert plan.after["tags"] == {"site": "b"}


@pytest.mark.parametrize(
    ("device_id", "fact"),
    [
        ("", "1 to 128"),
        ("a b", "' '"),
        ("ä", "'ä'"),
        ("a/b", "'/'"),
        ("x" * 129, "129 characters"),
        (None, "text"),
    ],
)
def test_bad_device_id(device_id: Any, fact: str) -> None:
    assert fact in (iothub_device.device_id_error(device_id) or "")


@given(st.text(alphabet="abcXYZ019-:.+%_#*?!(),=@;$'", min_size=1, max_size=128))
def test_good_device_id(device_id: str) -> None:
    assert iothub_device.device_id_error(device_id) is None


def test_errors_of_a_list_name_the_item_and_come_all_at_once() -> None:
    errors = iothub_device.list_errors(
        [
            DesiredDevice("a"),
            DesiredDevice("b b"),
            DesiredDevice("a"),
            DesiredDevice("c", tags={"x.y": 1}),
            DesiredDevice("d", status_reason="x" * 129),
        ]
    )
    assert [error.partition(":")[0] for error in errors] == [f"devices[{index}]" for index in (1, 2, 3, 4)]
    assert "devices[0]" in errors[1]


JSON_LEAF = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2)
TAGS = st.recursive(
    st.dictionaries(st.sampled_from("pqr"), JSON_LEAF, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("pqr"), JSON_LEAF | inner, max_size=3),
    max_leaves=8,
)


def without_none(value: Any) -> Any:
    """A twin holds no null: that is what removal means."""
    return (
        {k: without_none(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    )


@given(actual=TAGS, wanted=TAGS)
def test_patched_tags_hold_what_is_wanted_and_a_second_patch_is_empty(actual: Any, wanted: Any) -> None:
    actual = without_none(actual)
    after = iothub_device.apply_patch(actual, iothub_device.merge_patch(actual, wanted))
    # RFC 7396: merging the whole wish must give the same.
    assert after == iothub_device.apply_patch(actual, wanted)
    assert iothub_device.merge_patch(after, wanted) == {}


def test_one_and_true_are_not_the_same_in_json() -> None:
    assert iothub_device.merge_patch({"a": 1}, {"a": True}) == {"a": True}
