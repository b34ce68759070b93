# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chart, rendered by the real helm: what it makes, what it refuses, what a change restarts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgeha_runtime.daemon.manifests import MODULE_LABEL, OUTSIDE_LABEL, PUBLISHED_LABEL

from tests.integration.modules.control_plane import HELM

CHART = Path(__file__).parents[3] / "charts" / "edge-runtime"
EXAMPLE = CHART / "ci" / "example-values.yaml"


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real helm."""
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(*sets: str, release: str = "gw") -> subprocess.CompletedProcess[str]:
    changes = [part for change in sets for part in ("--set-json", change)]
    return helm(
        "template",
        release,
        CHART,
        "--namespace",
        "edge-gw",
        "--kube-version",
        "1.34.4",
        "-f",
        EXAMPLE,
        *changes,
    )


def objects(*sets: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Rendered objects by kind and name."""
    done = template(*sets)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def pod(*sets: str) -> dict[str, Any]:
    found: dict[str, Any] = objects(*sets)[("Deployment", "gw-daemon-a")]["spec"]["template"]
    return found


def test_lint_is_clean() -> None:
    done = helm("lint", "--strict", CHART, "-f", EXAMPLE)
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('gateway.devceId="x"', "devceId"),
        ('gateway.deviceId=""', "deviceId"),
        ('gateway.deviceId="a/b"', "deviceId"),
        ('gateway.iothubHostname="https://hub"', "iothubHostname"),
        ('credential.existingSecret=""', "credential.existingSecret"),
        ('credential.deviceKey="c2VjcmV0"', "deviceKey"),
        ('credential.type="tpm"', "type"),
        ('trustBundle="-----BEGIN PRIVATE KEY-----"', "trustBundle"),
        ('manifestTrustBundle="-----BEGIN PRIVATE KEY-----"', "manifestTrustBundle"),
        ('edgeCa.existingSecret="A b"', "existingSecret"),
        ('edgeCa.key="c2VjcmV0"', "key"),
        ('network.httpsProxy="http://user:password@proxy:3128"', "httpsProxy"),
        ('storage.accessMode="ReadOnlyMany"', "accessMode"),
        ('modules=[{"name":"m","image":"i","createOptions":7}]', "createOptions"),
        ('modules=[{"name":"a/b","image":"i"}]', "name"),
        ('modules=[{"name":"m","image":"i","env":{"A":1}}]', "env"),
        ("tolerationSeconds=-1", "tolerationSeconds"),
        ('dps.idScope="0ne1"', "dps.idScope stands beside gateway.deviceId"),
        ('dps.key="tpm"', "key"),
        ('standby={"enabled":true,"slots":3}', "slots"),
        ("moduleImages.pullSeconds=-1", "pullSeconds"),
        ('nodeSelector={"plant":7}', "nodeSelector"),
        ('callers.checkAddress="no"', "checkAddress"),
        ('networkPolicy.gatewaysBelow=[{"name":"line"}]', "namespace"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(change: str, reason: str) -> None:
    done = template(change)
    assert done.returncode != 0
    assert reason in done.stderr


@pytest.mark.parametrize("release", ["7gw", "gw.plant", "g" * 41])
def test_a_release_name_that_cannot_name_a_service_is_refused(release: str) -> None:
    done = template(release=release)
    assert done.returncode != 0
    assert f'release name "{release}": take 1-40' in done.stderr


def test_a_changed_module_set_changes_the_config_map_and_not_the_daemon() -> None:
    change = 'modules=[{"name":"new","image":"r/new:1"}]'
    assert pod(change) == pod()
    modules = objects(change)[("ConfigMap", "gw-modules")]["data"]["modules.json"]
    assert json.loads(modules) == [{"name": "new", "image": "r/new:1"}]


def test_edge_agent_is_one_of_the_modules_where_it_has_an_image() -> None:
    data = objects('edgeAgent={"image":"r/agent:1.6","env":{"UpstreamProtocol":"MqttWs"}}', "modules=[]")
    (agent,) = json.loads(data[("ConfigMap", "gw-modules")]["data"]["modules.json"])
    assert agent == {
        "name": "edgeAgent",
        "image": "r/agent:1.6",
        "imagePullPolicy": "IfNotPresent",
        "env": {"UpstreamProtocol": "MqttWs"},
        "createOptions": {},
    }
    assert json.loads(objects("modules=[]")[("ConfigMap", "gw-modules")]["data"]["modules.json"]) == []


def test_with_edge_agent_the_gateway_has_a_name_and_an_address() -> None:
    def hostname(*sets: str) -> str:
        env = pod(*sets)["spec"]["containers"][0]["env"]
        return str(next(entry["value"] for entry in env if entry["name"] == "EDGEHA_GATEWAY_HOSTNAME"))

    agent = 'edgeAgent.image="r/agent:1"'
    assert ("Service", "gw-gateway") not in objects()
    assert (hostname(), hostname(agent)) == ("", "gw")
    assert hostname(agent, 'gateway.gatewayHostname="plant07.example"') == "plant07.example"
    spec = objects(agent)[("Service", "gw-gateway")]["spec"]
    assert (spec["type"], [port["port"] for port in spec["ports"]]) == ("ClusterIP", [443, 5671, 8883])
    assert spec["selector"]["net.azure-devices.edge.module"] == "edgeHub"
    spec = objects(agent, 'exposure={"type":"LoadBalancer","address":"10.0.0.5"}')[("Service", "gw-gateway")][
        "spec"
    ]
    assert (spec["type"], spec["loadBalancerIP"]) == ("LoadBalancer", "10.0.0.5")
    spec = objects(agent, 'exposure.address="10.0.0.5"')[("Service", "gw-gateway")]["spec"]
    assert spec["externalIPs"] == ["10.0.0.5"]


@pytest.mark.parametrize("name", ["trustBundle", "manifestTrustBundle"])
def test_a_changed_trust_bundle_restarts_the_daemon(name: str) -> None:
    assert pod(f'{name}="-----BEGIN CERTIFICATE-----"') != pod()


def test_a_provisioning_service_takes_the_place_of_device_and_hub() -> None:
    without = ('gateway.deviceId=""', 'gateway.iothubHostname=""')
    dps = 'dps={"idScope":"0ne1","registrationId":"plant07","key":"group"}'
    env = {entry["name"]: entry.get("value") for entry in pod(*without, dps)["spec"]["containers"][0]["env"]}
    assert {name: value for name, value in env.items() if "DPS" in name} == {
        "EDGEHA_DPS_ENDPOINT": "global.azure-devices-provisioning.net",
        "EDGEHA_DPS_ID_SCOPE": "0ne1",
        "EDGEHA_DPS_REGISTRATION_ID": "plant07",
        "EDGEHA_DPS_KEY": "group",
    }
    assert (env["EDGEHA_DEVICE_ID"], env["EDGEHA_IOTHUB_HOSTNAME"]) == ("", "")
    assert "dps.registrationId is missing" in template(*without, 'dps.idScope="0ne1"').stderr


def test_the_key_comes_from_a_secret_or_from_a_secret_store() -> None:
    store = ('credential.existingSecret=""', 'credential.secretProviderClass="vault"')
    volumes = {volume["name"]: volume for volume in pod(*store)["spec"]["volumes"]}
    assert volumes["credential"]["csi"]["driver"] == "secrets-store.csi.k8s.io"
    assert volumes["credential"]["csi"]["volumeAttributes"] == {"secretProviderClass": "vault"}
    assert (
        "give either credential.existingSecret" in template('credential.secretProviderClass="vault"').stderr
    )


def test_a_device_may_prove_itself_by_a_certificate() -> None:
    def proof(*sets: str) -> tuple[set[str], list[str]]:
        spec = pod(*sets)["spec"]
        names = {entry["name"] for entry in spec["containers"][0]["env"] if "_DEVICE_" in entry["name"]}
        volume = next(volume for volume in spec["volumes"] if volume["name"] == "credential")
        return names - {"EDGEHA_DEVICE_ID"}, [item["key"] for item in volume["secret"]["items"]]

    assert proof() == ({"EDGEHA_DEVICE_KEY_FILE"}, ["device-key"])
    assert proof('credential.type="x509"') == (
        {"EDGEHA_DEVICE_CERTIFICATE_FILE", "EDGEHA_DEVICE_PRIVATE_KEY_FILE"},
        ["tls.crt", "tls.key"],
    )


def test_only_the_gateways_modules_reach_the_daemon_and_only_edge_agent_manages() -> None:
    policy = objects()[("NetworkPolicy", "gw-daemon")]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["ingress"]}
    own = OWN_MODULES
    assert by_port == {
        "workload": [{"podSelector": {"matchLabels": own}}],
        "management": [
            {"podSelector": {"matchLabels": own | {"net.azure-devices.edge.module": "edgeAgent"}}}
        ],
        "health": None,
    }
    assert ("NetworkPolicy", "gw-daemon") not in objects("networkPolicy.enabled=false")


