# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import deployment, manifest_json
from hypothesis import given
from hypothesis import strategies as st

MODULE: dict[str, Any] = {
    "type": "docker",
    "status": "running",
    "restartPolicy": "always",
    "settings": {"image": "registry.example:5000/a/sensor:1.0"},
}


def manifest(**modules: Any) -> dict[str, Any]:
    return {
        "modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": copy.deepcopy(modules)}}
        }
    }


def changed(**settings: Any) -> dict[str, Any]:
    return {**MODULE, **settings}


def errors_of(document: Any) -> list[str]:
    with pytest.raises(manifest_json.ManifestError) as caught:
        deployment.parse(document if isinstance(document, str) else json.dumps(document))
    return caught.value.errors


def test_module_in_the_shape_of_the_chart() -> None:
    module = changed(
        settings={**MODULE["settings"], "createOptions": json.dumps({"Env": ["A=1", "B=x=y", "C="]})},
        env={"A": {"value": "2"}, "N": {"value": 5}, "T": {"value": True}},
        imagePullPolicy="on-create",
    )
    result = deployment.parse(json.dumps(manifest(zeta=MODULE, alpha=module)))
    assert [entry["name"] for entry in result.modules] == ["alpha", "zeta"]
    assert result.modules[0] == {
        "name": "alpha",
        "image": "registry.example:5000/a/sensor:1.0",
        # The module's env wins over createOptions; JSON's spelling for what is not a text.
        "env": {"A": "2", "B": "x=y", "C": "", "N": "5", "T": "true"},
        "imagePullPolicy": "Always",
    }
    assert result.modules[1]["imagePullPolicy"] == "IfNotPresent"
    assert result.notes == []


def test_create_options_go_on_in_further_parts() -> None:
    text = json.dumps({"Env": ["LONG=" + "x" * 50]})
    settings = {"image": "sensor", "createOptions": text[:20], "createOptions01": text[20:]}
    assert deployment.check(manifest(m=changed(settings=settings))).modules[0]["env"] == {"LONG": "x" * 50}


@pytest.mark.parametrize("option", ["HostConfig", "Cmd", "ExposedPorts", "env", "Labels"])
def test_every_other_create_option_is_refused_by_name(option: str) -> None:
    module = changed(settings={"image": "a", "createOptions": {option: {}}})
    [error] = errors_of(manifest(m=module))
    assert error.startswith(
        f'$.modulesContent.$edgeAgent["properties.desired"].modules.m.settings.createOptions.{option}:'
    )
    assert "not supported" in error


