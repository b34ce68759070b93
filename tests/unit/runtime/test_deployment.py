# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What edgeAgent asked for is on disk before it is answered, and is never more than can be."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from edgeha_runtime.daemon import deployment, keystore, moduleset
from edgeha_runtime.daemon.deployment import (
    Deployed,
    Deployment,
    ModuleExistsError,
    SpecError,
    UnknownModuleError,
)
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.moduleset import Candidate, Module

AGENT: dict[str, Any] = {"name": "edgeAgent", "image": "r/agent:1", "env": {"RuntimeLogLevel": "debug"}}
BASE: list[dict[str, Any]] = [AGENT, {"name": "hub", "image": "r/hub:1"}]
# Seconds; nothing here takes long.
LIMIT = 60
OWNER = Owner("gw-1", "hub.example.net")


def spec(name: str = "m", image: str = "r/m:1", **options: Any) -> dict[str, Any]:
    settings = {"image": image, "createOptions": options}
    return {"name": name, "type": "docker", "config": {"settings": settings}}


def bound(name: str, port: str) -> dict[str, Any]:
    return spec(name, HostConfig={"PortBindings": {"443/tcp": [{"HostPort": port}]}})


_SECRET = {"name": "v", "secret": {"secretName": "gw-device-key"}}
OF_THE_GATEWAY: dict[str, Any] = {"k8s-extensions": {"volumes": [{"volume": _SECRET, "volumeMounts": []}]}}


class Gateway:
    """A deployment on a real store, beside the modules of a chart."""

    def __init__(self, folder: Path, agent: dict[str, Any] | None = AGENT) -> None:
        self.store = KeyStore.open(folder, OWNER)
        self.changes = 0
        self.deployment = Deployment(
            self.store,
            read=lambda deployed: deployment.read(deployed, "gw", frozenset({"gw-device-key"})),
            check=self._check,
            changed=self._changed,
        )
        self.deployment.set_agent(agent)

    @staticmethod
    def _check(candidates: list[Candidate]) -> dict[str, str]:
        taken = {candidate.name for candidate in candidates} & {"edgeAgent"}
        base = [moduleset.from_entry(entry, 0, "gw") for entry in BASE if entry["name"] not in taken]
        return moduleset.assemble([*base, *candidates], "gw").refused

    def _changed(self) -> None:
        self.changes += 1

    def module(self, name: str = "m") -> Module:
        """The module as it is to be made."""
        (found,) = (each.module for each in self.deployment.candidates if each.name == name)
        assert found is not None
        return found


def asked_of(gateway: Gateway, name: str = "m") -> tuple[Any, ...]:
    """What was asked of a module: its spec, whether it runs, its runs before, how the last one ended."""
    found = gateway.deployment.modules[name]
    return found.spec, found.running, found.restarts, found.ended


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


async def test_a_created_module_is_there_and_does_not_run_yet(gateway: Gateway) -> None:
    await gateway.deployment.create(spec())
    assert asked_of(gateway) == (spec(), False, 0, None)
    assert (gateway.module().running, gateway.module().deployed) == (False, True)
    assert gateway.changes == 1


