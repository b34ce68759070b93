# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""createOptions become parts of a pod, or are refused by their names; nothing is ignored in silence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from edgeha_runtime.daemon import create_options, images, manifests, moduleset
from edgeha_runtime.daemon.create_options import Parts, Port, claim_name, literal, translate
from edgeha_runtime.daemon.docker_schema import EXTENSIONS, OPTIONS, Verdict
from edgeha_runtime.daemon.manifests import Addresses, OwnerReference
from edgeha_runtime.daemon.settings import from_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.runtime.parts import ENVIRONMENT

DOCS = Path(__file__).resolve().parents[3] / "docs" / "create-options.md"

SETTINGS = from_environment(ENVIRONMENT | {"EDGEHA_SLOTS": "a,b"})
OWNER = OwnerReference("gw-daemon", "uid-1")
LOGIN = {"serveraddress": "r", "username": "u", "password": "p"}


def host(**options: Any) -> dict[str, Any]:
    return {"HostConfig": options}


def good(options: dict[str, Any]) -> Parts:
    parts = translate(options, "gw", frozenset({"gw-credential"}))
    assert parts.problems == []
    return parts


def problems(options: dict[str, Any]) -> list[str]:
    return translate(options, "gw", frozenset({"gw-credential"})).problems


# options, and what the container or the pod gets.
CONTAINER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"Cmd": ["a", "$(b)"]}, {"args": ["a", "$$(b)"]}),
    ({"Entrypoint": ["a$$b", "$c"]}, {"command": ["a$$$$b", "$c"]}),
    ({"Cmd": "a b"}, {"args": ["a b"]}),
    ({"Entrypoint": ["/x", "y"], "Cmd": ["z"]}, {"command": ["/x", "y"], "args": ["z"]}),
    ({"Entrypoint": "/x"}, {"command": ["/x"]}),
    # Docker takes the image's entrypoint away.
    ({"Entrypoint": [""], "Cmd": ["z"]}, {"command": ["z"]}),
    ({"Entrypoint": [], "Cmd": ["z"]}, {"command": ["z"]}),
    ({"WorkingDir": "/w"}, {"workingDir": "/w"}),
    ({"Tty": True, "OpenStdin": True}, {"tty": True, "stdin": True}),
    ({"User": "1000"}, {"securityContext": {"runAsUser": 1000, "runAsNonRoot": True}}),
    ({"User": "root:7"}, {"securityContext": {"runAsUser": 0, "runAsNonRoot": False, "runAsGroup": 7}}),
    (host(Memory=67108864), {"resources": {"limits": {"memory": "67108864"}}}),
    (host(MemoryReservation=1000), {"resources": {"requests": {"memory": "1000"}}}),
    (host(NanoCpus=1_500_000_000), {"resources": {"limits": {"cpu": "1500m"}}}),
    (host(CpuQuota=50_000), {"resources": {"limits": {"cpu": "500m"}}}),
    (host(CpuQuota=50_000, CpuPeriod=25_000), {"resources": {"limits": {"cpu": "2000m"}}}),
    (host(CpuShares=512), {"resources": {"requests": {"cpu": "500m"}}}),
    # A weight may be more than the limit, which no cluster takes.
    (
        host(CpuShares=1024, NanoCpus=500_000_000),
        {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}}},
    ),
    (host(ReadonlyRootfs=True), {"securityContext": {"readOnlyRootFilesystem": True}}),
    (
        host(Privileged=True, CapDrop=["ALL"]),
        {"securityContext": {"privileged": True, "allowPrivilegeEscalation": True, "capabilities": {}}},
    ),
    (host(SecurityOpt=["no-new-privileges"]), {"securityContext": {"allowPrivilegeEscalation": False}}),
    (
        host(SecurityOpt=["seccomp:unconfined"]),
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    ),
    ({"Healthcheck": {"Test": ["NONE"]}}, {}),
    ({"Healthcheck": {}}, {}),
    (
        {"Healthcheck": {"Test": ["CMD-SHELL", "x || y"], "Interval": 1_500_000_000, "Retries": 2}},
        {
            "livenessProbe": {
                "exec": {"command": ["/bin/sh", "-c", "x || y"]},
                "periodSeconds": 2,
                "timeoutSeconds": 30,
                "failureThreshold": 2,
                "initialDelaySeconds": 0,
            }
        },
    ),
    (
        {EXTENSIONS: {"resources": {"limits": {"vendor.example/gpu": 1}}}} | host(Memory=1000),
        {"resources": {"limits": {"memory": "1000", "vendor.example/gpu": 1}}},
    ),
]
POD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"Hostname": "plc-7"}, {"hostname": "plc-7"}),
    ({"StopTimeout": 60}, {"terminationGracePeriodSeconds": 60}),
    ({"StopTimeout": 0}, {"terminationGracePeriodSeconds": 1}),
    (host(NetworkMode="host"), {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}),
    (host(NetworkMode="azure-iot-edge"), {}),
    (host(IpcMode="host", PidMode="host"), {"hostIPC": True, "hostPID": True}),
    (
        host(ExtraHosts=["plc:10.1.2.3", "hmi:10.1.2.3", "v6:[fd00::1]"]),
        {
            "hostAliases": [
                {"ip": "10.1.2.3", "hostnames": ["plc", "hmi"]},
                {"ip": "fd00::1", "hostnames": ["v6"]},
            ]
        },
    ),
    (
        host(Dns=["10.0.0.1"], DnsSearch=["plant"], DnsOptions=["ndots:2", "rotate"]),
        {
            "dnsPolicy": "None",
            "dnsConfig": {
                "nameservers": ["10.0.0.1"],
                "searches": ["plant"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
            },
        },
    ),
    (
        {
            EXTENSIONS: {
                "nodeSelector": {"a": "b"},
                "tolerations": [{"key": "k"}],
                "affinity": {"podAffinity": {}},
            }
        },
        {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}], "affinity": {"podAffinity": {}}},
    ),
    ({"NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {}, "other": None}}}, {}),
]


@pytest.mark.parametrize(("options", "expected"), CONTAINER)
def test_of_the_container(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert good(options).container == expected


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (
            ["CAP_NET_ADMIN", "sys_time"],
            ["MKNOD"],
            {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "NET_ADMIN", "SYS_TIME"]},
        ),
        ([], ["MKNOD"], {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        ([], ["ALL"], {"drop": ["ALL"]}),
        ([], ["cap_net_bind_service"], {"drop": ["ALL"]}),
        (["CHOWN"], ["ALL"], {"drop": ["ALL"], "add": ["CHOWN"]}),
        # What is added wins, as in Docker.
        (["NET_BIND_SERVICE"], ["ALL", "NET_BIND_SERVICE"], {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        (["ALL"], ["NET_RAW"], {"add": ["ALL"], "drop": ["NET_RAW"]}),
        (["ALL"], ["ALL", "NET_RAW"], {"add": ["ALL"], "drop": ["NET_RAW"]}),
        (["ALL", "CHOWN"], [], {"add": ["ALL"]}),
    ],
)
def test_capabilities_are_dockers_but_that_a_module_has_few_by_itself(
    add: list[str], drop: list[str], expected: dict[str, Any]
) -> None:
    found = good(host(CapAdd=add, CapDrop=drop))
    assert found.container == {"securityContext": {"capabilities": expected}}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        (host(CapDrop=["ALL"]), False),
        (host(Privileged=False), False),
        (host(CapAdd=["NET_ADMIN"]), True),
        (host(Privileged=True), True),
        ({"User": "1000"} | host(Privileged=True, CapAdd=["NET_ADMIN"]), False),
    ],
)
def test_rights_are_the_images_users_where_no_user_is_given(options: dict[str, Any], expected: bool) -> None:
    assert good(options).image_user is expected


@pytest.mark.parametrize(("options", "expected"), POD)
def test_of_the_pod(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert good(options).pod == expected


def test_of_the_pods_rights() -> None:
    found = good(
        host(GroupAdd=["44"], Sysctls={"net.ipv4.ip_local_port_range": "1024 65535"})
        | {EXTENSIONS: {"securityContext": {"fsGroup": 7}}}
    )
    assert found.pod_security == {
        "supplementalGroups": [44],
        "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1024 65535"}],
        "fsGroup": 7,
    }