@pytest.mark.parametrize(
    ("module", "path"),
    [
        (changed(status="stopped"), "m.status"),
        (changed(restartPolicy="never"), "m.restartPolicy"),
        (changed(type="process"), "m.type"),
        (changed(startupOrder=1), "m.startupOrder"),
        (changed(imagePullPolicy="sometimes"), "m.imagePullPolicy"),
        (changed(settings={}), "m.settings.image"),
        (changed(settings={"image": "Not An Image"}), "m.settings.image"),
        (changed(settings={"image": "a", "createOptions": "{"}), "m.settings.createOptions"),
        (
            changed(settings={"image": "a", "createOptions": {"Env": ["NOVALUE"]}}),
            "m.settings.createOptions.Env[0]",
        ),
        (changed(settings={"image": "a", "extra": 1}), "m.settings.extra"),
        (changed(env={"A": "plain"}), "m.env.A"),
        (changed(env={"A": {"value": None}}), "m.env.A.value"),
        (changed(colour="red"), "m.colour"),
        ("text", "m:"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_path(module: Any, path: str) -> None:
    errors = errors_of(manifest(m=module))
    assert any(f"modules.{path}" in error for error in errors), errors


@pytest.mark.parametrize(
    ("document", "fact"),
    [
        ("{", "$: not JSON"),
        ("[]", "$: must be an object"),
        ({}, "$.modulesContent: missing"),
        ({"modulesContent": {"$edgeHub": {}}}, "$.modulesContent.$edgeAgent: missing"),
        ({"modulesContent": {}}, "$.modulesContent.$edgeAgent: missing"),
        (
            {"modulesContent": {"$edgeAgent": {}}},
            '$.modulesContent.$edgeAgent["properties.desired"]: missing',
        ),
        ({"modulesContent": {"$edgeAgent": {"properties.desired.modules.x": MODULE}}}, "layered"),
        ('{"modulesContent": {}, "modulesContent": {}}', "stands twice"),
        ({**manifest(m=MODULE), "priority": 1}, "$.priority: unknown"),
    ],
)
def test_document_that_is_no_manifest(document: Any, fact: str) -> None:
    assert any(fact in error for error in errors_of(document)), errors_of(document)


def test_all_errors_come_at_once() -> None:
    errors = errors_of(manifest(a=changed(status="stopped"), B_x=MODULE, c=changed(settings={"image": ""})))
    assert len(errors) == 3


def test_what_has_no_effect_is_noted() -> None:
    document = manifest(m=MODULE)
    document["modulesContent"]["$edgeHub"] = {"properties.desired": {"routes": {}}}
    (note,) = deployment.check(document).notes
    assert "$edgeHub: has no effect without systemModules" in note


def whole(**modules: Any) -> dict[str, Any]:
    """A manifest that edgeAgent carries out."""
    document = manifest(**modules)
    desired = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    desired["runtime"] = {"type": "docker", "settings": {}}
    system: dict[str, Any] = {"type": "docker", "settings": {"image": " r/agent:1.6 "}}
    desired["systemModules"] = {
        "edgeAgent": {**system, "env": {"UpstreamProtocol": {"value": "MqttWs"}}},
        "edgeHub": {**system, "status": "running", "restartPolicy": "always"},
    }
    document["modulesContent"]["$edgeHub"] = {
        "properties.desired": {
            "schemaVersion": "1.1",
            "routes": {"up": "FROM /messages/* INTO $upstream"},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
        }
    }
    return document


def test_a_manifest_with_system_modules_is_carried_out_by_edge_agent() -> None:
    options = {"HostConfig": {"Memory": 1 << 20}}
    module = changed(settings={**MODULE["settings"], "createOptions": options}, status="running")
    result = deployment.check(whole(zeta=module, alpha=MODULE, off=changed(status="stopped")))
    assert result.modules == []
    assert result.names == ["alpha", "zeta"], "what is stopped is not waited for"
    assert result.edge_agent == {
        "image": "r/agent:1.6",
        "imagePullPolicy": "IfNotPresent",
        "env": {"UpstreamProtocol": "MqttWs"},
        "createOptions": {},
    }
    assert result.content is not None
    sent = result.content["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["zeta"]["settings"]
    assert json.loads(sent["createOptions"]) == options


def test_what_is_wrong_with_a_whole_manifest_is_told_by_its_path() -> None:
    document = whole(m=changed(status="paused"))
    del document["modulesContent"]["$edgeAgent"]["properties.desired"]["systemModules"]["edgeHub"]
    errors = errors_of(document)
    assert any("systemModules.edgeHub: missing" in error for error in errors)
    assert any(".modules.m.status" in error for error in errors)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "modulesContent",
                    "$edgeAgent",
                    "properties.desired",
                    "modules",
                    "settings",
                    "image",
                    "createOptions",
                    "Env",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_either_read_or_refused_with_paths(document: Any) -> None:
    errors: list[str] = []
    found: list[dict[str, Any]] = []
    try:
        found = deployment.parse(json.dumps(document)).modules or []
    except manifest_json.ManifestError as error:
        errors = error.errors
        found = [{"image": "refused"}] if errors else []
    assert all(line.startswith("$") for line in errors)
    # Nothing comes through without an image, and a refusal has at least one reason.
    assert all(module["image"] for module in found)
    assert errors or "modulesContent" in document
