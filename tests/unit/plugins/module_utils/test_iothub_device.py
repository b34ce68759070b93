# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_device
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import Authentication
from ansible_collections.edgeha.iotedge.plugins.module_utils.iothub_device import ActualDevice, DesiredDevice
from hypothesis import given
from hypothesis import strategies as st

KEYS = {"primaryKey": "cHJpbWFyeXByaW1hcnk=", "secondaryKey": "c2Vjb25kYXJ5c2Vjb24="}
# As a hub answers a GET of the twin and of the identity of an edge device.
TWIN: dict[str, Any] = {
    "deviceId": "gw",
    "etag": "AAAAAAAAAAE=",
    "deviceEtag": "MTIz",
    "status": "enabled",
    "connectionState": "Connected",
    "authenticationType": "sas",
    "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
    "capabilities": {"iotEdge": True},
    "deviceScope": "ms-azure-iot-edge://gw-638",
    "parentScopes": ["ms-azure-iot-edge://parent-1"],
    "tags": {"site": "a", "old": 1},
    "properties": {"desired": {"period": 5, "$metadata": {}, "$version": 3}, "reported": {}},
}
IDENTITY: dict[str, Any] = {
    "deviceId": "gw",
    "etag": "MTIz",
    "authentication": {"symmetricKey": KEYS, "x509Thumbprint": {}, "type": "sas"},
    "capabilities": {"iotEdge": True},
}
EDGE = ActualDevice.from_twin(TWIN)
LEAF = ActualDevice.from_twin(
    {
        **TWIN,
        "capabilities": {"iotEdge": False},
        "deviceScope": "ms-azure-iot-edge://p-1-1",
        "parentScopes": [],
    }
)
PRINT = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"


def entry(actual: ActualDevice, desired: DesiredDevice, scope: str = "") -> dict[str, Any]:
    return iothub_device.update_entry(IDENTITY, actual, desired, scope)


def test_new_device_lets_the_hub_mint_the_keys_and_gets_its_twin_in_one_go() -> None:
    desired = DesiredDevice("gw", edge=True, tags={"a": 1, "b": None}, desired={"p": {"q": 2}})
    plan = iothub_device.plan(None, desired)
    assert plan.action == "create"
    made = iothub_device.create_entry(desired, plan, "ms-azure-iot-edge://top-9")
    assert made == {
        "id": "gw",
        "importMode": "create",
        "status": "enabled",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}},
        "capabilities": {"iotEdge": True},
        "parentScopes": ["ms-azure-iot-edge://top-9"],
        "tags": {"a": 1},
        "properties": {"desired": {"p": {"q": 2}}},
    }


def test_parent_of_a_new_leaf_stands_in_its_own_scope() -> None:
    desired = DesiredDevice("leaf", parent="top")
    made = iothub_device.create_entry(desired, iothub_device.plan(None, desired), "scope-of-top")
    assert made["deviceScope"] == "scope-of-top"
    assert "parentScopes" not in made


def test_device_as_wanted_is_left_alone() -> None:
    plan = iothub_device.plan(
        EDGE, DesiredDevice("gw", edge=True, status="enabled", status_reason="", parent="parent")
    )
    assert plan.action == "none"
    assert not plan.changed
    assert plan.before == plan.after


def test_update_keeps_keys_scope_and_parent() -> None:
    desired = DesiredDevice("gw", status="disabled", status_reason="repair")
    assert iothub_device.plan(EDGE, desired).action == "update"
    assert entry(EDGE, desired) == {
        "id": "gw",
        "eTag": "MTIz",
        "importMode": "updateIfMatchETag",
        "status": "disabled",
        "statusReason": "repair",
        "authentication": IDENTITY["authentication"],
        "capabilities": {"iotEdge": True},
        "deviceScope": "ms-azure-iot-edge://gw-638",
        "parentScopes": ["ms-azure-iot-edge://parent-1"],
    }


@pytest.mark.parametrize(
    ("actual", "parent", "changed", "scopes"),
    [
        (EDGE, "", True, {"deviceScope": EDGE.device_scope, "parentScopes": []}),
        (EDGE, "other", True, {"deviceScope": EDGE.device_scope, "parentScopes": ["S"]}),
        (LEAF, "p-1", False, {"deviceScope": "S"}),
        (LEAF, "", True, {"deviceScope": ""}),
        (LEAF, "other", True, {"deviceScope": "S"}),
    ],
)
def test_parents(actual: ActualDevice, parent: str, changed: bool, scopes: dict[str, Any]) -> None:
    desired = DesiredDevice("gw", parent=parent)
    assert iothub_device.plan(actual, desired).changed is changed
    made = entry(actual, desired, "S" if parent else "")
    assert {name: made[name] for name in ("deviceScope", "parentScopes") if name in made} == scopes


