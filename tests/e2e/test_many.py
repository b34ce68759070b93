# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several gateways of one run: each that cannot start is told with its reason, and keeps no other waiting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import DEPLOYMENT
from tests.e2e.lab import Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks, Run

CLASS = "e2e-no-provisioner"
TIMEOUT_SECONDS = 40
# Sends one request with address and token of standard input; prints the status.
ASK = """
import json, ssl, sys, urllib.error, urllib.request
url, token = json.load(sys.stdin)
context = ssl._create_unverified_context()
body = b'{"keyId": "primary", "algo": "HMACSHA256", "data": "dGVzdA=="}'
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
request = urllib.request.Request(url, body, headers)
try:
    print(urllib.request.urlopen(request, context=context, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture(scope="module")
def gateways(new_gateway: Callable[[str], Gateway]) -> dict[str, Gateway]:
    return {name: new_gateway(f"e2e-{name}") for name in ("well", "image", "volume", "quota")}


@pytest.fixture(scope="module")
def run(lab: Lab, playbooks: Playbooks, gateways: dict[str, Gateway]) -> Iterator[Run]:
    """A run with one gateway that is well and three that cannot start."""
    lab.kubectl("create", "--filename", "-", data={
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": CLASS},
        "provisioner": "edgeha.test/nobody",
    })  # fmt: skip
    quota = gateways["quota"].namespace
    lab.kubectl("create", "namespace", quota)
    lab.kubectl("create", "quota", "none", "--hard=pods=0", "--namespace", quota)

    def entry(name: str, **more: Any) -> dict[str, Any]:
        return {"name": gateways[name].name, "deployment": DEPLOYMENT, **more}

    site = {
        "edge_runtime_timeout": f"{TIMEOUT_SECONDS}s",
        "edge_gateways": [
            entry("image", chart_values={"image": {"tag": "never-built"}}),
            entry("volume", storage={"class": CLASS}),
            entry("quota"),
            entry("well"),
        ],
    }
    try:
        yield playbooks.run("site.yml", variables=site)
    finally:
        lab.kubectl("delete", "storageclass", CLASS)


def of(text: str, gateway: Gateway) -> str:
    """What a report says of one gateway."""
    found = text.partition(f"Gateway {gateway.name}:")[2]
    return re.sub(r"\s+", " ", re.split(r"Gateway e2e-|Origin:", found.replace("\\n", " "))[0])


def test_each_that_cannot_start_is_told_with_its_reason(run: Run, gateways: dict[str, Gateway]) -> None:
    assert run.code != 0
    assert run.recap["lab"][1] == 1
    for name, reason in (
        ("image", r"Pod e2e-image-\S+ on \S+: container daemon: (ErrImagePull|ImagePullBackOff)"),
        ("volume", r"Pod e2e-volume-\S+ on no node: not scheduled: .*unbound .*PersistentVolumeClaims"),
        ("quota", r"The cluster makes no pod of it: .*exceeded quota: none"),
    ):
        told = of(run.text, gateways[name])
        assert f"its daemon is not ready after {TIMEOUT_SECONDS}s" in told, run.text[-3000:]
        assert re.search(reason, told), told
    assert of(run.text, gateways["well"]) == ""


def test_the_one_that_is_well_is_kept_from_nothing(lab: Lab, run: Run, gateways: dict[str, Gateway]) -> None:
    assert run.code != 0
    wait_for("messages of the one", lambda: lab.messages(gateways["well"].name), 60)


def test_what_was_wrong_is_put_right_by_the_next_run(
    lab: Lab, playbooks: Playbooks, run: Run, gateways: dict[str, Gateway]
) -> None:
    assert run.code != 0
    lab.kubectl("delete", "quota", "none", "--namespace", gateways["quota"].namespace)
    entries = [{"name": gateways[name].name, "deployment": DEPLOYMENT} for name in ("image", "quota", "well")]
    playbooks.run("site.yml", variables={"edge_gateways": entries}).finished()
    for name in ("image", "quota"):
        wait_for(f"messages of {name}", lambda name=name: lab.messages(gateways[name].name), 60)


def test_a_gateway_is_nothing_to_the_daemon_of_another(
    lab: Lab, run: Run, gateways: dict[str, Gateway]
) -> None:
    """Even with a token that the cluster itself made for that daemon's audience, and on the way to it."""
    one, other = gateways["well"], gateways["image"]
    (pod,) = [pod for pod in lab.pods(one, "module") if not pod["metadata"].get("deletionTimestamp")]
    account = pod["spec"]["serviceAccountName"]

    def ask(audience: str, gateway: Gateway, module: dict[str, Any]) -> str:
        token = lab.kubectl(
            "create", "token", account, "--audience", audience, "--duration=10m", "--namespace", one.namespace
        ).strip()
        path = f"/modules/sensor/genid/{module['generationId']}/sign?api-version=2020-07-07"
        url = f"https://{gateway.name}-daemon.{gateway.namespace}.svc:35001{path}"
        name = pod["metadata"]["name"]
        words = ("exec", "--stdin", name, "--namespace", one.namespace, "--container", "module")
        return lab.kubectl(*words, "--", "python3", "-c", ASK, data=[url, token]).strip()

    def audience_of(gateway: Gateway) -> str:
        spec = json.dumps(lab.get("pods", "--namespace", gateway.namespace))
        return re.findall(r'"audience": "([^"]+)"', spec)[0]

    foreign = lab.module(other.name, "sensor")
    assert ask(audience_of(other), other, foreign) == "403"
    assert ask(audience_of(one), other, foreign) == "401"
    said = f"ServiceAccount {one.namespace}/{account} is no module of this gateway"
    words = ("logs", f"--namespace={other.namespace}", f"deployment/{other.name}-daemon-a")
    # What a container prints is in its log a moment later.
    wait_for("the refusal in the log", lambda: said in lab.kubectl(*words), 10)