def test_sysctls_of_both_kinds_are_one_list_and_those_of_kubernetes_win() -> None:
    own = [{"name": "net.a", "value": "2"}, {"name": "net.c", "value": "3"}]
    found = good(
        host(Sysctls={"net.a": "1", "net.b": "1"}) | {EXTENSIONS: {"securityContext": {"sysctls": own}}}
    )
    assert {entry["name"]: entry["value"] for entry in found.pod_security["sysctls"]} == {
        "net.a": "2",
        "net.b": "1",
        "net.c": "3",
    }
    assert good({EXTENSIONS: {"securityContext": {"sysctls": None}}}).pod_security == {}


def test_variables_and_labels() -> None:
    found = good(
        {"Env": ["A=b=c", "EMPTY="], "Labels": {"a/b": "c"}} | host(Annotations={"a/d": "e"}),
    )
    assert found.env == {"A": "b=c", "EMPTY": ""}
    assert found.annotations == {"a/b": "c", "a/d": "e"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ExposedPorts": {"8080/tcp": {}, "53/udp": {}}}, [Port(8080, 8080, "TCP"), Port(53, 53, "UDP")]),
        (host(PortBindings={"443/tcp": [{"HostPort": "8443"}]}), [Port(8443, 443, "TCP")]),
        (host(PortBindings={"443/tcp": [{"HostIp": "0.0.0.0"}]}), [Port(443, 443, "TCP")]),  # noqa: S104 - it is read
        (
            host(PortBindings={"80": [{"HostPort": "8080"}, {"HostPort": "8081"}]}),
            [Port(8080, 80, "TCP"), Port(8081, 80, "TCP")],
        ),
        (
            host(PortBindings={"100-102/udp": [{"HostPort": "200-202"}]}),
            [Port(200, 100, "UDP"), Port(201, 101, "UDP"), Port(202, 102, "UDP")],
        ),
        # A port that is exposed and bound is there once, at the host's number.
        (
            {"ExposedPorts": {"443/tcp": {}, "1/tcp": {}}}
            | host(PortBindings={"443/tcp": [{"HostPort": "8443"}]}),
            [Port(8443, 443, "TCP"), Port(1, 1, "TCP")],
        ),
    ],
)
def test_of_the_service(options: dict[str, Any], expected: list[Port]) -> None:
    assert good(options).ports == expected