async def test_a_change_that_is_cut_off_is_written_to_its_end_before_the_next_one(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.deployment.create(spec())
    keep, begun, go_on = gateway.store.keep_deployment, threading.Event(), threading.Event()
    inside: list[int] = []
    running = 0

    def slow(content: dict[str, Any]) -> None:
        nonlocal running
        running += 1
        inside.append(running)
        begun.set()
        assert go_on.wait(LIMIT)
        keep(content)
        running -= 1

    monkeypatch.setattr(gateway.store, "keep_deployment", slow)
    first = asyncio.create_task(gateway.deployment.run("m", True))
    assert await asyncio.to_thread(begun.wait, LIMIT)
    second = asyncio.create_task(gateway.deployment.restart("m"))
    # As at the end of the daemon, while requests are still answered.
    first.cancel()
    for _turn in range(10):
        await asyncio.sleep(0)
    assert inside == [1], "the first thread still writes"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert inside == [1, 1]
    assert Gateway(tmp_path).deployment.modules == gateway.deployment.modules
    assert (gateway.module().running, gateway.module().restarts) == (True, 1)


async def test_a_daemon_that_starts_anew_has_all_that_was_asked_for(gateway: Gateway, tmp_path: Path) -> None:
    await gateway.deployment.create(spec())
    await gateway.deployment.run("m", True)
    await gateway.deployment.restart("m")
    await gateway.deployment.create(spec("n"))
    await gateway.deployment.remove("n")
    await gateway.deployment.update("edgeAgent", spec("edgeAgent", "r/agent:2"), start=False)
    await gateway.deployment.keep_identity("m")
    await gateway.deployment.keep_identity("n")
    await gateway.deployment.drop_identity("n")
    await gateway.deployment.keep_pull_secrets(frozenset({"gw-m-registry"}))
    again = Gateway(tmp_path)
    assert again.deployment.modules == gateway.deployment.modules
    assert again.module() == gateway.module()
    assert again.module("edgeAgent") == gateway.module("edgeAgent")
    assert len(again.deployment.candidates) == 2
    assert (again.module().running, again.module().restarts) == (True, 1)
    assert again.module("edgeAgent").image == "r/agent:2"
    assert again.deployment.identities == {"m"}
    assert again.deployment.pull_secrets == {"gw-m-registry"}


async def test_names_that_are_taken_are_told_from_modules_that_cannot_be(gateway: Gateway) -> None:
    await gateway.deployment.create(spec())
    with pytest.raises(ModuleExistsError, match="module m exists; update or delete it"):
        await gateway.deployment.create(spec(image="r/m:2"))
    with pytest.raises(ModuleExistsError, match="module edgeAgent exists"):
        await gateway.deployment.create(spec("edgeAgent"))
    with pytest.raises(SpecError, match="another module of that very name"):
        await gateway.deployment.create(spec("hub"))
    assert gateway.module().image == "r/m:1"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "name is no module id.*; type is not docker; config is missing"),
        (spec(Tty=1), "createOptions.Tty: is neither"),
        (spec("M.", HostConfig={"NetworkMode": "none"}), "NetworkMode"),
        (spec(**OF_THE_GATEWAY), "gw-device-key is the gateway's own"),
    ],
)
async def test_a_module_that_cannot_be_is_refused_with_all_reasons_and_nothing_changes(
    gateway: Gateway, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SpecError, match=reason):
        await gateway.deployment.create(wrong)
    assert gateway.deployment.candidates == []
    assert gateway.changes == 0
    assert gateway.store.deployment is None


async def test_a_port_is_that_of_the_module_that_runs_first_and_the_other_one_is_told(
    gateway: Gateway,
) -> None:
    asked = gateway.deployment
    for name, port in (("a", "443"), ("b", "444"), ("c", "443")):
        await asked.create(bound(name, port))
    for name in "ab":
        await asked.run(name, True)
    taken = "its port 443/tcp is that of a too"
    for call in (
        asked.run("c", True),
        asked.restart("c"),
        asked.update("b", bound("b", "443"), start=True),
        asked.update("c", bound("c", "443"), start=True),
    ):
        with pytest.raises(SpecError, match=taken):
            await call
    assert [gateway.module(name).running for name in "abc"] == [True, True, False]
    await asked.update("a", bound("a", "445"), start=True)
    assert await asked.run("c", True)


async def test_two_modules_swap_their_ports_by_the_second_pass(gateway: Gateway) -> None:
    asked = gateway.deployment
    for name, port in (("a", "443"), ("b", "444")):
        await asked.create(bound(name, port))
        await asked.run(name, True)
    wanted = {"a": bound("a", "444"), "b": bound("b", "443")}
    failed = []
    for _pass in range(2):
        # As edgeAgent updates what differs, one module after the other.
        for name, new in wanted.items():
            if asked_of(gateway, name)[:2] == (new, True):
                continue
            asked.prepare(name, new)
            await asked.run(name, False)
            try:
                await asked.update(name, new, start=True)
            except SpecError:
                failed.append(name)
    assert failed == ["a"]
    assert {name: asked_of(gateway, name)[:2] for name in wanted} == {
        name: (new, True) for name, new in wanted.items()
    }


async def test_an_update_replaces_the_spec_is_another_run_and_runs_as_asked(gateway: Gateway) -> None:
    await gateway.deployment.create(spec())
    await gateway.deployment.restart("m")
    await gateway.deployment.update("m", spec(image="r/m:2"), start=False)
    assert asked_of(gateway) == (spec(image="r/m:2"), False, 2, None)
    assert gateway.module().image == "r/m:2"
    await gateway.deployment.update("m", spec(image="r/m:3"), start=True)
    assert (gateway.module().running, gateway.module().image) == (True, "r/m:3")