OWN_MODULES = {
    "app.kubernetes.io/name": "edge-runtime",
    "app.kubernetes.io/instance": "gw",
    "app.kubernetes.io/component": "module",
}
AGENT = 'edgeAgent.image="r/agent:1"'


def test_a_module_that_publishes_nothing_is_for_its_own_gateway_alone() -> None:
    spec = objects()[("NetworkPolicy", "gw-modules")]["spec"]
    assert spec["podSelector"] == {
        "matchLabels": OWN_MODULES,
        "matchExpressions": [
            {"key": PUBLISHED_LABEL, "operator": "DoesNotExist"},
            {"key": MODULE_LABEL, "operator": "NotIn", "values": ["edgeAgent", "edgeHub"]},
        ],
    }
    assert spec["policyTypes"] == ["Ingress"], "what a module reaches is its own matter"
    assert spec["ingress"] == [{"from": [{"podSelector": {"matchLabels": OWN_MODULES}}]}]
    assert ("NetworkPolicy", "gw-modules") not in objects("networkPolicy.enabled=false")


def test_edge_hub_is_for_devices_and_for_gateways_below_and_for_no_other() -> None:
    def peers(*sets: str) -> list[Any]:
        spec = objects(AGENT, *sets)[("NetworkPolicy", "gw-gateway")]["spec"]
        assert spec["podSelector"] == {
            "matchLabels": OWN_MODULES | {MODULE_LABEL: "edgeHub"},
            "matchExpressions": [{"key": OUTSIDE_LABEL, "operator": "DoesNotExist"}],
        }
        rule, metrics = spec["ingress"]
        assert metrics == {"ports": [{"port": 9600, "protocol": "TCP"}]}, "the API's proxy is on a machine"
        assert rule.keys() == {"from"}
        found: list[Any] = rule["from"]
        return found

    no_gateway = {"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["edge-runtime"]}
    usual = [
        {"podSelector": {"matchLabels": OWN_MODULES}},
        {"namespaceSelector": {}, "podSelector": {"matchExpressions": [no_gateway]}},
    ]
    assert peers() == usual
    assert peers('networkPolicy.gatewaysBelow=[{"name":"line","namespace":"edge-line"}]') == [
        *usual,
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge-line"}},
            "podSelector": {
                "matchLabels": {
                    "app.kubernetes.io/name": "edge-runtime",
                    "app.kubernetes.io/instance": "line",
                }
            },
        },
    ]