def test_type_and_address_of_the_service() -> None:
    found = good({EXTENSIONS: {"serviceOptions": {"type": "LoadBalancer", "loadBalancerIP": "10.1.2.3"}}})
    assert found.service == {"type": "LoadBalancer", "loadBalancerIP": "10.1.2.3"}


CLAIM = {"persistentVolumeClaim": {"claimName": "gw-volume-data"}}
FOLDER = {"hostPath": {"path": "/dev/plc", "type": ""}}


@pytest.mark.parametrize(
    ("options", "volume", "mount"),
    [
        (host(Binds=["/dev/plc:/plc"]), FOLDER, {"mountPath": "/plc"}),
        (host(Binds=["/dev/plc:/plc/:ro,z"]), FOLDER, {"mountPath": "/plc", "readOnly": True}),
        (
            host(Binds=["/dev/plc:/plc:rslave"]),
            FOLDER,
            {"mountPath": "/plc", "mountPropagation": "HostToContainer"},
        ),
        (host(Binds=["data:/data"]), CLAIM, {"mountPath": "/data"}),
        (
            host(Mounts=[{"Type": "volume", "Source": "data", "Target": "/d", "ReadOnly": True}]),
            CLAIM,
            {"mountPath": "/d", "readOnly": True},
        ),
        (
            host(Mounts=[{"Type": "bind", "Source": "/dev/plc", "Target": "/d"}]),
            {"hostPath": {"path": "/dev/plc", "type": ""}},
            {"mountPath": "/d"},
        ),
        (
            host(Mounts=[{"Type": "bind", "Source": "/dev/plc", "Target": "/d",
                          "BindOptions": {"CreateMountpoint": True, "Propagation": "shared"}}]),
            FOLDER,
            {"mountPath": "/d", "mountPropagation": "Bidirectional"},
        ),
        (
            host(Mounts=[{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1000}}]),
            {"emptyDir": {"medium": "Memory", "sizeLimit": "1000"}},
            {"mountPath": "/t"},
        ),
        (
            host(Mounts=[{"Type": "volume", "Source": "data", "Target": "/d",
                          "VolumeOptions": {"Subpath": "a/..b"}}]),
            CLAIM,
            {"mountPath": "/d", "subPath": "a/..b"},
        ),
        (host(Mounts=[{"Type": "volume", "Target": "/t"}]), {"emptyDir": {}}, {"mountPath": "/t"}),
        (
            host(Tmpfs={"/run": "rw,size=64m"}),
            {"emptyDir": {"medium": "Memory", "sizeLimit": str(64 * 1024**2)}},
            {"mountPath": "/run"},
        ),
        (
            host(ShmSize=1000),
            {"emptyDir": {"medium": "Memory", "sizeLimit": "1000"}},
            {"mountPath": "/dev/shm"},
        ),
        ({"Volumes": {"/scratch": {}}}, {"emptyDir": {}}, {"mountPath": "/scratch"}),
    ],
)  # fmt: skip
def test_of_the_volumes(options: dict[str, Any], volume: dict[str, Any], mount: dict[str, Any]) -> None:
    found = good(options)
    assert found.volumes == [{"name": "volume-0", **volume}]
    assert found.mounts == [{"name": "volume-0", **mount}]
    assert found.claims == (["data"] if "persistentVolumeClaim" in volume else [])