async def test_preparing_judges_and_changes_nothing(gateway: Gateway) -> None:
    gateway.deployment.prepare("new", spec("new"))
    await gateway.deployment.create(spec())
    gateway.deployment.prepare("m", spec(image="r/m:2"))
    assert gateway.module().image == "r/m:1"
    with pytest.raises(SpecError, match="type is not docker"):
        gateway.deployment.prepare("m", spec() | {"type": "vm"})
    with pytest.raises(SpecError, match="name is not m, which the path says"):
        gateway.deployment.prepare("m", spec("other"))
    with pytest.raises(SpecError, match="name is not m"):
        await gateway.deployment.update("m", spec("other"), start=True)


async def test_start_and_stop_say_whether_they_changed_anything(gateway: Gateway) -> None:
    await gateway.deployment.create(spec())
    asked = [await gateway.deployment.run("m", running) for running in (False, True, True, False)]
    assert asked == [False, True, False, True]
    assert gateway.changes == 3


async def test_a_restart_starts_a_module_that_was_stopped(gateway: Gateway) -> None:
    await gateway.deployment.create(spec())
    for count in (1, 2):
        await gateway.deployment.restart("m")
        assert (gateway.module().running, gateway.module().restarts) == (True, count)


async def test_a_stop_is_the_end_of_a_run_and_the_start_after_it_another_one(gateway: Gateway) -> None:
    await gateway.deployment.create(spec())
    runs = []
    for _again in range(2):
        await gateway.deployment.run("m", True)
        runs.append(gateway.module().restarts)
        await gateway.deployment.run("m", False)
    assert len(set(runs)) == 2


END = {
    "code": 3,
    "at": "2026-03-01T10:01:07+00:00",
    "reason": "Error",
    "started": "2026-03-01T10:00:05+00:00",
}


async def ended(gateway: Gateway) -> int:
    """A module that ended by itself. Answers which run that was."""
    await gateway.deployment.create(spec())
    await gateway.deployment.run("m", True)
    run = gateway.module().restarts
    assert await gateway.deployment.note_end("m", run, END)
    return run


async def test_an_end_is_noted_and_is_there_after_a_restart_of_the_daemon(
    gateway: Gateway, tmp_path: Path
) -> None:
    await ended(gateway)
    for found in (gateway, Gateway(tmp_path)):
        assert found.deployment.ended("m") == END
        assert found.module().running, "that it ended is nothing that was asked for"
    assert gateway.deployment.ended("hub") is None


async def test_only_an_end_of_the_run_that_is_meant_is_noted(gateway: Gateway) -> None:
    asked = gateway.deployment
    await asked.create(spec())
    assert not await asked.note_end("m", 0, END), "it was never started"
    await asked.run("m", True)
    for change in (asked.restart("m"), asked.update("m", spec(image="r/m:2"), start=True)):
        before = gateway.module().restarts
        await change
        assert not await asked.note_end("m", before, END)
        assert asked.ended("m") is None
    before = gateway.module().restarts
    # Stopped and started between the end and its note.
    await asked.run("m", False)
    assert not await asked.note_end("m", before, END)
    await asked.run("m", True)
    assert not await asked.note_end("m", before, END)
    assert asked.ended("m") is None
    assert await asked.note_end("m", gateway.module().restarts, END)
    for name in ("gone", "hub", "edgeAgent"):
        assert not await asked.note_end(name, 0, END), name


async def test_an_end_that_is_noted_again_is_not_written_again(gateway: Gateway) -> None:
    run = await ended(gateway)
    changes = gateway.changes
    assert await gateway.deployment.note_end("m", run, dict(END))
    assert gateway.changes == changes


@pytest.mark.parametrize("call", ["start", "restart", "update"])
async def test_a_module_that_ended_and_is_wanted_again_gets_another_run(gateway: Gateway, call: str) -> None:
    run, asked = await ended(gateway), gateway.deployment
    if call == "start":
        assert await asked.run("m", True)
    elif call == "restart":
        await asked.restart("m")
    else:
        await asked.update("m", spec(), start=True)
    assert (asked.ended("m"), gateway.module().running) == (None, True)
    assert gateway.module().restarts > run


async def test_a_module_that_ended_and_was_stopped_says_how_it_ended_until_it_is_started(
    gateway: Gateway,
) -> None:
    await ended(gateway)
    assert await gateway.deployment.run("m", False)
    assert gateway.deployment.ended("m") == END
    assert await gateway.deployment.run("m", False) is False
    assert await gateway.deployment.run("m", True)
    assert gateway.deployment.ended("m") is None


