# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of a module: what edge contract, sidecar and restricted pod standard ask of them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from edgeha_runtime.daemon import manifests, moduleset
from edgeha_runtime.daemon.manifests import Addresses, OwnerReference
from edgeha_runtime.daemon.settings import Settings, from_environment

from tests.unit.runtime.parts import ENVIRONMENT as GATEWAY

ENVIRONMENT = GATEWAY | {
    "EDGEHA_IMAGE_PULL_SECRETS": "one,two",
    "EDGEHA_TOLERATION_SECONDS": "7",
}
OWNER = OwnerReference("gw-daemon", "uid-1")
NOWHERE = Addresses()


@pytest.fixture
def settings() -> Settings:
    return from_environment(ENVIRONMENT)


def read(settings: Settings, entry: dict[str, Any]) -> moduleset.Module:
    module = moduleset.from_entry(entry, 0, settings.release).module
    assert module is not None
    return module


def rendered(settings: Settings, **changes: Any) -> dict[str, Any]:
    entry = {"name": "Sensor?", "image": "r/s:1", "env": {"A": "$(B)", "Z": ""}} | changes
    return manifests.pod(read(settings, entry), "637", settings, OWNER, "PEM", NOWHERE, "a")


def pod(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = rendered(settings)["spec"]
    return found


def test_the_module_gets_the_environment_of_the_edge_contract(settings: Settings) -> None:
    env = {entry["name"]: entry.get("value") for entry in pod(settings)["containers"][0]["env"]}
    assert env == {
        "IOTEDGE_APIVERSION": "2020-07-07",
        "IOTEDGE_AUTHSCHEME": "sasToken",
        "IOTEDGE_DEVICEID": "gw-1",
        "IOTEDGE_GATEWAYHOSTNAME": "hub.example.net",
        "IOTEDGE_IOTHUBHOSTNAME": "hub.example.net",
        "IOTEDGE_MODULEGENERATIONID": "637",
        "IOTEDGE_MODULEID": "Sensor?",
        "IOTEDGE_WORKLOADURI": "http://127.0.0.1:35001",
        "NODE_NAME": None,
        # Kubernetes would put the value of B in here, a manifest means the text.
        "A": "$$(B)",
        "Z": "",
    }


def test_only_the_sidecar_sees_the_token_and_it_is_for_this_gateway_alone(settings: Settings) -> None:
    spec = pod(settings)
    _gate, sidecar = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["volumeMounts"][0]["name"] == "workload-token"
    assert "volumeMounts" not in spec["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    source = spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]
    assert source == {"audience": "edgeha-gw", "expirationSeconds": 3600, "path": "token"}


def test_all_containers_meet_the_restricted_pod_standard(settings: Settings) -> None:
    spec = pod(settings)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["initContainers"] + spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        # The one that the standard lets a container add: programs of stock images do not start without it.
        added = ["NET_BIND_SERVICE"] if container["name"] == "module" else None
        assert container["securityContext"]["capabilities"].get("add") == added


RAW = {"HostConfig": {"CapAdd": ["NET_RAW"]}}


@pytest.mark.parametrize("own", [{}, {"runAsUser": 1000, "runAsGroup": 5}])
def test_a_module_with_added_rights_runs_as_its_images_user_or_as_the_pod_says(
    settings: Settings, own: dict[str, Any]
) -> None:
    options = {**RAW, "k8s-extensions": {"securityContext": own}}
    spec = rendered(settings, createOptions=options)["spec"]
    users = {"runAsUser", "runAsGroup", "runAsNonRoot"}
    of_pod = {name: value for name, value in spec["securityContext"].items() if name in users}
    assert of_pod == ({"runAsNonRoot": True, **own} if own else {})
    assert spec["securityContext"]["fsGroup"] == 10001, "the token is read through it"
    (module,) = spec["containers"]
    assert not users & module["securityContext"].keys()
    for container in spec["initContainers"]:
        assert container["securityContext"].items() >= {
            ("runAsUser", 10001),
            ("runAsGroup", 10001),
            ("runAsNonRoot", True),
        }


def annotations(manifest: dict[str, Any]) -> dict[str, str]:
    """The pod's annotations besides its digest."""
    found = manifest["metadata"]["annotations"]
    return {name: text for name, text in found.items() if name != manifests.DIGEST_ANNOTATION}


def test_the_pod_gives_up_a_dead_node_soon(settings: Settings) -> None:
    assert {(t["key"], t["tolerationSeconds"]) for t in pod(settings)["tolerations"]} == {
        ("node.kubernetes.io/not-ready", 7),
        ("node.kubernetes.io/unreachable", 7),
    }
    assert pod(settings)["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


def test_labels_find_the_module_and_the_owner_takes_it_along(settings: Settings) -> None:
    metadata = rendered(settings)["metadata"]
    assert metadata["labels"].items() >= {
        ("app.kubernetes.io/name", "edge-runtime"),
        ("app.kubernetes.io/instance", "gw"),
        ("app.kubernetes.io/component", "module"),
        (manifests.MODULE_LABEL, "Sensor"),
    }
    assert annotations(rendered(settings)) == {manifests.MODULE_ANNOTATION: "Sensor?"}
    assert metadata["ownerReferences"] == [OWNER.manifest() | {"controller": True}]
    assert OWNER.manifest() == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "name": "gw-daemon",
        "uid": "uid-1",
    }


def test_the_same_module_gives_the_same_object_whatever_the_order_of_its_env(settings: Settings) -> None:
    assert rendered(settings, env={"A": "1", "B": "2"}) == rendered(settings, env={"B": "2", "A": "1"})


OPTIONS = {
    "Labels": {"plant": "7"},
    "User": "0",
    "ExposedPorts": {"8080/tcp": {}},
    "HostConfig": {
        "Memory": 67108864,
        "Binds": ["Data:/data", "/dev/plc:/plc:ro"],
        "PortBindings": {"443/tcp": [{"HostPort": "8443"}]},
        "GroupAdd": ["44"],
    },
    "k8s-extensions": {
        "tolerations": [{"key": "plant", "operator": "Exists"}],
        "serviceOptions": {"type": "LoadBalancer"},
    },
}


def with_options(settings: Settings) -> moduleset.Module:
    entry = {"name": "Sensor?", "image": "r/s:1", "createOptions": OPTIONS}
    return read(settings, entry)


def test_create_options_are_part_of_the_pod_beside_what_the_gateway_needs(settings: Settings) -> None:
    found = manifests.pod(with_options(settings), "637", settings, OWNER, "PEM", NOWHERE, "a")
    assert annotations(found) == {"plant": "7", manifests.MODULE_ANNOTATION: "Sensor?"}
    spec = found["spec"]
    (container,) = spec["containers"]
    assert container["resources"] == {"limits": {"memory": "67108864"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "runAsUser": 0,
        "runAsNonRoot": False,
    }
    assert {"name": "IOTEDGE_MODULEID", "value": "Sensor?"} in container["env"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/data", "/plc"]
    assert container["ports"] == [
        {"containerPort": 443, "protocol": "TCP"},
        {"containerPort": 8080, "protocol": "TCP"},
    ]
    assert [volume["name"] for volume in spec["volumes"]] == ["workload-token", "volume-0", "volume-1"]
    assert [entry["key"] for entry in spec["tolerations"]][-1] == "plant"
    assert len(spec["tolerations"]) == 3
    assert spec["securityContext"]["supplementalGroups"] == [44]
    assert spec["securityContext"]["runAsUser"] == 10001
    # The sidecar has nothing of it.
    assert len(spec["initContainers"][1]["volumeMounts"]) == 1


def test_ports_are_a_service_and_no_ports_are_none(settings: Settings) -> None:
    service = manifests.service(with_options(settings), settings, OWNER)
    assert service is not None
    assert service["metadata"]["name"] == "gw-sensor"
    assert service["spec"]["type"] == "LoadBalancer"
    assert [(port["name"], port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [
        ("tcp-8443", 8443, 443),
        ("tcp-8080", 8080, 8080),
    ]
    plain = read(settings, {"name": "m", "image": "i"})
    assert manifests.service(plain, settings, OWNER) is None


def test_a_volume_is_a_claim_that_nobody_owns() -> None:
    chosen = from_environment(
        ENVIRONMENT | {"EDGEHA_STORAGE_CLASS": "shared", "EDGEHA_MODULE_VOLUME_SIZE": "5Gi"}
    )
    (claim,) = manifests.claims(with_options(chosen), chosen)
    assert claim["metadata"]["name"].startswith("gw-volume-data-")
    assert claim["metadata"]["annotations"] == {manifests.VOLUME_ANNOTATION: "Data"}
    assert "ownerReferences" not in claim["metadata"]
    assert not manifests.selector("gw").items() <= claim["metadata"]["labels"].items()
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "shared",
        "resources": {"requests": {"storage": "5Gi"}},
    }


def made(
    settings: Settings, name: str, env: dict[str, str] | None = None, **settings_of_it: Any
) -> dict[str, Any]:
    """The pod of a module that edgeAgent made."""
    return manifests.pod(deployed(name, env, **settings_of_it), "637", settings, OWNER, "PEM", NOWHERE, "a")


def deployed(
    name: str,
    env: dict[str, str] | None = None,
    *,
    running: bool = True,
    restarts: int = 0,
    **more: Any,
) -> moduleset.Module:
    config = {
        "settings": {"image": "r/m:1", **more},
        "env": [{"key": key, "value": value} for key, value in (env or {}).items()],
    }
    spec = {"name": name, "type": "docker", "config": config}
    found = moduleset.from_spec(spec, "gw", running=running, restarts=restarts).module
    assert found is not None
    return found


def variables(manifest: dict[str, Any]) -> dict[str, str | None]:
    (container,) = manifest["spec"]["containers"]
    found = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert len(found) == len(container["env"]), "each variable is there once"
    return found


def sidecar_of(manifest: dict[str, Any]) -> dict[str, str]:
    _gate, sidecar = manifest["spec"]["initContainers"]
    return {entry["name"]: entry["value"] for entry in sidecar["env"]}


@pytest.mark.parametrize("by_itself", [False, True])
def test_edge_agent_finds_the_management_api_beside_it(settings: Settings, by_itself: bool) -> None:
    chart = rendered(settings, name="edgeAgent", env={})
    found = made(settings, "edgeAgent", {"Mode": "docker", "EdgeDeviceHostName": "x"}) if by_itself else chart
    assert variables(found) == {
        "EdgeDeviceHostName": "hub.example.net",
        "IOTEDGE_APIVERSION": "2022-08-03",
        "IOTEDGE_AUTHSCHEME": "sasToken",
        "IOTEDGE_DEVICEID": "gw-1",
        "IOTEDGE_IOTHUBHOSTNAME": "hub.example.net",
        "IOTEDGE_MANAGEMENTURI": "http://127.0.0.1:35000",
        "IOTEDGE_MODULEGENERATIONID": "637",
        "IOTEDGE_MODULEID": "$edgeAgent",
        "IOTEDGE_WORKLOADURI": "http://127.0.0.1:35001",
        "Mode": "iotedged",
        "NODE_NAME": None,
    }
    assert sidecar_of(found).items() >= {
        ("EDGEHA_MANAGEMENT_URL", "https://gw-daemon.edge-gw.svc:35000"),
        ("EDGEHA_MANAGEMENT_LISTEN", "127.0.0.1:35000"),
    }


def test_no_other_module_gets_a_way_to_the_management_api(settings: Settings) -> None:
    for found in (rendered(settings), made(settings, "edgeHub")):
        assert "IOTEDGE_MANAGEMENTURI" not in variables(found)
        assert not any("MANAGEMENT" in name for name in sidecar_of(found))


def test_a_module_of_edge_agent_has_its_variables_and_those_that_the_daemon_knows_better(
    settings: Settings,
) -> None:
    env = {
        "IOTEDGE_APIVERSION": "2021-12-07",
        "IOTEDGE_DEVICEID": "other",
        "IOTEDGE_GATEWAYHOSTNAME": "plant.example.net",
        "IOTEDGE_MODULEGENERATIONID": "1",
        "IOTEDGE_WORKLOADURI": "unix:///var/run/iotedge/workload.sock",
        "NODE_NAME": "own",
        "OwnText": "$(B) $$",
    }
    assert variables(made(settings, "edgeHub", env)) == {
        "IOTEDGE_APIVERSION": "2021-12-07",
        "IOTEDGE_AUTHSCHEME": "sasToken",
        "IOTEDGE_DEVICEID": "gw-1",
        "EdgeDeviceHostName": "hub.example.net",
        "IOTEDGE_IOTHUBHOSTNAME": "hub.example.net",
        "IOTEDGE_MODULEGENERATIONID": "637",
        "IOTEDGE_MODULEID": "$edgeHub",
        "IOTEDGE_WORKLOADURI": "http://127.0.0.1:35001",
        "NODE_NAME": "own",
        "OwnText": "$$(B) $$$$",
    }


def test_modules_of_edge_agent_know_the_gateways_by_the_names_of_now(settings: Settings) -> None:
    # As edgeAgent told them when it made them.
    hub = {"EdgeDeviceHostName": "old", "IOTEDGE_GATEWAYHOSTNAME": "parent of before"}
    other = {"IOTEDGE_GATEWAYHOSTNAME": "old", "IOTEDGE_PARENTEDGEHOSTNAME": "parent of before"}
    alone = replace(settings, gateway_hostname="new")
    below = replace(alone, parent_hostname="parent")

    def names(of: Settings, module: str, env: dict[str, str]) -> dict[str, str | None]:
        found = variables(made(of, module, env))
        return {name: found[name] for name in (hub | other) if name in found}

    assert names(alone, "edgeHub", hub) == {"EdgeDeviceHostName": "new"}
    assert names(below, "edgeHub", hub) == {"EdgeDeviceHostName": "new", "IOTEDGE_GATEWAYHOSTNAME": "parent"}
    assert names(alone, "m", other) == {"IOTEDGE_GATEWAYHOSTNAME": "new"}
    assert names(below, "m", other) == {
        "IOTEDGE_GATEWAYHOSTNAME": "new",
        "IOTEDGE_PARENTEDGEHOSTNAME": "parent",
    }


HOST = {"HostConfig": {"NetworkMode": "host"}}
SOCKETS = "/var/run/edgeha"


def test_on_the_nodes_network_the_apis_are_on_sockets_of_the_pod_alone(settings: Settings) -> None:
    # As a stock agent hands on what it has itself, which is not for that pod.
    env = {
        "IOTEDGE_WORKLOADURI": "http://127.0.0.1:35001",
        "IOTEDGE_MANAGEMENTURI": "http://127.0.0.1:35000",
    }
    for name in ("m", "edgeAgent"):
        found = made(settings, name, env, createOptions=HOST)
        spec = found["spec"]
        given, beside = variables(found), sidecar_of(found)
        assert spec["hostNetwork"] is True
        assert given["IOTEDGE_WORKLOADURI"] == beside["EDGEHA_WORKLOAD_LISTEN"]
        assert given["IOTEDGE_WORKLOADURI"] == f"unix://{SOCKETS}/workload.sock"
        if name == "edgeAgent":
            assert given["IOTEDGE_MANAGEMENTURI"] == beside["EDGEHA_MANAGEMENT_LISTEN"]
            assert given["IOTEDGE_MANAGEMENTURI"] == f"unix://{SOCKETS}/management.sock"
        assert not any("127.0.0.1" in value for value in beside.values()), "it is the node's"
        (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "workload-socket")
        assert volume["emptyDir"]["medium"] == "Memory"
        (module,), (gate, sidecar) = spec["containers"], spec["initContainers"]
        mount = {"name": "workload-socket", "mountPath": SOCKETS}
        assert mount in module["volumeMounts"]
        assert sidecar["volumeMounts"][1:] == [mount]
        assert "volumeMounts" not in gate
        # No probe of the sidecar needs a port on the node.
        assert sidecar["startupProbe"]["exec"]["command"] == ["/workload-proxy", "check"]
        assert not {"livenessProbe", "readinessProbe", "ports"} & sidecar.keys()


@pytest.mark.parametrize(
    ("name", "env", "binds", "given"),
    [
        ("edgeAgent", {}, [], True),
        ("edgeAgent", {"STORAGEFOLDER": "/data"}, ["agent:/data"], False),
        ("edgeAgent", {}, ["agent:/tmp"], False),
        ("edgeAgent", {}, ["agent:/tmp/edge"], True),
        ("m", {}, [], False),
    ],
)
def test_what_edge_agent_keeps_outlives_its_container(
    settings: Settings, name: str, env: dict[str, str], binds: list[str], given: bool
) -> None:
    spec = made(settings, name, env, createOptions={"HostConfig": {"Binds": binds}})["spec"]
    mounts = spec["containers"][0].get("volumeMounts", [])
    assert any(mount["mountPath"] == manifests.AGENT_FOLDER for mount in mounts) is given
    assert any(volume == {"name": "agent-storage", "emptyDir": {}} for volume in spec["volumes"]) is given


def test_other_pods_have_no_socket(settings: Settings) -> None:
    spec = pod(settings)
    assert not any(volume["name"] == "workload-socket" for volume in spec["volumes"])
    assert sidecar_of(rendered(settings))["EDGEHA_WORKLOAD_LISTEN"] == "127.0.0.1:35001"


def test_the_sidecars_heap_leaves_room_within_its_limit(settings: Settings) -> None:
    _gate, sidecar = pod(settings)["initContainers"]
    heap = int(sidecar_of(rendered(settings))["GOMEMLIMIT"].removesuffix("MiB"))
    assert 0 < heap < int(sidecar["resources"]["limits"]["memory"].removesuffix("Mi"))


def test_a_module_waits_until_the_daemon_knows_it(settings: Settings) -> None:
    _gate, sidecar = pod(settings)["initContainers"]
    assert sidecar["restartPolicy"] == "Always", "a sidecar's startup probe holds what comes after it"
    probe = sidecar["startupProbe"]
    assert probe["exec"]["command"] == ["/workload-proxy", "check"]
    # Long enough for a daemon that moves to another machine.
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600


def test_a_module_has_a_name_for_the_others_whether_it_has_ports_or_not(settings: Settings) -> None:
    plain = read(settings, {"name": "Sensor", "image": "i"})
    for module in (plain, read(settings, {"name": "Sensor", "image": "i", "createOptions": OPTIONS})):
        service = manifests.name_service(module, settings, OWNER)
        assert service is not None
        assert service["metadata"]["name"] == "sensor"
        assert service["metadata"]["ownerReferences"] == [OWNER.manifest()]
        assert manifests.selector("gw").items() <= service["metadata"]["labels"].items()
        assert service["spec"] == {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {
                **manifests.selector("gw"),
                manifests.MODULE_LABEL: "Sensor",
                manifests.SLOT_LABEL: "a",
            },
        }
        wanted = manifests.pod(module, "637", settings, OWNER, "PEM", NOWHERE, "a")
        assert service["spec"]["selector"].items() <= wanted["metadata"]["labels"].items()
    assert manifests.name_service(with_options(settings), settings, OWNER) is None, "Sensor? is no DNS name"


def test_each_restart_gives_a_module_another_pod(settings: Settings) -> None:
    first, second = made(settings, "m"), made(settings, "m", restarts=1)
    assert annotations(first) == {manifests.MODULE_ANNOTATION: "m"}
    assert annotations(second) == {manifests.MODULE_ANNOTATION: "m", manifests.RESTARTS_ANNOTATION: "1"}
    assert second["spec"] == first["spec"]
    assert manifests.digest(first) != manifests.digest(second)


def test_edge_agent_starts_its_own_modules_and_the_kubelet_all_others(settings: Settings) -> None:
    found = {
        name: pod["spec"]["restartPolicy"]
        for name, pod in {
            "edgeAgent's": made(settings, "m"),
            "the chart's": rendered(settings),
            "edgeAgent": rendered(settings, name="edgeAgent"),
            "edgeAgent, updated by itself": made(settings, "edgeAgent"),
        }.items()
    }
    assert found == {
        "edgeAgent's": "Never",
        "the chart's": "Always",
        "edgeAgent": "Always",
        "edgeAgent, updated by itself": "Always",
    }


def test_the_digest_moves_with_whatever_a_pod_is_made_of_and_with_nothing_else(settings: Settings) -> None:
    plain: dict[str, Any] = {
        "module": deployed("m"),
        "generation": "1",
        "certificate": "PEM",
        "addresses": NOWHERE,
    }
    others: list[dict[str, Any]] = [
        {"module": deployed("m", {"A": "1"})},
        {"module": deployed("m", restarts=1)},
        {"module": deployed("m", createOptions={"Labels": {"plant": "7"}})},
        {"module": deployed("m", image="r/m:2")},
        {"generation": "2"},
        {"certificate": "other"},
        {"addresses": Addresses("10.0.0.2")},
        {"slot": "b"},
    ]

    def digest(**changes: Any) -> str:
        given = {**plain, "settings": settings, "owner": OWNER, "slot": "a"} | changes
        return manifests.digest(manifests.pod(**given))

    digests = [digest(), *(digest(**changes) for changes in others)]
    assert len(set(digests)) == len(digests)
    assert digest() == digest(module=deployed("m", running=False)) == digests[0]


def test_credentials_of_a_registry_are_a_secret_that_only_its_module_pulls_with(settings: Settings) -> None:
    auth = {"serveraddress": "r.example.net", "username": "robot", "password": "pä:ss"}
    secret = manifests.pull_secret(deployed("m", auth=auth), settings, OWNER)
    assert secret is not None
    assert (secret["metadata"]["name"], secret["type"]) == ("gw-m-registry", "kubernetes.io/dockerconfigjson")
    assert secret["metadata"]["ownerReferences"] == [OWNER.manifest()]
    login = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]["r.example.net"][
        "auth"
    ]
    assert base64.b64decode(login).decode() == "robot:pä:ss"
    found = made(settings, "m", auth=auth)
    assert found["spec"]["imagePullSecrets"] == [
        {"name": "one"},
        {"name": "two"},
        {"name": "gw-m-registry"},
    ]
    assert "pä" not in json.dumps(found, ensure_ascii=False)
    assert manifests.pull_secret(deployed("m"), settings, OWNER) is None


@pytest.mark.parametrize(("user", "not_root"), [(0, False), (1000, True)])
def test_a_user_by_extension_is_let_be_what_it_is(settings: Settings, user: int, not_root: bool) -> None:
    options = {"k8s-extensions": {"securityContext": {"runAsUser": user}}}
    security = made(settings, "m", createOptions=options)["spec"]["securityContext"]
    assert (security["runAsUser"], security["runAsNonRoot"]) == (user, not_root)


def test_no_label_of_a_module_passes_for_the_number_of_its_run(settings: Settings) -> None:
    options = {"Labels": {manifests.RESTARTS_ANNOTATION: "5", "theirs": "stays"}}
    annotations = made(settings, "m", createOptions=options)["metadata"]["annotations"]
    assert manifests.RESTARTS_ANNOTATION not in annotations
    assert annotations["theirs"] == "stays"


def test_pods_of_a_module_with_ports_say_so_to_the_policies_of_the_chart(settings: Settings) -> None:
    def labels(options: dict[str, Any]) -> dict[str, str]:
        entry = {"name": "m", "image": "i", "createOptions": options}
        found = manifests.pod(read(settings, entry), "637", settings, OWNER, "PEM", NOWHERE, "a")
        given: dict[str, str] = found["metadata"]["labels"]
        return given

    exposed = {"ExposedPorts": {"8080/tcp": {}}}
    ports = {"HostConfig": {"PortBindings": {"443/tcp": [{"HostPort": "8443"}]}}}
    assert labels(ports)[manifests.PUBLISHED_LABEL] == "true"
    balanced = {**exposed, "k8s-extensions": {"serviceOptions": {"type": "LoadBalancer"}}}
    assert labels(balanced)[manifests.PUBLISHED_LABEL] == "true"
    assert manifests.PUBLISHED_LABEL not in labels(exposed)
    # Bound ports are for others of the cluster; only an address of its own is for what is outside of it.
    inside = {**exposed, "k8s-extensions": {"serviceOptions": {"type": "ClusterIP"}}}
    found = [manifests.OUTSIDE_LABEL in labels(options) for options in (ports, inside, exposed, balanced)]
    assert found == [False, False, False, True]


def test_pods_of_a_slot_are_beside_its_daemon_and_wait_at_its_gate(settings: Settings) -> None:
    wanted = {
        "nodeAffinity": {"n": {}},
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
    }
    own = {"topologyKey": "zone", "labelSelector": {}}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    wanted["podAffinity"][required] = [own]
    entry = {"name": "m", "image": "i", "createOptions": {"k8s-extensions": {"affinity": wanted}}}
    found = manifests.pod(read(settings, entry), "637", settings, OWNER, "PEM", NOWHERE, "b")
    assert found["metadata"]["name"] == "gw-m-b"
    assert found["metadata"]["labels"][manifests.SLOT_LABEL] == "b"
    spec = found["spec"]
    assert spec["affinity"].keys() == {"nodeAffinity", "podAffinity"}
    daemon, theirs = spec["affinity"]["podAffinity"][required]
    assert theirs == own
    assert (daemon["topologyKey"], daemon["labelSelector"]["matchLabels"]) == (
        "kubernetes.io/hostname",
        {
            "app.kubernetes.io/name": "edge-runtime",
            "app.kubernetes.io/instance": "gw",
            "app.kubernetes.io/component": "daemon",
            manifests.SLOT_LABEL: "b",
        },
    )
    gate = spec["initContainers"][0]
    assert (gate["name"], gate["args"], gate["env"]) == (
        "gate",
        ["gate"],
        [{"name": "EDGEHA_SLOT", "value": "b"}],
    )
    assert "restartPolicy" not in gate, "what comes after it waits for its end"


def test_pods_know_daemon_and_gateway_without_the_clusters_dns(settings: Settings) -> None:
    def aliases(name: str, addresses: Addresses, **changes: Any) -> Any:
        module = read(settings, {"name": name, "image": "i"} | changes)
        spec = manifests.pod(module, "637", settings, OWNER, "PEM", addresses, "a")["spec"]
        return spec.get("hostAliases")

    daemon = {"ip": "10.0.0.2", "hostnames": ["gw-daemon.edge-gw.svc"]}
    gateway = {"ip": "10.0.0.1", "hostnames": ["hub.example.net"]}
    own = {"createOptions": {"HostConfig": {"ExtraHosts": ["plc:10.1.2.3"]}}}
    both = Addresses("10.0.0.2", "10.0.0.1")
    assert aliases("m", both, **own) == [daemon, gateway, {"ip": "10.1.2.3", "hostnames": ["plc"]}]
    assert aliases("edgeHub", both) == [daemon], "edgeHub is the gateway"
    assert aliases("m", Addresses("10.0.0.2")) == [daemon]
    assert aliases("m", NOWHERE) is None


def test_the_service_of_a_module_leads_to_the_slot_that_works() -> None:
    standby = from_environment(ENVIRONMENT | {"EDGEHA_SLOTS": "a,b", "EDGEHA_SLOT": "b"})
    service = manifests.service(with_options(standby), standby, OWNER)
    assert service is not None
    assert service["spec"]["selector"][manifests.SLOT_LABEL] == "b"


def test_a_standbys_pods_make_room_for_those_that_work() -> None:
    classes = {"EDGEHA_PRIORITY_CLASS": "gw", "EDGEHA_STANDBY_PRIORITY_CLASS": "gw-standby"}
    both = from_environment(ENVIRONMENT | classes | {"EDGEHA_SLOTS": "a,b"})
    found = [
        manifests.pod(with_options(both), "637", both, OWNER, "PEM", NOWHERE, slot)["spec"] for slot in "ab"
    ]
    assert [spec["priorityClassName"] for spec in found] == ["gw", "gw-standby"]


def test_edge_agent_alone_gets_the_proxy_and_reaches_the_hub_through_it() -> None:
    def env(name: str, own: dict[str, str], **more: str) -> dict[str, str]:
        settings = from_environment(ENVIRONMENT | {"EDGEHA_HTTPS_PROXY": "http://proxy:3128"} | more)
        entry = {"name": name, "image": "r/s:1", "env": own}
        found = manifests.pod(read(settings, entry), "1", settings, OWNER, "PEM", NOWHERE, "a")
        (container,) = found["spec"]["containers"]
        variables = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        return {name: value for name, value in variables.items() if name.lower().endswith("_proxy")}

    inside = "localhost,127.0.0.1,gw-daemon.edge-gw.svc,.svc,.cluster.local"
    # Without a name of its own the gateway is called as the hub, which is outside.
    assert env("edgeAgent", {}) == {"https_proxy": "http://proxy:3128", "no_proxy": inside}
    named = env("edgeAgent", {}, EDGEHA_GATEWAY_HOSTNAME="gateway.plant", EDGEHA_NO_PROXY=".plant,10.0.0.0/8")
    assert named["no_proxy"] == f".plant,10.0.0.0/8,{inside},gateway.plant"
    assert env("edgeAgent", {"HTTPS_PROXY": ""}) == {"HTTPS_PROXY": "", "no_proxy": inside}
    assert env("edgeAgent", {}, EDGEHA_HTTPS_PROXY="") == {}
    assert env("edgeHub", {}) == {}