def test_leaf_becomes_edge_with_an_emptied_scope_and_gets_its_parent_afterwards() -> None:
    desired = DesiredDevice("gw", edge=True, parent="top")
    made = entry(LEAF, desired, "scope-of-top")
    assert (made["deviceScope"], "parentScopes" in made) == ("", False)
    assert iothub_device.needs_second_update(LEAF, desired)
    assert not iothub_device.needs_second_update(EDGE, desired)


def test_edge_does_not_become_leaf() -> None:
    with pytest.raises(iothub_device.UnsupportedChange, match="cannot become a leaf"):
        iothub_device.plan(EDGE, DesiredDevice("gw", edge=False))


def test_kind_of_authentication_changes_only_when_that_is_meant() -> None:
    wanted = Authentication("self_signed", primary_thumbprint=PRINT)
    with pytest.raises(iothub_device.UnsupportedChange, match="replace_authentication"):
        iothub_device.plan(EDGE, DesiredDevice("gw", authentication=wanted))
    desired = DesiredDevice("gw", authentication=wanted, replace_authentication=True)
    plan = iothub_device.plan(EDGE, desired)
    assert (plan.before["authentication"], plan.after["authentication"]) == ("sas", "self_signed")
    assert plan.after["primary_thumbprint"] == PRINT
    assert entry(EDGE, desired)["authentication"]["x509Thumbprint"]["primaryThumbprint"] == PRINT


def test_keys_of_the_list_are_compared_and_never_shown() -> None:
    known = ActualDevice.from_twin(TWIN, IDENTITY)
    same = Authentication(primary_key=KEYS["primaryKey"], secondary_key=KEYS["secondaryKey"])
    assert not iothub_device.plan(known, DesiredDevice("gw", authentication=same)).changed
    other = Authentication(primary_key=KEYS["secondaryKey"], secondary_key=KEYS["primaryKey"])
    desired = DesiredDevice("gw", authentication=other)
    plan = iothub_device.plan(known, desired)
    assert plan.action == "update"
    assert plan.before != plan.after
    assert entry(known, desired)["authentication"]["symmetricKey"]["primaryKey"] == KEYS["secondaryKey"]
    for key in KEYS.values():
        assert key not in repr(plan)
        assert key not in repr(known)
        assert key not in repr(desired)


def test_absent() -> None:
    assert iothub_device.plan(EDGE, DesiredDevice("gw", present=False)).action == "delete"
    assert iothub_device.plan(None, DesiredDevice("gw", present=False)).action == "none"


@pytest.mark.parametrize(
    ("exact", "patch"),
    [
        (False, {"tags": {"site": "b"}, "properties": {"desired": {"period": 6}}}),
        (True, {"tags": {"site": "b", "old": None}, "properties": {"desired": {"period": 6}}}),
    ],
)
def test_twin_alone_changes_a_device(exact: bool, patch: dict[str, Any]) -> None:
    desired = DesiredDevice("gw", tags={"site": "b"}, desired={"period": 6}, exact_twin=exact)
    plan = iothub_device.plan(EDGE, desired)
    assert (plan.action, plan.changed, plan.twin_patch) == ("none", True, patch)
    # Not asked for, not shown.
    assert "desired" not in iothub_device.plan(EDGE, DesiredDevice("gw", tags={})).before


def errors(*devices: DesiredDevice, actual: tuple[ActualDevice, ...] = ()) -> list[str]:
    there = {device.device_id: device for device in actual}
    return iothub_device.list_errors(devices) or iothub_device.nesting_errors(devices, there)