def test_a_source_that_is_mounted_twice_is_one_volume() -> None:
    found = good(host(Binds=["data:/a", "data:/b:ro", "/x:/c", "/x:/d"], Tmpfs={"/t": "", "/u": ""}))
    assert [volume["name"] for volume in found.volumes] == [f"volume-{number}" for number in range(4)]
    assert found.claims == ["data"]
    assert len(found.mounts) == 6


def test_a_volume_of_kubernetes() -> None:
    volume = {"name": "config", "configMap": {"name": "plant"}}
    found = good({EXTENSIONS: {"volumes": [{"volume": volume, "volumeMounts": [{"mountPath": "/c"}]}]}})
    assert found.volumes == [volume]
    assert found.mounts == [{"mountPath": "/c", "name": "config"}]


def of_kubernetes(**volume: Any) -> dict[str, Any]:
    entry = {"volume": {"name": "v", **volume}, "volumeMounts": [{"mountPath": "/c"}]}
    return {EXTENSIONS: {"volumes": [entry]}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"Nonsense": 1}, "createOptions.Nonsense: no such option"),
        (
            host(Privilegd=True),
            "createOptions.HostConfig.Privilegd: no such option, did you mean Privileged?",
        ),
        ({EXTENSIONS: {"nodeselector": {}}}, "did you mean nodeSelector?"),
        ({"HostConfig": []}, "createOptions.HostConfig: is not an object"),
        (
            host(Devices=[{"PathOnHost": "/dev/x"}]),
            "createOptions.HostConfig.Devices: a device needs a plugin",
        ),
        (host(UTSMode="host"), "createOptions.HostConfig.UTSMode"),
        (host(Runtime="nvidia"), "createOptions.HostConfig.Runtime"),
        (host(Mounts=[{"Type": "bind", "Nonsense": 1}]), "HostConfig.Mounts.Nonsense: no such option"),
        (host(Mounts=[{"Type": "npipe", "Target": "/x"}]), "'npipe' is none of bind, volume and tmpfs"),
        (host(Mounts=[{"Type": "bind", "Source": "x", "Target": "/x"}]), "a bind has an absolute path"),
        (
            host(Mounts=[{"Type": "volume", "Source": "/x", "Target": "/x"}]),
            "a volume has a name and no path",
        ),
        (host(Binds=["/x"]), "is not source:target"),
        (host(Binds=["/x:y"]), "no absolute path to mount at"),
        (host(Binds=["/x:/"]), "no absolute path to mount at"),
        (host(Binds=["/../x:/y"]), "leads upwards"),
        (host(Binds=["a b:/y"]), "neither an absolute path nor the name of a volume"),
        (host(Binds=["/x:/y:exec"]), "'exec' in '/x:/y:exec' is not translated"),
        (host(Binds=["/x:/y", "/z:/y"]), "two volumes are mounted at /y"),
        (host(Tmpfs={"/t": "noexec"}), "'noexec' is not translated"),
        (host(Memory="64m"), "createOptions.HostConfig.Memory: is not a whole number"),
        (host(Memory=True), "createOptions.HostConfig.Memory: is not a whole number"),
        (host(Memory=1, MemoryReservation=2), "is more than Memory"),
        (host(NanoCpus=1, CpuQuota=1), "says again what NanoCpus says"),
        (
            host(Privileged=True, SecurityOpt=["no-new-privileges"]),
            "beside Privileged: no cluster takes both",
        ),
        (host(Privileged="yes"), "createOptions.HostConfig.Privileged: is neither true nor false"),
        (host(Privileged=1), "createOptions.HostConfig.Privileged: is neither true nor false"),
        (host(CapAdd=["NET ADMIN"]), "is no capability"),
        (host(SecurityOpt=["label=disable"]), "'label=disable' is not translated"),
        (host(GroupAdd=["dialout"]), "only the image knows names"),
        ({"User": "edgehub"}, "only the image knows names"),
        ({"User": "1:2:3"}, "give uid or uid:gid"),
        ({"User": str(2**31)}, "give uid or uid:gid"),
        (host(NetworkMode="container:x"), "a module's pod has a network of its own"),
        (host(PidMode="container:x"), "only host is"),
        ({"Hostname": "PLC_7"}, "is no DNS label"),
        ({"Hostname": "a"} | host(NetworkMode="host"), "on the node's network"),
        (host(ExtraHosts=["plc"]), "is not name:address"),
        (host(ExtraHosts=["plc:host-gateway"]), "is not name:address"),
        ({"ExposedPorts": {"http": {}}}, "is no port"),
        ({"ExposedPorts": {"70000": {}}}, "is no port"),
        (host(PortBindings={"80": [{"HostIp": "127.0.0.1"}]}), "a Service has one address for all ports"),
        (host(PortBindings={"80-81": [{"HostPort": "80"}]}), "the ranges are not of one length"),
        (host(PortBindings={"80": {}}), "is not a list"),
        (
            host(PortBindings={"80": [{"HostPort": "8080"}], "81/tcp": [{"HostPort": "8080"}]}),
            "createOptions.HostConfig.PortBindings: HostPort 8080/tcp leads to 80 and 81",
        ),
        *(
            (
                host(
                    Mounts=[
                        {"Type": "volume", "Source": "d", "Target": "/d", "VolumeOptions": {"Subpath": wrong}}
                    ]
                ),
                "leads out of the volume",
            )
            for wrong in ("../../x", "/etc", "a/..", "..")
        ),
        ({"Env": ["A"]}, "createOptions.Env[0]: is not NAME=value"),
        ({"Env": "A=b"}, "createOptions.Env: is not a list"),
        ({"Cmd": {"a": 1}}, "createOptions.Cmd: is not a list"),
        ({"Healthcheck": {"Test": ["RUN", "x"]}}, "begins with none of NONE, CMD and CMD-SHELL"),
        ({"NetworkingConfig": {"EndpointsConfig": {"n": {"Aliases": ["x"]}}}}, "a module has one name"),
        ({EXTENSIONS: {"serviceOptions": {"type": "ExternalName"}}}, "is none of ClusterIP"),
        ({EXTENSIONS: {"resources": {"claims": []}}}, "is neither limits nor requests"),
        *(
            (
                {EXTENSIONS: {"securityContext": {"sysctls": wrong}}},
                "createOptions.k8s-extensions.securityContext.sysctls: is not a list",
            )
            for wrong in ([{"Name": "x"}], [{"name": "x", "value": 1}], "abc", {"x": "1"}, [None])
        ),
        (of_kubernetes(persistentVolumeClaim={"claimName": "gw-state"}), "for the daemon alone"),
        (
            of_kubernetes(secret={"secretName": "gw-credential"}),
            "the Secret gw-credential is the gateway's own",
        ),
        (
            of_kubernetes(projected={"sources": [{"secret": {"name": "gw-credential"}}]}),
            "the Secret gw-credential is the gateway's own",
        ),
        (of_kubernetes(name="workload-token"), "is taken"),
        (of_kubernetes(name="workload-socket"), "is taken"),
        (
            of_kubernetes(
                projected={"sources": [{"serviceAccountToken": {"path": "t", "audience": "edgeha-gw"}}]}
            ),
            "tokens for edgeha-gw are for the sidecar alone",
        ),
        (of_kubernetes(secret={"secretName": "gw-other-registry"}), "a module's login of its registry"),
        (
            of_kubernetes(csi={"driver": "d", "nodePublishSecretRef": {"name": "gw-m-pull-0123abcd"}}),
            "a module's login of its registry",
        ),
        (
            of_kubernetes(csi={"driver": "d", "volumeAttributes": {"secretProviderClass": "gw-credential"}}),
            "gw-credential is the gateway's own",
        ),
        (of_kubernetes(secret={"secretName": "sh.helm.release.v1.gw.v12"}), "holds the gateway's release"),
        (of_kubernetes(configMap={"name": "gw-modules"}), "variables of other modules"),
        (
            of_kubernetes(persistentVolumeClaim={"claimName": "gw-volume-data"}),
            "name the volume in HostConfig.Binds or Mounts",
        ),
        (
            of_kubernetes(hostPath={"path": "/x/../var/lib/kubelet"}),
            f"{EXTENSIONS}.volumes[0].volume.hostPath: '/x/../var/lib/kubelet' gives",
        ),
        (
            host(Mounts=[{"Type": "bind", "Source": "/var/lib", "Target": "/x"}]),
            "createOptions.HostConfig.Mounts[0]: '/var/lib' gives /var/lib/kubelet of the node",
        ),
        (
            host(NetworkMode="host", Tmpfs={"/var/run/edgeha": ""}),
            "two volumes are mounted at /var/run/edgeha",
        ),
        ({EXTENSIONS: {"volumes": [{"volume": {}}]}}, "is not {volume"),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(options: dict[str, Any], said: str) -> None:
    found = problems(options)
    assert any(said in problem for problem in found), found
    assert all(problem.startswith("createOptions.") for problem in found)


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "//",
        "/etc",
        "/run",
        "/var/run/",
        "/var",
        "/var/lib",
        "/var/lib/kubelet",
        "/var//lib/./kubelet/pods/7",
        "/var/snap/microk8s/common/var/lib/kubelet/pods",
        "/var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/etc/rancher/k3s/k3s.yaml",
    ],
)
def test_folders_of_the_node_with_tokens_of_others_are_refused(source: str) -> None:
    (problem,) = problems(host(Binds=[f"{source}:/x:ro"]))
    assert problem.startswith(f"createOptions.HostConfig.Binds: '{source}' gives /")
    (problem,) = problems(of_kubernetes(hostPath={"path": source}))
    assert f"'{source}' gives /" in problem


