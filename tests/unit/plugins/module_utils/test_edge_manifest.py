# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    create_options,
    edge_manifest,
    manifest_json,
)
from hypothesis import given
from hypothesis import strategies as st

MODULE: dict[str, Any] = {
    "type": "docker",
    "status": "running",
    "restartPolicy": "always",
    "settings": {"image": "registry.example:5000/a/sensor:1.0"},
}
AGENT_PATH = '$.modulesContent.$edgeAgent["properties.desired"]'
HUB_PATH = '$.modulesContent.$edgeHub["properties.desired"]'


def manifest(
    modules: dict[str, Any] | None = None, routes: dict[str, Any] | None = None, **twins: Any
) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "modulesContent": {
                "$edgeAgent": {
                    "properties.desired": {
                        "schemaVersion": "1.1",
                        "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25"}},
                        "systemModules": {
                            "edgeAgent": {
                                "type": "docker",
                                "settings": {"image": "mcr.example/agent:1.6", "createOptions": "{}"},
                            },
                            "edgeHub": {
                                **MODULE,
                                "startupOrder": 0,
                                "settings": {"image": "mcr.example/hub:1.6"},
                            },
                        },
                        "modules": modules or {},
                    }
                },
                "$edgeHub": {
                    "properties.desired": {
                        "schemaVersion": "1.1",
                        "routes": routes or {},
                        "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
                    }
                },
                **twins,
            }
        }
    )


def layer(agent: dict[str, Any] | None = None, hub: dict[str, Any] | None = None, **twins: Any) -> Any:
    return {"modulesContent": {"$edgeAgent": agent or {}, **({"$edgeHub": hub} if hub else {}), **twins}}