@pytest.mark.parametrize(
    ("devices", "fact"),
    [
        ([DesiredDevice("a b")], "devices[0]: the device id 'a b' holds ' '"),
        ([DesiredDevice("x" * 129)], "has 129 characters"),
        ([DesiredDevice("")], "must be a text"),
        ([DesiredDevice("a"), DesiredDevice("a")], "devices[1]: the device id 'a' is already in devices[0]"),
        ([DesiredDevice("a", status_reason="x" * 129)], "longer than 128"),
        ([DesiredDevice("a", tags={"b.c": 1})], "devices[0]: tags: the key 'b.c'"),
        ([DesiredDevice("a", desired={"$b": 1})], "devices[0]: desired: the key '$b'"),
        ([DesiredDevice("a", tags={"b": "x" * 9000})], "devices[0]: tags"),
        ([DesiredDevice("a", exact_twin=True, tags={"b": None})], "tags.b: null"),
        ([DesiredDevice("a", parent="p p")], "devices[0]: parent: the device id 'p p'"),
        ([DesiredDevice("a", parent="none")], "devices[0]: the parent 'none' of 'a' is neither in the list"),
        ([DesiredDevice("a", parent="b"), DesiredDevice("b")], "the parent 'b' of 'a' is no edge device"),
        (
            [DesiredDevice("a", parent="b"), DesiredDevice("b", present=False)],
            "the parent 'b' is to be absent",
        ),
        ([DesiredDevice("a", edge=True, parent="a")], "devices[0]: a cycle of parents: a below a"),
        (
            [DesiredDevice("a", edge=True, parent="b"), DesiredDevice("b", edge=True, parent="a")],
            "devices[0]: a cycle of parents: a below b below a",
        ),
        (
            [DesiredDevice("a", authentication=Authentication("self_signed", primary_thumbprint="12"))],
            "devices[0]: authentication.primary_thumbprint",
        ),
        (
            [DesiredDevice("a", authentication=Authentication(primary_key="!", secondary_key="!"))],
            "devices[0]: authentication.primary_key: the shared access key is not base64",
        ),
    ],
)
def test_bad_list(devices: list[DesiredDevice], fact: str) -> None:
    assert any(fact in error for error in errors(*devices)), errors(*devices)


def test_depth_counts_what_is_at_the_hub_already() -> None:
    def at_hub(name: str, parent: str) -> ActualDevice:
        return ActualDevice.from_twin(
            {
                **TWIN,
                "deviceId": name,
                "deviceScope": f"ms-azure-iot-edge://{name}-1",
                "parentScopes": [f"ms-azure-iot-edge://{parent}-1"] if parent else [],
            }
        )

    chain = tuple(at_hub(f"e{level}", f"e{level - 1}" if level > 1 else "") for level in range(1, 6))
    below_four = [DesiredDevice("new", edge=True, parent="e4"), DesiredDevice("leaf", parent="new")]
    assert errors(*below_four, actual=chain) == []
    [error] = errors(DesiredDevice("new", edge=True, parent="e5"), actual=chain)
    assert "devices[0]: 'new' would be part of 6 edge devices" in error
    assert "at most 5" in error
    # What the list moves away does not count any more.
    moved = DesiredDevice("e2", parent="")
    assert errors(moved, DesiredDevice("new", edge=True, parent="e5"), actual=chain) == []
    # A cycle that closes at the hub.
    [error] = errors(DesiredDevice("e1", parent="e3"), actual=chain)
    assert "cycle of parents: e1 below e3 below e2 below e1" in error


def test_levels_put_parents_first() -> None:
    devices = [
        DesiredDevice("leaf", parent="low"),
        DesiredDevice("low", edge=True, parent="top"),
        DesiredDevice("top", edge=True),
        DesiredDevice("other", parent="at-the-hub"),
    ]
    plans = {device.device_id: iothub_device.Plan("create") for device in devices}
    steps = [[device.device_id for device in step] for step in iothub_device.levels(plans, devices)]
    assert steps == [["top", "other"], ["low"], ["leaf"]]


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])


@given(
    st.lists(
        st.builds(
            DesiredDevice,
            device_id=NAMES,
            edge=st.just(True),
            parent=st.one_of(st.none(), st.just(""), NAMES),
        ),
        unique_by=lambda device: device.device_id,
    )
)
def test_list_without_errors_can_always_be_put_in_order(devices: list[DesiredDevice]) -> None:
    if errors(*devices):
        return
    plans = {device.device_id: iothub_device.Plan("create") for device in devices}
    steps = iothub_device.levels(plans, devices)
    done: set[str] = set()
    for step in steps:
        assert all(not device.parent or device.parent in done for device in step)
        done |= {device.device_id for device in step}
    assert len(done) == len(devices)


@pytest.mark.parametrize(
    ("scope", "device_id"),
    [("ms-azure-iot-edge://plant-07-gw-638", "plant-07-gw"), ("", ""), ("something", "")],
)
def test_scope_names_its_device(scope: str, device_id: str) -> None:
    assert iothub_device.scope_device(scope) == device_id
