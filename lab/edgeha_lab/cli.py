# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's verbs. Each can be repeated: it does what is missing and nothing else."""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from edgeha_lab import (
    build,
    cluster,
    engine,
    faults,
    host,
    hub,
    k3s,
    machines,
    network_policy,
    paths,
    vm_image,
    vms,
)
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, fail, say, step


def main(words: list[str]) -> int:
    arguments = _parser().parse_args(words)
    try:
        return int(arguments.run(arguments) or 0)
    except LabError as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail(
            LabError("interrupted; the same command goes on from here, 'lab down' removes what there is")
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument(
        "--name", default="demo", type=_instance, help="which lab, when there are several (demo)"
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    verb("build", _build, "build Kubernetes, the node image and the module images; keep them by content")
    up = verb("up", _up, "build what is missing, then start cluster and IoT Hub emulator, or bare machines")
    up.add_argument(
        "--topology",
        choices=["kind", "k3s", "vm"],
        help="kind: 1 control plane and 2 workers (default); k3s: bare machines with sshd; "
        "vm: a virtual machine with a kernel of its own",
    )
    up.add_argument("--servers", type=int, metavar="N", help="bare machines for servers (3)")
    up.add_argument("--agents", type=int, metavar="N", help="bare machines for agents (0)")
    up.add_argument("--k3s", action="store_true", help="with a mirror of k3s releases for the bare machines")
    k3s_parser = verb(
        "k3s", _k3s, "build the k3s work-alike; 'k3s mirror' serves it to an instance's machines"
    )
    k3s_parser.add_argument("action", nargs="?", choices=["build", "mirror"], default="build")
    k3s_parser.add_argument("what", nargs="?", choices=["start", "stop"], default="start")
    hub_parser = verb(
        "hub", _hub, "start the IoT Hub emulator; 'hub stop' ends it, 'hub log' shows its messages"
    )
    hub_parser.add_argument("action", nargs="?", choices=["start", "stop", "log"], default="start")
    hub_parser.add_argument(
        "--clock-offset", type=float, default=0.0, metavar="SECONDS", help="how far the hub's clock is ahead"
    )
    hub_parser.add_argument(
        "rest", nargs=argparse.REMAINDER, help="for log: --json, --follow, --device D, --after N"
    )
    policy = verb(
        "network-policy",
        _network_policy,
        "let the kind cluster enforce NetworkPolicies; 'network-policy stop' takes that away",
    )
    policy.add_argument("action", nargs="?", choices=["start", "stop", "build"], default="start")
    fault = verb("fault", _fault, "take the power from a node, or give it back")
    fault.add_argument(
        "kind", choices=["power", "heal", "wipe"], help="wipe: a new, empty machine in its place"
    )
    fault.add_argument("node", help="a node's name, or its end: worker2")
    status = verb("status", _status, "what runs")
    status.add_argument("--json", action="store_true", help="for machines")
    verb("env", _env, "print exports for a shell: eval $(lab/lab env)")
    verb("down", _down, "remove everything this lab made")
    verb("clean", _clean, "remove all labs, builds and logs")
    return parser


def _instance(text: str) -> Instance:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a lab's name: a-z, 0-9 and '-', at most 20")
    return Instance(text)


@contextmanager
def _alone() -> Iterator[None]:
    """Two labs share one engine and one cache: one command changes them at a time."""
    paths.home().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (paths.home() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("waiting for another lab command to end"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(_: argparse.Namespace) -> None:
    with _alone():
        build.build()
        if not paths.instances():
            engine.stop()


def _up(arguments: argparse.Namespace) -> None:
    instance: Instance = arguments.name
    numbers = (arguments.servers, arguments.agents)
    with _alone():
        before = cluster.known(instance).get("topology")
        topology = arguments.topology or before or "kind"
        if before not in (None, topology):
            raise LabError(f"lab {instance.name} is of topology {before}: 'lab down' first, or take --name")
        if topology != "k3s" and numbers != (None, None):
            has = "the kind cluster has 3 nodes" if topology == "kind" else "there is one virtual machine"
            raise LabError(f"--servers and --agents go with --topology k3s: {has}")
        host.raise_limits()
        if arguments.k3s and topology != "k3s":
            raise LabError("--k3s goes with --topology k3s: it is for bare machines")
        if topology == "k3s":
            image = build.machine_image()
            if arguments.k3s or k3s.is_wanted(instance):
                k3s.start_mirror(instance, cluster.network(instance))
            machines.up(instance, image, *numbers)
            return
        if topology == "vm":
            vms.up(instance, vm_image.make())
            return
        cluster.up(instance, build.build())
        hub.start(instance, cluster.known(instance)["gateway"])


def _k3s(arguments: argparse.Namespace) -> None:
    instance: Instance = arguments.name
    with _alone():
        if arguments.action == "build":
            say(f"k3s releases: {k3s.releases()}")
            if not paths.instances():
                engine.stop()
        elif arguments.what == "stop":
            k3s.stop_mirror(instance)
        elif cluster.is_of_machines(instance):
            k3s.start_mirror(instance, cluster.known(instance)["gateway"])
            machines.write_inventory(instance)
        else:
            raise LabError(f"lab {instance.name} has no bare machines: 'lab up --topology k3s' first")


def _network_policy(arguments: argparse.Namespace) -> None:
    if arguments.action == "stop":
        network_policy.stop(arguments.name)
        return
    with _alone():
        enforcer = network_policy.make()
        if not paths.instances():
            engine.stop()
    if arguments.action == "start":
        network_policy.start(arguments.name, enforcer)


def _hub(arguments: argparse.Namespace) -> int:
    instance: Instance = arguments.name
    if arguments.action == "log":
        return hub.log(instance, arguments.rest)
    if arguments.rest:
        raise LabError(f"'hub {arguments.action}' does not know {' '.join(arguments.rest)}")
    if arguments.action == "stop":
        hub.stop(instance)
        return 0
    gateway = cluster.known(instance).get("gateway")
    if gateway is None:
        raise LabError(f"lab {instance.name} is not up: 'lab up' makes the network that its hub listens in")
    hub.start(instance, gateway, arguments.clock_offset)
    return 0


def _fault(arguments: argparse.Namespace) -> None:
    {"power": faults.power, "heal": faults.heal, "wipe": faults.wipe}[arguments.kind](
        arguments.name, arguments.node
    )


def _status(arguments: argparse.Namespace) -> None:
    running = engine.is_running()
    report = {
        "home": str(paths.home()),
        "engine": "none"
        if not running
        else "own"
        if "DOCKER_HOST" in engine.environment()
        else "this machine's",
        "labs": {
            instance.name: {
                "topology": cluster.known(instance).get("topology"),
                "nodes": _nodes(instance, running),
                "hub": cluster.known(instance).get("gateway") if hub.pid(instance) else None,
                **_way_in(instance),
            }
            for instance in paths.instances()
        },
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"lab home   {report['home']}\nengine     {report['engine']}")
    labs: dict[str, dict[str, object]] = report["labs"]  # type: ignore[assignment]
    for name, lab in labs.items():
        way_in = lab.get("kubeconfig") or lab.get("inventory")
        print(f"lab {name}: topology {lab['topology']}, hub {lab['hub'] or 'stopped'}, {way_in}")
        node_states: dict[str, str] = lab["nodes"]  # type: ignore[assignment]
        for node, state in node_states.items():
            print(f"  {node:<32} {state}")
    if not labs:
        print("no lab is up")


def _nodes(instance: Instance, engine_runs: bool) -> dict[str, str]:
    if vms.is_of(instance):
        return vms.nodes(instance)
    return cluster.nodes(instance) if engine_runs else {}


def _way_in(instance: Instance) -> dict[str, str]:
    """What an operator holds in the hand: a kubeconfig, or the inventory of bare machines."""
    if cluster.is_of_machines(instance):
        return {"inventory": str(machines.inventory(instance))}
    return {"kubeconfig": str(instance.kubeconfig)}


def _env(arguments: argparse.Namespace) -> None:
    instance: Instance = arguments.name
    if cluster.is_of_machines(instance):
        print(f"export ANSIBLE_INVENTORY={machines.inventory(instance)}")
    else:
        print(f"export KUBECONFIG={instance.kubeconfig}")
        print(f"export KUBECACHEDIR={instance.folder / 'kube-cache'}")
    print(f"export EDGEHA_LAB_STATE={instance.folder}")
    print(f"export PATH={paths.binaries()}:$PATH")
    if engine.is_running():
        for name, value in engine.environment().items():
            print(f"export {name}={value}")


def _down(arguments: argparse.Namespace) -> None:
    instance: Instance = arguments.name
    with _alone():
        _remove(instance)


def _remove(instance: Instance) -> None:
    if instance.folder.exists():
        k3s.stop_mirror(instance)
        if vms.is_of(instance):
            vms.down(instance)
        cluster.down(instance, paths.binaries() / "kind")
    if not paths.instances():
        engine.stop()
        host.restore_limits()
    say(f"lab {instance.name} is down; builds stay in {paths.cache()} ('lab clean' removes them)")


def _clean(_: argparse.Namespace) -> None:
    with _alone():
        for instance in paths.instances():
            _remove(instance)
        engine.stop()
        shutil.rmtree(paths.home() / "run", ignore_errors=True)
        shutil.rmtree(paths.cache(), ignore_errors=True)
    say(f"{paths.cache()} is removed")