async def test_a_module_that_ended_keeps_its_port(
    gateway: Gateway,
) -> None:
    asked = gateway.deployment
    await asked.create(bound("m", "443"))
    await asked.run("m", True)
    await asked.note_end("m", gateway.module().restarts, END)
    await asked.create(bound("n", "443"))
    with pytest.raises(SpecError, match="its port 443/tcp is that of m too"):
        await asked.run("n", True)
    assert await asked.run("m", True), "it shall run, so the port is its own"


async def test_an_end_that_cannot_be_written_is_none(gateway: Gateway, tmp_path: Path) -> None:
    await gateway.deployment.create(spec())
    await gateway.deployment.run("m", True)
    (tmp_path / f".{keystore.DEPLOYMENT_FILE}.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        await gateway.deployment.note_end("m", gateway.module().restarts, END)
    assert gateway.deployment.ended("m") is None


async def test_a_file_of_a_daemon_that_knew_no_end_is_read(tmp_path: Path) -> None:
    older = {"spec": spec(), "running": True, "restarts": 2, "basis": ""}
    KeyStore.open(tmp_path, OWNER).keep_deployment({"modules": {"m": older}})
    gateway = Gateway(tmp_path)
    assert asked_of(gateway) == (spec(), True, 2, None)
    assert await gateway.deployment.note_end("m", 2, END)
    assert Gateway(tmp_path).deployment.ended("m") == END


async def test_a_module_that_is_not_there_is_unknown_whatever_is_asked(gateway: Gateway) -> None:
    asked = gateway.deployment
    for call in (
        asked.run("m", True),
        asked.restart("m"),
        asked.remove("m"),
        asked.update("m", spec(), start=True),
    ):
        with pytest.raises(UnknownModuleError, match="no module m"):
            await call
    # A module of the chart is not edgeAgent's.
    with pytest.raises(UnknownModuleError):
        await asked.remove("hub")


def test_edge_agent_is_there_as_the_chart_gives_it(gateway: Gateway) -> None:
    found = gateway.deployment.modules["edgeAgent"]
    assert found.running
    assert found.spec == {
        "name": "edgeAgent",
        "type": "docker",
        "imagePullPolicy": "On-Create",
        "config": {
            "settings": {"image": "r/agent:1"},
            "env": [{"key": "RuntimeLogLevel", "value": "debug"}],
        },
    }
    assert gateway.deployment.candidates == [], "the chart's own entry makes its objects"


async def test_edge_agent_runs_on_whatever_it_asks(gateway: Gateway) -> None:
    with pytest.raises(ModuleExistsError, match="edgeAgent cannot be stopped"):
        await gateway.deployment.run("edgeAgent", False)
    with pytest.raises(ModuleExistsError, match="edgeAgent cannot be removed"):
        await gateway.deployment.remove("edgeAgent")
    assert await gateway.deployment.run("edgeAgent", True) is False
    await gateway.deployment.update("edgeAgent", spec("edgeAgent", "r/agent:2"), start=False)
    assert gateway.module("edgeAgent").running


async def test_edge_agent_can_restart_itself(gateway: Gateway) -> None:
    await gateway.deployment.restart("edgeAgent")
    found = gateway.module("edgeAgent")
    assert (found.image, found.env, found.restarts) == ("r/agent:1", (("RuntimeLogLevel", "debug"),), 1)


async def test_changed_values_of_the_chart_win_over_what_edge_agent_made_of_itself(gateway: Gateway) -> None:
    await gateway.deployment.update("edgeAgent", spec("edgeAgent", "r/agent:2"), start=True)
    await gateway.deployment.create(spec())
    gateway.deployment.set_agent(dict(reversed(AGENT.items())))
    assert gateway.module("edgeAgent").image == "r/agent:2", "the order of the values is no change"
    gateway.deployment.set_agent(AGENT | {"image": "r/agent:3"})
    assert gateway.deployment.modules["edgeAgent"].spec["config"]["settings"]["image"] == "r/agent:3"
    assert [candidate.name for candidate in gateway.deployment.candidates] == ["m"]


async def test_without_edge_agent_its_modules_and_identities_go_and_come_back_with_it(
    gateway: Gateway,
) -> None:
    await gateway.deployment.create(spec())
    await gateway.deployment.keep_identity("m")
    gateway.deployment.set_agent(None)
    assert not gateway.deployment.modules
    assert not gateway.deployment.candidates
    assert not gateway.deployment.identities
    gateway.deployment.set_agent(AGENT)
    assert set(gateway.deployment.modules) == {"m", "edgeAgent"}
    assert gateway.deployment.identities == {"m"}


async def test_what_is_noted_again_is_not_written_again(gateway: Gateway) -> None:
    await gateway.deployment.keep_identity("m")
    await gateway.deployment.keep_identity("m")
    await gateway.deployment.drop_identity("other")
    await gateway.deployment.keep_pull_secrets(frozenset())
    assert gateway.changes == 1


async def test_a_disk_that_is_full_leaves_everything_as_it_was(gateway: Gateway, tmp_path: Path) -> None:
    await gateway.deployment.create(spec())
    # Nothing can be written where a folder is in the way.
    (tmp_path / f".{keystore.DEPLOYMENT_FILE}.new").mkdir()
    for call in (
        gateway.deployment.create(spec("n")),
        gateway.deployment.update("m", spec(image="r/m:2"), start=True),
        gateway.deployment.remove("m"),
        gateway.deployment.keep_identity("m"),
    ):
        with pytest.raises(OSError, match="directory"):
            await call
    assert asked_of(gateway) == (spec(), False, 0, None)
    assert [candidate.module for candidate in gateway.deployment.candidates] == [gateway.module()]
    assert (gateway.deployment.identities, gateway.changes) == (frozenset(), 1)


async def test_calls_at_one_time_lose_nothing(gateway: Gateway, tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(8)]
    await asyncio.gather(*(gateway.deployment.create(spec(name)) for name in names))
    await asyncio.gather(*(gateway.deployment.restart("m0") for _name in names))
    again = Gateway(tmp_path)
    assert set(again.deployment.modules) == {*names, "edgeAgent"}
    assert again.module("m0").restarts == len(names)


async def test_a_kept_module_that_can_be_no_more_is_refused_alone(tmp_path: Path) -> None:
    KeyStore.open(tmp_path, OWNER).keep_deployment(
        {"modules": {"m": {"spec": spec(), "running": True}, "old": {"spec": spec("old", Gone=1)}}}
    )
    gateway = Gateway(tmp_path)
    found = {candidate.name: candidate.problems for candidate in gateway.deployment.candidates}
    assert found["m"] == ()
    assert "Gone" in found["old"][0]
    await gateway.deployment.update("old", spec("old"), start=True)
    assert gateway.module("old").running


def test_a_daemon_that_is_rolled_back_goes_on_with_what_a_newer_one_kept(tmp_path: Path) -> None:
    newer = {"spec": spec(), "running": True, "restarts": 2, "basis": "", "later": "a newer daemon"}
    KeyStore.open(tmp_path, OWNER).keep_deployment({"modules": {"m": newer}, "more": []})
    assert Gateway(tmp_path).deployment.modules["m"] == Deployed(spec(), running=True, restarts=2)


async def test_a_daemon_that_is_rolled_back_to_one_that_knew_no_end_goes_on(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ended(gateway)
    known = [one for one in fields(Deployed) if one.name != "ended"]
    monkeypatch.setattr(deployment, "fields", lambda _of: known)
    assert asked_of(Gateway(tmp_path)) == (spec(), True, run, None)


def test_the_charts_pull_policy_and_create_options_are_in_the_spec(tmp_path: Path) -> None:
    entry = AGENT | {"imagePullPolicy": "Never", "createOptions": '{"Tty": true}'}
    found = Gateway(tmp_path, entry).deployment.modules["edgeAgent"].spec
    assert found["imagePullPolicy"] == "Never"
    assert found["config"]["settings"]["createOptions"] == '{"Tty": true}'
    assert json.loads(json.dumps(found)) == found


async def test_no_run_of_a_module_has_the_number_of_one_of_its_name_before(
    gateway: Gateway, tmp_path: Path
) -> None:
    runs = set()
    for _again in range(3):
        await gateway.deployment.create(spec())
        await gateway.deployment.run("m", True)
        runs.add(gateway.deployment.run_of("m"))
        await gateway.deployment.restart("m")
        runs.add(gateway.deployment.run_of("m"))
        await gateway.deployment.remove("m")
        gateway = Gateway(tmp_path)
    assert len(runs) == 6