@pytest.mark.parametrize(
    "source", ["/dev/plc", "/var/lib/plant", "/etc/localtime", "/run/udev", "/var/log", "/kube", "/runs"]
)
def test_other_folders_of_the_node_may_be_mounted(source: str) -> None:
    good(host(Binds=[f"{source}:/x"]))
    good(of_kubernetes(hostPath={"path": source}))


@pytest.mark.parametrize("name", ["plant-registry", "gw-registry", "edgeha-other"])
def test_what_is_not_the_gateways_may_be_mounted(name: str) -> None:
    good(of_kubernetes(secret={"secretName": name}))
    good(of_kubernetes(projected={"sources": [{"serviceAccountToken": {"path": "t", "audience": name}}]}))


def test_a_bind_of_an_edge_agents_own_sockets_changes_nothing() -> None:
    sockets = [f"/var/run/edgeha/{name}.sock" for name in ("workload", "management")]
    found = good(host(Binds=[*(f"{path}:{path}" for path in sockets), "/var/run/edgeha:/var/run/edgeha"]))
    assert (found.volumes, found.mounts) == ([], [])
    assert good(host(Binds=[f"{sockets[0]}:/x"])).mounts == [{"name": "volume-0", "mountPath": "/x"}]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems({"Nonsense": 1} | host(Init=True, UTSMode="host", Rubbish=1))) == 4