@pytest.mark.parametrize(
    "change", ['exposure.type="NodePort"', 'exposure.type="LoadBalancer"', 'exposure.address="10.0.0.5"']
)
def test_what_comes_from_outside_of_the_cluster_to_edge_hub_meets_no_policy(change: str) -> None:
    assert ("NetworkPolicy", "gw-gateway") in objects(AGENT)
    assert ("NetworkPolicy", "gw-gateway") not in objects(AGENT, change)


def test_no_new_daemon_waits_for_one_on_a_machine_without_power() -> None:
    found = objects(AGENT, STANDBY)
    for slot in "ab":
        strategy = found[("Deployment", f"gw-daemon-{slot}")]["spec"]["strategy"]
        assert strategy == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
        }


def test_a_drain_never_waits_for_the_daemon_and_gateways_are_spread() -> None:
    budget = objects()[("PodDisruptionBudget", "gw-daemon-a")]["spec"]
    assert budget["maxUnavailable"] == 1
    (term,) = pod()["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["namespaceSelector"] == {}, "each gateway has a namespace of its own"
    # One of the same gateway that still ends is no reason to go elsewhere than to the modules.
    others = {"key": "app.kubernetes.io/instance", "operator": "NotIn", "values": ["gw"]}
    assert term["podAffinityTerm"]["labelSelector"]["matchExpressions"] == [others]


def test_the_edge_ca_comes_from_a_secret_and_from_nowhere_else() -> None:
    def edge_ca(spec: dict[str, Any]) -> tuple[list[str], list[Any]]:
        names = [entry["name"] for entry in spec["containers"][0]["env"] if "EDGE_CA" in entry["name"]]
        return names, [volume["secret"] for volume in spec["volumes"] if volume["name"] == "edge-ca"]

    assert edge_ca(pod()["spec"]) == ([], [])
    names, secrets = edge_ca(pod('edgeCa.existingSecret="plant-ca"')["spec"])
    assert names == ["EDGEHA_EDGE_CA_CERTIFICATE_FILE", "EDGEHA_EDGE_CA_KEY_FILE"]
    assert [secret["secretName"] for secret in secrets] == ["plant-ca"]
    assert secrets[0]["defaultMode"] == 0o440


STANDBY = "standby.enabled=true"


def test_a_standby_is_a_second_daemon_on_another_machine() -> None:
    found = objects(STANDBY)
    a, b = (found[("Deployment", f"gw-daemon-{slot}")]["spec"] for slot in "ab")
    assert ("Deployment", "gw-daemon-b") not in objects()
    for slot, spec in (("a", a), ("b", b)):
        labels = spec["template"]["metadata"]["labels"]
        assert labels["iotedge.edgeha.io/slot"] == slot
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        (gate,) = spec["template"]["spec"]["initContainers"]
        assert (gate["args"], gate["env"]) == (["gate"], [{"name": "EDGEHA_SLOT", "value": slot}])
        apart = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
        (term,) = apart["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"]["matchExpressions"][0]["values"] == [slot]
        env = {
            entry["name"]: entry.get("value") for entry in spec["template"]["spec"]["containers"][0]["env"]
        }
        assert (env["EDGEHA_SLOT"], env["EDGEHA_SLOTS"]) == (slot, "a,b")
    # Where one machine is left, that is for the slot that works.
    names = [spec["template"]["spec"]["priorityClassName"] for spec in (a, b)]
    values = [found[("PriorityClass", name)]["value"] for name in names]
    assert values[0] > values[1]
    env = {entry["name"]: entry.get("value") for entry in a["template"]["spec"]["containers"][0]["env"]}
    assert env["EDGEHA_STANDBY_PRIORITY_CLASS"] == names[1]
    # Both mount the claim, and so both machines can.
    assert a["template"]["spec"]["volumes"] == b["template"]["spec"]["volumes"]
    assert "standby.enabled with storage.accessMode ReadWriteOnce" in (
        template(STANDBY, 'storage.accessMode="ReadWriteOnce"').stderr
    )


def test_services_lead_to_the_active_slot_and_each_slot_can_be_drained() -> None:
    found = objects(STANDBY, 'edgeAgent.image="r/agent:1"')
    for name in ("gw-daemon", "gw-gateway"):
        assert found[("Service", name)]["spec"]["selector"]["iotedge.edgeha.io/slot"] == "a"
    # A standby is not ready, and one budget for both would let nobody go.
    for slot in "ab":
        budget = found[("PodDisruptionBudget", f"gw-daemon-{slot}")]["spec"]
        assert budget["selector"]["matchLabels"]["iotedge.edgeha.io/slot"] == slot
        assert budget["maxUnavailable"] == 1


def test_machines_of_the_gateway_are_chosen_by_their_labels() -> None:
    assert "nodeSelector" not in pod()["spec"]
    assert pod('nodeSelector={"plant":"7"}')["spec"]["nodeSelector"] == {"plant": "7"}


def test_tokens_count_from_their_own_pod_unless_the_cluster_rewrites_addresses() -> None:
    def told(*sets: str) -> dict[str, Any]:
        return {entry["name"]: entry.get("value") for entry in pod(*sets)["spec"]["containers"][0]["env"]}

    assert told()["EDGEHA_CHECK_CALLER_ADDRESS"] == "true"
    assert told("callers.checkAddress=false")["EDGEHA_CHECK_CALLER_ADDRESS"] == "false"


def test_no_module_mounts_what_the_device_proves_itself_by() -> None:
    def own(*sets: str) -> str:
        env = pod(*sets)["spec"]["containers"][0]["env"]
        return str(next(entry["value"] for entry in env if entry["name"] == "EDGEHA_OWN_SECRETS"))

    assert own('edgeCa.existingSecret="ca"') == "plant07-gw-credential,ca"
    assert own('credential={"existingSecret":"","secretProviderClass":"vault"}') == "vault"


def test_a_changed_chart_digest_is_visible_and_restarts_nothing() -> None:
    change = 'chartDigest="sha256:1"'
    assert pod(change) == pod()
    annotations = objects(change)[("Deployment", "gw-daemon-a")]["metadata"]["annotations"]
    assert annotations == {"edgeha/chart-digest": "sha256:1"}


def test_the_claim_outlives_the_release() -> None:
    claim = objects()[("PersistentVolumeClaim", "gw-state")]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_rights_are_the_least_and_in_the_namespace_of_the_gateway() -> None:
    found = objects()
    assert not [key for key in found if key[0] == "ClusterRole"]
    rules = {
        (group, resource): (set(rule["verbs"]), rule.get("resourceNames"))
        for rule in found[("Role", "gw-daemon")]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rules == {
        ("", "configmaps"): ({"get", "list", "watch"}, ["gw-modules"]),
        ("", "serviceaccounts"): ({"get", "list", "create", "patch", "delete"}, None),
        ("", "services"): ({"get", "list", "create", "patch", "delete"}, None),
        ("", "persistentvolumeclaims"): ({"get", "create", "patch"}, None),
        ("", "pods"): ({"list", "watch", "create", "patch", "delete"}, None),
        ("apps", "daemonsets"): ({"create", "patch", "delete"}, None),
        ("", "events"): ({"create", "list"}, None),
        ("", "pods/log"): ({"get"}, None),
        ("", "secrets"): ({"create", "patch", "delete"}, None),
    }
    (binding,) = [item for key, item in found.items() if key[0] == "ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == "system:auth-delegator"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "gw-daemon", "namespace": "edge-gw"}]


def test_the_daemon_meets_the_restricted_pod_standard_and_the_key_comes_from_the_secret() -> None:
    spec = pod()["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (secret,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert secret["secretName"] == "plant07-gw-credential"
    assert not [key for key in objects() if key[0] == "Secret"]


def test_objects_outside_the_namespace_are_told_apart_by_namespace_and_release() -> None:
    for kind in ("PriorityClass", "ClusterRoleBinding"):
        assert (kind, "edge-gw-gw-gateway") in objects()
