# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A worker loses its power: messages flow again from the other one, with the daemon's state kept.

How long it takes is measured and told, and no time but the limit is asserted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import FirstRun
from tests.e2e.lab import ROOT, Gateway, Lab, Message, digest, is_ready, wait_for

AGAIN_LIMIT_SECONDS = 300
HEALED_LIMIT_SECONDS = 180
READY_LIMIT_SECONDS = 90
MESSAGES_LIMIT_SECONDS = 30

pytestmark = pytest.mark.slow


def test_messages_flow_again_from_the_other_worker(
    lab: Lab, gateway: Gateway, first_run: FirstRun, measured: Callable[[str], None]
) -> None:
    pods = [lab.ready_pod(gateway, part, READY_LIMIT_SECONDS) for part in ("daemon", "module")]
    (worker,) = {pod["spec"]["nodeName"] for pod in pods}
    wait_for("messages before the power cut", lambda: news(lab, gateway, worker), MESSAGES_LIMIT_SECONDS)
    before = state(lab, gateway)
    with power_cut(lab, worker):
        began = time.monotonic()
        last = lab.messages(gateway.name)[-1]
        first = wait_for(
            f"messages from another worker than {worker}",
            lambda: [found for found in lab.messages(gateway.name, last.seq) if found.node != worker],
            AGAIN_LIMIT_SECONDS,
        )[0]
        measured(f"power cut without a standby: messages flow again after {time.monotonic() - began:.0f} s")
        assert lab.ready_pod(gateway, "daemon", READY_LIMIT_SECONDS)["spec"]["nodeName"] != worker
        assert state(lab, gateway) == before
        wait_for(
            "Services that lead to no pod of the lost worker",
            lambda: not led_to(lab, gateway) & {pod["metadata"]["name"] for pod in pods},
            READY_LIMIT_SECONDS,
        )
        assert led_to(lab, gateway)
        # An upgrade and a rollback wait for nothing of it either.
        chart, where = str(ROOT / "charts/edge-runtime"), ("--namespace", gateway.namespace)
        # What makes another daemon and no other module.
        bundle = f"--set-string=trustBundle={lab.ca_file.read_text()}\n# a newer one\n"
        for words in (
            ("upgrade", gateway.name, chart, "--reuse-values", bundle, *where),
            ("rollback", gateway.name, "0", *where),
        ):
            known = {pod["metadata"]["uid"] for pod in lab.pods(gateway, "daemon")}
            lab.helm(*words)
            wait_for("a new daemon", lambda known=known: new_daemon(lab, gateway, known), READY_LIMIT_SECONDS)
        assert state(lab, gateway) == before

    wait_for(f"{worker} to be Ready again", lambda: is_ready(lab.get("node", worker)), HEALED_LIMIT_SECONDS)
    wait_for(
        "the lost pods to be gone",
        lambda: [len(lab.pods(gateway, part)) for part in ("daemon", "module")] == [1, 1],
        HEALED_LIMIT_SECONDS,
        pause=1,
    )
    healed = lab.messages(gateway.name)[-1]
    wait_for(
        "ten messages after the worker came back",
        lambda: len(lab.messages(gateway.name, healed.seq)) >= 10,
        MESSAGES_LIMIT_SECONDS,
        pause=1,
    )
    # One process has sent all that came after the cut, and left out none.
    after = lab.messages(gateway.name, last.seq)
    assert {message.boot for message in after} == {first.boot}
    assert first.boot != last.boot
    assert [message.sequence for message in after] == list(range(1, len(after) + 1))
    assert state(lab, gateway) == before


def led_to(lab: Lab, gateway: Gateway) -> set[str]:
    """Pods that Services of the gateway lead to."""
    slices = lab.get("endpointslices", f"--namespace={gateway.namespace}")["items"]
    return {
        endpoint["targetRef"]["name"]
        for one in slices
        for endpoint in one["endpoints"] or ()
        if endpoint["conditions"].get("ready", True)
    }


def new_daemon(lab: Lab, gateway: Gateway, known: set[str]) -> bool:
    """Whether a daemon is ready that is none of those known (by uid)."""
    return any(
        is_ready(pod) and pod["metadata"]["uid"] not in known and not pod["metadata"].get("deletionTimestamp")
        for pod in lab.pods(gateway, "daemon")
    )


def news(lab: Lab, gateway: Gateway, worker: str) -> list[Message]:
    """Messages that arrived from this worker last."""
    return [message for message in lab.messages(gateway.name)[-3:] if message.node == worker]


def state(lab: Lab, gateway: Gateway) -> dict[str, str]:
    """What must outlive a worker: identity, keys (their digests) and the claim."""
    sensor = lab.module(gateway.name, "sensor")
    claim = lab.get("persistentvolumeclaims", f"{gateway.name}-state", "--namespace", gateway.namespace)
    folder = lab.state_folder(gateway)
    return {
        "generation of the sensor": sensor["generationId"],
        "keys of the sensor": str(hash(str(sensor["authentication"]["symmetricKey"]))),
        "claim": claim["metadata"]["uid"],
        "volume": claim["spec"]["volumeName"],
        "master key": digest(folder / "master-key.json"),
        "identities": digest(folder / "identities.json"),
    }


@contextlib.contextmanager
def power_cut(lab: Lab, worker: str) -> Iterator[None]:
    """The worker has no power as long as the block goes on."""
    lab.lab("fault", "power", worker)
    try:
        yield
    finally:
        lab.lab("fault", "heal", worker)