def placed(path: str, value: Any) -> dict[str, Any]:
    """createOptions with one option."""
    found = value
    for part in reversed(path.split(".")):
        found = {part: found}
        if part == "Mounts":
            found = {"Mounts": [found["Mounts"]]}
        elif part == "EndpointsConfig":
            found = {"EndpointsConfig": {"net": found["EndpointsConfig"]}}
    return found


@pytest.mark.parametrize(
    "path", [path for path, option in OPTIONS.items() if option.verdict is Verdict.REFUSED]
)
def test_a_refused_option_is_refused_when_it_is_set_and_only_then(path: str) -> None:
    for value in ("set", 7, True, ["x"], {"a": "b"}):
        assert f"createOptions.{path}: {OPTIONS[path].text}" in problems(placed(path, value))
    for value in (None, False, "", 0, -1, [], {}):
        assert not any(OPTIONS[path].text in problem for problem in problems(placed(path, value)))


@pytest.mark.parametrize(
    "path", [path for path, option in OPTIONS.items() if option.verdict is Verdict.MEANINGLESS]
)
def test_what_has_no_meaning_changes_nothing(path: str) -> None:
    found = translate(placed(path, "x"), "gw")
    if "Mounts" not in path:
        assert found == Parts()
    else:
        assert not any(path in problem for problem in found.problems)