def agent(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    return found


def hub(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["modulesContent"]["$edgeHub"]["properties.desired"]
    return found


def module(**changes: Any) -> dict[str, Any]:
    return {**MODULE, **changes}


def settings(**changes: Any) -> dict[str, Any]:
    return module(settings={"image": "a", **changes})


def errors_of(document: Any) -> list[str]:
    with pytest.raises(manifest_json.ManifestError) as caught:
        edge_manifest.parse(document)
    assert all(line.startswith("$") for line in caught.value.errors)
    return caught.value.errors


# -- what is accepted


def test_a_stock_manifest_in_all_the_shapes_people_have() -> None:
    document = manifest(
        {"sensor": MODULE}, {"up": "FROM /messages/* INTO $upstream"}, sensor={"properties.desired": {"a": 1}}
    )
    contents = [
        edge_manifest.parse(shape)
        for shape in (document, {"content": document}, document["modulesContent"], json.dumps(document))
    ]
    assert {content.digest for content in contents} == {contents[0].digest}
    assert contents[0].names == ["sensor"]
    assert not contents[0].layered
    assert contents[0].warnings == []


def test_everything_that_is_documented_is_accepted() -> None:
    document = manifest(
        {
            "a": module(
                version="1.0",
                startupOrder=2**32 - 1,
                imagePullPolicy="never",
                status="stopped",
                restartPolicy="on-unhealthy",
                env={"A": {"value": "x"}, "N": {"value": 1.5}, "T": {"value": True}},
            ),
            "b_2": settings(createOptions={"HostConfig": {"Binds": ["/a:/b"]}}),
        },
        {
            "text": "FROM /messages/modules/a/outputs/* INTO $upstream",
            "keywords": "from /* where temperature > 20 and x = ' INTO ' into $UPSTREAM",
            "object": {
                "route": "FROM /messages/modules/a/outputs/o WHERE (is_defined(x)) "
                'INTO BrokeredEndpoint("/modules/b_2/inputs/i")',
                "priority": 9,
                "timeToLiveSecs": 0,
            },
            "single": "FROM /twinChangeNotifications INTO BrokeredEndpoint('/modules/a/inputs/i')",
        },
    )
    agent(document)["runtime"]["settings"] |= {
        "loggingOptions": '{"type": "json-file"}',
        "registryCredentials": {"r": {"address": "r.example:5000", "username": "u", "password": "p"}},
    }
    hub(document)["storeAndForwardConfiguration"]["storeLimits"] = {"maxSizeBytes": 10**9}
    assert edge_manifest.parse(document).warnings == []


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3"])
def test_versions_of_the_hub_schema(version: str) -> None:
    document = manifest()
    hub(document)["schemaVersion"] = version
    edge_manifest.parse(document)
    hub(document)["routes"] = {"r": {"route": "FROM /* INTO $upstream"}}
    if version == "1.0":
        assert errors_of(document) == [
            f"{HUB_PATH}.routes.r: must be a text in schemaVersion 1.0; priorities came with 1.1"
        ]
    else:
        edge_manifest.parse(document)
    hub(document)["routes"] = {}
    hub(document)["mqttBroker"] = {}
    if version in ("1.2", "1.3"):
        [warning] = edge_manifest.parse(document).warnings
        assert "mqttBroker" in warning
    else:
        assert errors_of(document) == [f"{HUB_PATH}.mqttBroker: is not known in schemaVersion {version}"]


# -- what is refused


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"type": "process"}, "type"),
        ({"status": "paused"}, "status"),
        ({"status": None}, "status"),
        ({"restartPolicy": "Always"}, "restartPolicy"),
        ({"imagePullPolicy": "always"}, "imagePullPolicy"),
        ({"startupOrder": -1}, "startupOrder"),
        ({"startupOrder": 2**32}, "startupOrder"),
        ({"startupOrder": True}, "startupOrder"),
        ({"startupOrder": "1"}, "startupOrder"),
        ({"version": 1}, "version"),
        ({"env": {"A": "plain"}}, "env.A"),
        ({"env": {"A B": {"value": 1}}}, 'env["A B"]'),
        ({"env": {"A": {"value": None}}}, "env.A.value"),
        ({"env": []}, "env"),
        ({"settings": {}}, "settings.image"),
        ({"settings": {"image": "Not An Image"}}, "settings.image"),
        ({"settings": {"image": "a", "extra": 1}}, "settings.extra"),
        ({"settings": {"image": "a", "createOptions": "{"}}, "settings.createOptions"),
        ({"settings": {"image": "a", "createOptions": "[]"}}, "settings.createOptions"),
        ({"settings": {"image": "a", "createOptions": '{"a":1,"a":2}'}}, "settings.createOptions"),
        ({"settings": {"image": "a", "createOptions": '{"a":NaN}'}}, "settings.createOptions"),
        ({"settings": {"image": "a", "createOptions": '{"a":1e999}'}}, "settings.createOptions"),
        (
            {"settings": {"image": "a", "createOptions": "{", "createOptions02": "}"}},
            "settings.createOptions02",
        ),
        (
            {"settings": {"image": "a", "createOptions": {}, "createOptions01": "{}"}},
            "settings.createOptions01",
        ),
        ({"settings": {"image": "a", "createOptions": {"x": "y" * 4100}}}, "settings.createOptions"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_module_entry_is_named_by_its_path(change: dict[str, Any], path: str) -> None:
    errors = errors_of(manifest({"m": module(**change)}))
    assert {error.partition(": ")[0] for error in errors} == {f"{AGENT_PATH}.modules.m.{path}"}


@pytest.mark.parametrize("name", ["a.b", "$x", "-a", "a b", "", "edgeHub", "x" * 129])
def test_wrong_names_of_modules(name: str) -> None:
    assert any("modules" in error for error in errors_of(manifest({name: MODULE})))


def test_a_base_deployment_is_whole() -> None:
    for key in ("schemaVersion", "runtime", "systemModules"):
        document = manifest()
        del agent(document)[key]
        [error] = errors_of(document)
        assert error.startswith(f"{AGENT_PATH}.{key}: missing")
    for key in ("schemaVersion", "routes", "storeAndForwardConfiguration"):
        document = manifest()
        del hub(document)[key]
        [error] = errors_of(document)
        assert error.startswith(f"{HUB_PATH}.{key}: missing")
    for name in ("edgeAgent", "edgeHub"):
        document = manifest()
        del agent(document)["systemModules"][name]
        [error] = errors_of(document)
        assert error.startswith(f"{AGENT_PATH}.systemModules.{name}: missing")


@pytest.mark.parametrize(
    ("document", "fact"),
    [
        ("{", "$: not JSON"),
        ('{"modulesContent": {}, "modulesContent": {}}', "stands twice"),
        ([], "$: must be an object"),
        ({}, "$.modulesContent: missing"),
        ({"modulesContent": {}}, "$.modulesContent.$edgeAgent: missing"),
        ({"moduleContent": {}}, "$.moduleContent: was the name in 2018"),
        ({"$schema-template": "4.0.0", "modulesContent": {}}, "template"),
        ({"content": {"deviceContent": {}}}, "$.content.deviceContent: belongs"),
        ({**manifest(), "priority": 1}, "$.priority: unknown key"),
        ({"content": manifest(), "id": "x"}, "$.id: unknown key"),
    ],
)
def test_document_that_is_no_manifest(document: Any, fact: str) -> None:
    assert any(fact in error for error in errors_of(document)), errors_of(document)


@pytest.mark.parametrize(
    ("route", "fact"),
    [
        ("", "is no route"),
        ("FROM /messages/*", "is no route"),
        ("FROM /messages/* TO $upstream", "is no route"),
        ("FROM messages/* INTO $upstream", "must begin with /"),
        ("FROM /* INTO upstream", "the sink"),
        ('FROM /* INTO BrokeredEndpoint("/modules/a")', "the sink"),
        ('FROM /* INTO BrokeredEndpoint("/modules/a/inputs/i"', "the sink"),
        ("FROM /* INTO BrokeredEndpoint(\"/modules/a/inputs/i')", "the sink"),
        ("FROM /* WHERE (a > 1 INTO $upstream", "parentheses"),
        ("FROM /* WHERE a) > (1 INTO $upstream", "parentheses"),
        ("FROM /* WHERE a = 'x INTO $upstream", "quote"),
        ("FROM /messages/modules/other/* INTO $upstream", "other, which is not in modules"),
        ('FROM /* INTO BrokeredEndpoint("/modules/other/inputs/i")', "other, which is not in modules"),
        (5, "must be a text"),
        ({}, "missing"),
        ({"route": "FROM /* INTO $upstream", "priority": 10}, "from 0 to 9"),
        ({"route": "FROM /* INTO $upstream", "timeToLiveSecs": -1}, "from 0 to"),
        ({"route": "FROM /* INTO $upstream", "ttl": 1}, "unknown key"),
    ],
)
def test_wrong_routes(route: Any, fact: str) -> None:
    [error] = errors_of(manifest({"a": MODULE}, {"r": route}))
    assert error.startswith(f"{HUB_PATH}.routes.r")
    assert fact in error


def test_a_source_that_nobody_documented_is_a_warning() -> None:
    [warning] = edge_manifest.parse(manifest(routes={"r": "FROM /message/* INTO $upstream"})).warnings
    assert warning.startswith(f"{HUB_PATH}.routes.r: /message/*")


def test_properties_of_a_module_that_is_not_run_are_a_warning() -> None:
    content = edge_manifest.parse(manifest({"sensor": MODULE}, tempsensor={"properties.desired": {}}))
    assert content.warnings == [
        "$.modulesContent.tempsensor: sets properties of tempsensor, which is not in modules"
    ]


@pytest.mark.parametrize(
    ("desired", "fact"),
    [
        ({"a.b": 1}, "the key 'a.b'"),
        ({"a": {"$b": 1}}, "the key '$b'"),
        ({"a": None}, "null"),
        ({"a": "x" * 4097}, "4096 bytes"),
        ({"a": "ä" * 2049}, "4096 bytes"),
        ({"k" * 1025: 1}, "longer than 1024 bytes"),
        ({"a": 2**52 + 1}, "2^52"),
        ({str(number): "x" * 4096 for number in range(8)}, "at most 32768"),
        (json.loads('{"a":' * 12 + "1" + "}" * 12), "deeper than 10"),
    ],
)
def test_limits_of_twins(desired: dict[str, Any], fact: str) -> None:
    errors = errors_of(manifest({"m": MODULE}, m={"properties.desired": desired}))
    assert any(fact in error and error.startswith("$.modulesContent.m") for error in errors), errors


def test_a_twin_may_be_as_large_and_as_deep_as_the_hub_takes() -> None:
    deep = json.loads('{"a":' * 10 + "1" + "}" * 10)
    full = {str(number): "x" * 4080 for number in range(8)}
    for desired in (deep, full):
        edge_manifest.parse(manifest({"m": MODULE}, m={"properties.desired": desired}))


def test_too_many_modules() -> None:
    names = [f"m{number}" for number in range(51)]
    assert any("at most 50" in error for error in errors_of(manifest(dict.fromkeys(names, MODULE))))
    assert edge_manifest.parse(manifest(dict.fromkeys(names[:50], MODULE))).names == sorted(names[:50])


def test_all_errors_come_at_once_and_show_no_password() -> None:
    document = manifest(
        {"a": module(status="paused"), "b b": MODULE, "c": settings(image="")}, {"r": "FROM x"}
    )
    credentials = {"r": {"address": "https://r", "password": "hunter2 "}}
    agent(document)["runtime"]["settings"]["registryCredentials"] = credentials
    errors = errors_of(document)
    assert len(errors) == 6
    assert "hunter2" not in repr(errors)


# -- layers


def test_a_layer() -> None:
    content = edge_manifest.parse(
        layer(
            {
                "properties.desired.modules.extra": settings(createOptions={"a": 1}),
                "properties.desired.modules.other.env.A": {"value": 1},
                "properties.desired.runtime.settings.registryCredentials.r": {
                    "address": "r",
                    "username": "u",
                    "password": "p",
                },
            },
            {"properties.desired.routes.r": "FROM /messages/modules/base/* INTO $upstream"},
            base={"properties.desired.limits.high": 5},
        )
    )
    assert content.layered
    assert content.names == ["extra"]
    written = content.modules["$edgeAgent"]["properties.desired.modules.extra"]["settings"]
    assert written["createOptions"] == '{"a":1}'
    [warning] = content.warnings
    assert "names the module base" in warning
    assert edge_manifest.secrets(content.modules) == {"p"}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (layer({"properties.desired.modules.x": {}}), '["properties.desired.modules.x"].type'),
        (layer({"properties.desired.modul.x": MODULE}), '["properties.desired.modul.x"]'),
        (layer({"properties.desired.modules.a b": MODULE}), '["properties.desired.modules.a b"]'),
        (layer({"properties.desired.modules.a.colour": 1}), '["properties.desired.modules.a.colour"]'),
        (layer({"properties.desired.modules.a.env.A": 1}), '["properties.desired.modules.a.env.A"]'),
        (layer(hub={"properties.desired.routes.r": "FROM"}), '["properties.desired.routes.r"]'),
        (layer(hub={"properties.desired.schemaVersion": "1.1"}), '["properties.desired.schemaVersion"]'),
        (
            {
                "modulesContent": {
                    "$edgeAgent": {"properties.desired": {}, "properties.desired.modules.x": MODULE}
                }
            },
            "use either",
        ),
    ],
)
def test_wrong_layers(document: Any, path: str) -> None:
    assert any(path in error for error in errors_of(document)), errors_of(document)