def test_values_that_say_what_is_the_case_anyway() -> None:
    good(host(CgroupnsMode="private", Runtime="runc", VolumeDriver="local", Isolation="default"))
    good({"StopSignal": "SIGTERM"})


@pytest.mark.parametrize(
    ("text", "expected"), [("", {}), ("  ", {}), (None, {}), ('{"Tty": true}', {"Tty": True}), ({}, {})]
)
def test_they_come_as_an_object_or_as_its_text(text: Any, expected: dict[str, Any]) -> None:
    assert create_options.read(text) == expected


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ("[]", "is not a JSON object"), (7, "is not a JSON")]
)
def test_what_is_none_is_told(text: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        create_options.read(text)


def test_names_of_claims_are_those_of_volumes_and_never_the_same_for_two() -> None:
    volumes = ["data", "Data", "data-", "da_ta", "da.ta", "a" * 100, "a" * 101, "state"]
    names = {claim_name("gw", volume) for volume in volumes}
    assert len(names) == len(volumes)
    assert claim_name("gw", "data") == "gw-volume-data"
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)


KEYS = [
    "Type", "Source", "Target", "HostPort", "80/tcp", "name", "value", "sysctls", "podAffinity", "volume",
    "volumeMounts", "requiredDuringSchedulingIgnoredDuringExecution", "limits", "requests",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70000) | st.text(max_size=12)
    | st.sampled_from(["/a", "data:/d", "80/tcp", "A=b", "host", "root", "bind", "volume", "CMD"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(OPTIONS)), JSON, max_size=5)
    # Objects of Kubernetes come in here, of which Docker's schema says nothing.
    | st.dictionaries(
        st.sampled_from(sorted(path for path in OPTIONS if path.startswith(f"{EXTENSIONS}."))),
        st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3),
        max_size=2,
    )
)
def test_whatever_comes_is_translated_or_refused(chosen: dict[str, Any]) -> None:
    options: dict[str, Any] = {}
    for path, value in chosen.items():
        top, _, rest = path.partition(".")
        if not rest:
            options[top] = value
        else:
            inner = placed(rest, value)
            options[top] = {**(options[top] if isinstance(options.get(top), dict) else {}), **inner}
    found = translate(options, "gw")
    assert all(problem.startswith("createOptions.") for problem in found.problems)
    spec = {
        "name": "m",
        "type": "docker",
        "config": {"settings": {"image": "i", "createOptions": options, "auth": LOGIN}},
    }
    module = moduleset.from_spec(spec, "gw").module
    if module is not None:
        json.dumps(objects_of(module))


def objects_of(module: moduleset.Module) -> list[Any]:
    """All that the daemon makes of a module."""
    return [
        manifests.service_account(module, SETTINGS, OWNER),
        manifests.service(module, SETTINGS, OWNER),
        manifests.pull_secret(module, SETTINGS, OWNER),
        *manifests.claims(module, SETTINGS),
        *(
            manifests.pod(module, "1", SETTINGS, OWNER, "PEM", Addresses("10.0.0.2", "10.0.0.1"), slot)
            for slot in SETTINGS.slots
        ),
        images.puller("p", module, SETTINGS, OWNER),
        images.keeper([module], SETTINGS, OWNER),
    ]


def test_the_table_for_operators_says_what_the_code_does() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(path, option.verdict.value, option.text) for path, option in OPTIONS.items()]


def expanded(text: str) -> str:
    """What Kubernetes makes of a value: $$ is one $, $(NAME) the value of NAME, all else as it is."""
    found, position = "", 0
    while position < len(text):
        step = 1
        if text.startswith("$$", position):
            found, step = found + "$", 2
        elif text.startswith("$(", position) and ")" in text[position:]:
            found, step = found + "<value>", text.index(")", position) + 1 - position
        else:
            found += text[position]
        position += step
    return found


@given(st.text("$()a", max_size=12))
def test_a_text_stays_what_it_is_when_kubernetes_expands_it(text: str) -> None:
    assert expanded(literal(text)) == text
    assert literal("pa$word") == "pa$word", "where nothing has to change nothing does"