# -- createOptions

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
# Long enough for several parts, which text alone hardly ever is.
LONG = st.builds(
    lambda text, times: text * times,
    st.text(alphabet='aä€😀"\\\ud800\n', min_size=1, max_size=5),
    st.integers(60, 150),
)
OPTIONS = st.dictionaries(st.text(max_size=5) | LONG, JSON | LONG, max_size=4)


@given(OPTIONS)
def test_parts_join_to_what_was_split_and_none_is_too_long(options: dict[str, Any]) -> None:
    parts = create_options.split_create_options(options)
    assert list(parts)[:3] == ["createOptions", "createOptions01", "createOptions02"][: len(parts)]
    # As the runtime counts: UTF-16.
    lengths = [len(part.encode("utf-16-le", "surrogatepass")) // 2 for part in parts.values()]
    assert max(lengths) <= 512
    # No part but the last leaves room for what follows.
    assert all(length >= 511 for length in lengths[:-1])
    # They can be sent.
    sent = json.loads(json.dumps(parts).encode())
    assert create_options.join_create_options(sent, "$") == options


@given(OPTIONS)
def test_however_options_are_written_they_mean_the_same(options: dict[str, Any]) -> None:
    def desired(**given_settings: Any) -> dict[str, Any]:
        return {"modules": {"m": {"settings": {"image": "a", **given_settings}}}}

    written = desired(**create_options.split_create_options(options))
    spread = desired(createOptions=json.dumps(options, indent=3))
    assert edge_manifest.same("$edgeAgent", written, spread)
    assert edge_manifest.same("$edgeAgent", written, desired(createOptions=options))
    assert edge_manifest.same("$edgeAgent", written, desired(createOptions={**options, "new": 1})) is (
        options.get("new") == 1 and options.get("new") is not True and "new" in options
    )


def test_no_options_and_empty_options_are_the_same() -> None:
    digests = {
        edge_manifest.parse(manifest({"m": entry})).digest
        for entry in (
            MODULE,
            *(module(settings={**MODULE["settings"], "createOptions": o}) for o in ("", "{}", {})),
        )
    }
    assert len(digests) == 1


def test_options_are_written_compact_and_in_parts() -> None:
    options = {"Env": ["A=" + "x" * 600]}
    content = edge_manifest.parse(manifest({"m": settings(createOptions=json.dumps(options, indent=2))}))
    written = content.modules["$edgeAgent"]["properties.desired"]["modules"]["m"]["settings"]
    assert written["createOptions"] + written["createOptions01"] == json.dumps(options, separators=(",", ":"))
    assert len(written["createOptions"]) == 512
    # Written once more it stays as it is.
    assert edge_manifest.parse({"modulesContent": content.modules}).modules == content.modules


def test_properties_of_other_modules_are_never_rewritten() -> None:
    mine = {"settings": {"image": "a", "createOptions": {"x": 1}}}
    content = edge_manifest.parse(manifest({"m": MODULE}, m={"properties.desired": mine}))
    assert content.modules["m"]["properties.desired"] == mine


# -- comparing and showing


def test_the_hubs_own_entries_and_the_order_do_not_matter() -> None:
    left = {"b": 2.0, "a": 1, "$metadata": {"x": 1}, "$version": 3}
    assert edge_manifest.same("m", left, {"a": 1, "b": 2})
    assert not edge_manifest.same("m", {"a": 1}, {"a": True})
    assert not edge_manifest.same("m", {"a": 1}, {"a": 1, "b": None})


def test_passwords_show_only_that_they_differ() -> None:
    def credentials(password: str) -> dict[str, Any]:
        return {
            "runtime": {"settings": {"registryCredentials": {"r": {"address": "r", "password": password}}}}
        }

    before, after = edge_manifest.hide_secrets(credentials("one"), credentials("two"))
    assert before != after
    assert "one" not in repr(before) + repr(after)
    assert "two" not in repr(before) + repr(after)
    before, after = edge_manifest.hide_secrets(credentials("one"), credentials("one"))
    assert before == after


def test_passwords_are_known_also_of_content_with_errors_and_of_text() -> None:
    content = {"modulesContent": {"$edgeAgent": {"registryCredentials": {"r": {"password": "one"}}}}}
    with pytest.raises(manifest_json.ManifestError):
        edge_manifest.parse(content)
    assert edge_manifest.secrets(content) == {"one"}
    assert edge_manifest.secrets(json.dumps(content)) == {"one"}
    assert edge_manifest.secrets('{"password": ') == set()


KEYS = st.sampled_from(
    [
        *("modulesContent", "$edgeAgent", "$edgeHub", "properties.desired", "modules", "settings", "image"),
        *("createOptions", "createOptions01", "routes", "r", "systemModules", "edgeHub", "env", "runtime"),
        *("properties.desired.modules.x", "properties.desired.routes.r", "registryCredentials", "password"),
    ]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("FROM /* INTO $upstream"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


@given(ANY)
def test_any_json_is_read_or_refused_with_paths(document: Any) -> None:
    errors: list[str] = []
    layered = False
    try:
        layered = edge_manifest.parse(
            document if isinstance(document, dict) else json.dumps(document)
        ).layered
    except manifest_json.ManifestError as error:
        errors = error.errors
    # A refusal has a reason, and only a layer can be as small as what is made here.
    assert layered is not bool(errors)
    assert all(line.startswith("$") for line in errors)
