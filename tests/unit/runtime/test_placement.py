# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pods of a module: in each slot the one that is wanted, and never two that may run at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from edgeha_runtime.daemon.kube import Applied
from edgeha_runtime.daemon.manifests import DIGEST_ANNOTATION, NO_SLOT, Manifest
from edgeha_runtime.daemon.placement import GRACE_SECONDS, LOOK_SECONDS, LOST_SECONDS, Placed, Placement
from edgeha_runtime.daemon.pods import Pod
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from lightkube import ApiError
from lightkube.models.meta_v1 import Status

EPOCH = datetime(2026, 3, 1, 10, tzinfo=UTC)
GRACE = 10.0


def moment(seconds: float) -> datetime:
    """A time as the API server writes it, which knows whole seconds only."""
    return EPOCH + timedelta(seconds=int(seconds))


@dataclass
class Record:
    """A pod and what becomes of it on its machine. Times are seconds of the fake clock."""

    name: str
    slot: str
    digest: str
    created: float
    deleted: float | None = None
    finished: bool = False
    lost: bool = False
    unreachable: bool = False  # its machine answers nobody
    slow: bool = False  # its kubelet takes longer than it was given
    node: str = "node-b"
    given_up: bool = False

    def may_run(self, now: float) -> bool:
        over = self.deleted is not None and not self.slow and now >= self.deleted + GRACE
        return not (self.finished or over)

    def seen(self) -> Pod:
        """The pod as the daemon sees it."""
        return Pod(
            name=self.name,
            uid=f"uid of {self.name}",
            module="m",
            slot=NO_SLOT if self.given_up else self.slot,
            digest=self.digest,
            run=0,
            image="i",
            node=self.node,
            created=moment(self.created),
            going=self.deleted is not None,
            grace=GRACE,
            finished=self.finished,
            lost=self.lost,
        )


class World:
    """A cluster with its time, and the kubelets of its machines. `node`: that of the daemon and of slot a."""

    def __init__(self) -> None:
        self.now = 0.5
        self.node = "node-a"
        self.pods: dict[str, Record] = {}
        self.refused: dict[str, Exception] = {}  # by slot
        self.stuck: Exception | None = None  # why nothing can be deleted
        self.done: list[str] = []
        self.used: set[str] = set()

    async def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Applied:
        name = manifest["metadata"]["name"]
        slot = name.removeprefix("gw-m-").partition("-")[0]
        if error := self.refused.get(slot):
            raise error
        if dry_run:
            return Applied(name, "")
        assert name not in self.used
        self.used.add(name)
        node = self.node if slot == "a" else "node-b"
        self.add(name, slot, manifest["metadata"]["annotations"][DIGEST_ANNOTATION], node=node)
        self.done.append(f"make {slot}")
        return Applied(name, f"uid of {name}")

    async def delete(self, kind: str, name: str) -> None:
        assert kind == "Pod"
        if self.stuck:
            raise self.stuck
        self.done.append(f"delete {self.pods[name].slot}")
        self.remove(name)

    async def give_up(self, pod: str) -> None:
        assert not self.pods[pod].given_up, "once is enough"
        self.pods[pod].given_up = True

    def add(self, name: str, slot: str = "a", digest: str = "1", **more: float | bool | str) -> Record:
        record = Record(name, slot, digest, self.now)
        for field, value in more.items():
            setattr(record, field, value)
        self.pods[name] = record
        return record

    def remove(self, name: str) -> None:
        """Delete a pod. Its kubelet ends its containers first, where they run and where there is one."""
        pod = self.pods[name]
        if pod.deleted is None:
            pod.deleted = self.now
        if pod.finished and not pod.unreachable:
            del self.pods[name]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for pod in list(self.pods.values()):
            if pod.deleted is not None and not pod.unreachable and not pod.may_run(self.now):
                del self.pods[pod.name]

    def listed(self) -> list[Pod]:
        found = (pod.seen() for pod in self.pods.values())
        return sorted(found, key=lambda pod: (pod.created, pod.name))

    def running(self, slot: str) -> list[str]:
        """The pods of a slot that may run now."""
        return [pod.name for pod in self.pods.values() if pod.slot == slot and pod.may_run(self.now)]

    def placement(self) -> Placement:
        """A daemon's, which knows nothing yet."""
        return Placement(self, self.node, lambda: 7000.0 + self.now)


def wanted(digest: str = "1", slots: str = "a") -> dict[str, Manifest]:
    return {
        slot: {
            "kind": "Pod",
            "metadata": {"name": f"gw-m-{slot}", "annotations": {DIGEST_ANNOTATION: digest}},
        }
        for slot in slots
    }


class Daemon:
    """Looks at the module's pods, in a world whose time it has."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.placement = world.placement()

    async def look(self, wish: Mapping[str, Manifest]) -> Placed:
        return await self.placement.place(wish, self.world.listed())

    async def does(self, wish: Mapping[str, Manifest]) -> list[str]:
        """What one look does."""
        self.world.done.clear()
        await self.look(wish)
        return list(self.world.done)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def daemon(world: World) -> Daemon:
    return Daemon(world)


async def test_each_slot_gets_a_pod_and_a_second_look_makes_none(world: World, daemon: Daemon) -> None:
    first = await daemon.look(wanted(slots="ab"))
    assert world.done == ["make a", "make b"]
    assert (set(first.made), first.there, first.refused, first.wait) == ({"a", "b"}, {}, {}, None)
    second = await daemon.look(wanted(slots="ab"))
    assert world.done == ["make a", "make b"]
    assert {slot: pod.name for slot, pod in second.there.items()} == {
        slot: applied.name for slot, applied in first.made.items()
    }
    assert (second.made, second.wait) == ({}, None)
    # A daemon that starts anew finds them too.
    assert await Daemon(world).does(wanted(slots="ab")) == []


async def test_another_pod_is_made_when_the_one_before_is_gone(world: World, daemon: Daemon) -> None:
    world.add("old")
    placed = await daemon.look(wanted("2"))
    assert world.done == ["delete a"]
    assert placed.wait == GRACE + GRACE_SECONDS
    assert (placed.there, placed.made) == ({}, {})
    assert await daemon.does(wanted("2")) == []
    del world.pods["old"]
    assert await daemon.does(wanted("2")) == ["make a"]


async def test_another_pod_is_made_when_the_containers_of_the_one_before_ended(
    world: World, daemon: Daemon
) -> None:
    world.add("old", unreachable=True)
    assert await daemon.does(wanted("2")) == ["delete a"]
    world.pods["old"].finished = True
    assert await daemon.does(wanted("2")) == ["make a"]


async def test_a_machine_that_answers_no_more_holds_up_the_next_pod_for_its_grace_only(
    world: World, daemon: Daemon
) -> None:
    world.add("old", unreachable=True)
    assert await daemon.does(wanted("2")) == ["delete a"]
    world.pass_time(GRACE)
    placed = await daemon.look(wanted("2"))
    assert placed.made == {}
    assert placed.wait is not None
    assert 0 < placed.wait <= GRACE_SECONDS
    assert not world.pods["old"].given_up, "it may still run"
    world.pass_time(placed.wait)
    assert await daemon.does(wanted("2")) == ["make a"]
    # Services lead to the new one alone, as long as the machine of the old one is off.
    assert world.pods["old"].given_up
    assert await daemon.does(wanted("2")) == []


async def test_a_daemon_that_starts_anew_gives_a_lost_pod_its_grace(world: World) -> None:
    world.add("old", deleted=world.now - 3600, unreachable=True)
    daemon = Daemon(world)
    assert await daemon.does(wanted("2")) == []
    world.pass_time(GRACE + GRACE_SECONDS)
    assert await daemon.does(wanted("2")) == ["make a"]


async def test_on_the_daemons_own_machine_an_end_is_waited_for_however_long_it_takes(
    world: World, daemon: Daemon
) -> None:
    world.add("old", node=world.node, slow=True)
    placed = await daemon.look(wanted("2"))
    assert (world.done, placed.wait) == (["delete a"], LOOK_SECONDS)
    world.pass_time(3600)
    assert await daemon.does(wanted("2")) == []
    del world.pods["old"]
    assert await daemon.does(wanted("2")) == ["make a"]


async def test_what_goes_in_one_slot_holds_up_no_other_one(world: World, daemon: Daemon) -> None:
    world.add("old")
    assert await daemon.does(wanted("2", "ab")) == ["delete a", "make b"]


async def test_of_several_pods_of_a_slot_the_oldest_stays(world: World, daemon: Daemon) -> None:
    for name in ("y", "x", "z"):
        world.add(name)
        world.pass_time(1)
    placed = await daemon.look(wanted())
    assert placed.there["a"].name == "y"
    assert [name for name, pod in world.pods.items() if pod.deleted is None] == ["y"]
    assert world.done == ["delete a", "delete a"]


@pytest.mark.parametrize("digest", ["1", "2"])
async def test_a_lost_pod_is_replaced_but_not_again_and_again_at_once(
    world: World, daemon: Daemon, digest: str
) -> None:
    await daemon.look(wanted())
    (old,) = world.pods.values()
    old.finished = old.lost = True
    world.done.clear()
    placed = await daemon.look(wanted(digest))
    assert world.done == []
    assert placed.wait is not None
    assert 0 < placed.wait <= LOST_SECONDS
    world.pass_time(LOST_SECONDS / 2)
    assert await daemon.does(wanted(digest)) == []
    world.pass_time(LOST_SECONDS / 2)
    assert await daemon.does(wanted(digest)) == ["delete a", "make a"]


async def test_a_pod_that_ran_long_and_is_lost_is_replaced_at_once(world: World, daemon: Daemon) -> None:
    await daemon.look(wanted())
    (old,) = world.pods.values()
    world.pass_time(3600)
    old.finished = old.lost = True
    assert await daemon.does(wanted()) == ["delete a", "make a"]
    # And one of which this daemon knows nothing.
    (other,) = world.pods.values()
    other.finished = other.lost = True
    assert await Daemon(world).does(wanted()) == ["delete a", "make a"]


async def test_a_pod_that_ended_by_itself_stays(world: World, daemon: Daemon) -> None:
    await daemon.look(wanted())
    (pod,) = world.pods.values()
    pod.finished = True
    for one in (daemon, Daemon(world)):
        assert await one.does(wanted()) == []
    placed = await daemon.look(wanted())
    assert (placed.there["a"].name, placed.wait) == (pod.name, None)
    # It holds up nothing, where another one is wanted.
    assert await daemon.does(wanted("2")) == ["delete a", "make a"]


async def test_nothing_stays_of_a_module_that_is_not_to_run(world: World, daemon: Daemon) -> None:
    world.add("running")
    world.add("ended", finished=True)
    world.add("lost", finished=True, lost=True)
    world.add("standby", "b")
    world.add("goes", deleted=world.now)
    placed = await daemon.look({})
    assert len(world.done) == 4, "one goes already"
    assert all(pod.deleted is not None for pod in world.pods.values())
    assert (placed.there, placed.made, placed.wait) == ({}, {}, None)


async def test_a_refusal_is_told_and_keeps_no_other_slot_from_its_pod(world: World, daemon: Daemon) -> None:
    world.refused["a"] = ApiError(status=Status(code=403, message="exceeded quota"))
    placed = await daemon.look(wanted(slots="ab"))
    assert world.done == ["make b"]
    assert placed.refused == {"a": "API server: exceeded quota (403)"}
    assert set(placed.made) == {"b"}
    world.refused.clear()
    assert await daemon.does(wanted(slots="ab")) == ["make a"]


@pytest.mark.parametrize(
    ("code", "message", "goes"),
    [
        (422, "spec.x: wrong", False),
        (403, "violates PodSecurity", False),
        (403, "exceeded quota", True),
        (429, "too many", False),
        (500, "failed calling webhook", False),
    ],
)
async def test_what_runs_stays_where_the_cluster_would_not_take_what_follows(
    world: World, daemon: Daemon, code: int, message: str, goes: bool
) -> None:
    world.add("old")
    world.refused["a"] = ApiError(status=Status(code=code, message=message))
    placed = await daemon.look(wanted("2"))
    assert world.done == (["delete a"] if goes else [])
    if not goes:
        assert placed.refused == {"a": f"API server: {message} ({code})"}
        world.refused.clear()
        assert await daemon.does(wanted("2")) == ["delete a"]


async def test_an_api_server_that_is_away_is_the_callers(world: World, daemon: Daemon) -> None:
    world.refused["a"] = httpx2.ConnectError("refused")
    with pytest.raises(httpx2.ConnectError):
        await daemon.look(wanted())
    world.refused.clear()
    world.add("old")
    world.stuck = ApiError(status=Status(code=500, message="webhook"))
    with pytest.raises(ApiError, match="webhook"):
        await daemon.look(wanted("2"))
    assert world.done == []


async def test_a_pod_has_a_name_of_its_own(world: World, daemon: Daemon) -> None:
    for number in range(20):
        await daemon.look(wanted(str(number), "ab"))
        for pod in list(world.pods.values()):
            pod.finished = True
    assert len(world.used) == 40, "each pod had another name"
    assert all(name[:7] in ("gw-m-a-", "gw-m-b-") and len(name) == 13 for name in world.used)


async def test_what_is_forgotten_is_only_how_long_a_pod_goes(world: World, daemon: Daemon) -> None:
    world.add("old", deleted=world.now + 86400, unreachable=True)
    await daemon.look(wanted())
    world.pass_time(GRACE + GRACE_SECONDS)
    daemon.placement.keep(world.listed())
    assert await daemon.does(wanted()) == ["make a"]
    daemon.placement.keep([])
    assert await daemon.does(wanted()) == []


SLOTS = "ab"


class Lives(RuleBasedStateMachine):
    """Whatever happens to the pods of a module, on their machines, by somebody's hand or to the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.daemon = Daemon(self.world)
        self.digest: str | None = "1"

    def teardown(self) -> None:
        self.settles()

    @property
    def wish(self) -> dict[str, Manifest]:
        return wanted(self.digest, SLOTS) if self.digest else {}

    def placed(self) -> Placed:
        return asyncio.run(self.daemon.look(self.wish))

    def some(self, slot: str) -> Iterator[Record]:
        """The pods of a slot that nobody has deleted."""
        return (pod for pod in self.world.pods.values() if pod.slot == slot and pod.deleted is None)

    @rule()
    def the_daemon_looks(self) -> None:
        self.placed()

    @rule()
    def the_daemon_starts_anew(self) -> None:
        self.daemon = Daemon(self.world)

    @rule(digest=st.sampled_from(["1", "2", "3", None]))
    def something_else_is_wanted(self, digest: str | None) -> None:
        self.digest = digest

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0, 9.0, 12.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(slot=st.sampled_from(SLOTS), by_itself=st.booleans())
    def a_module_ends(self, slot: str, by_itself: bool) -> None:
        for pod in self.some(slot):
            pod.lost = not (by_itself or pod.finished) or pod.lost
            pod.finished = True

    @rule(slot=st.sampled_from(SLOTS))
    def somebody_deletes_a_pod(self, slot: str) -> None:
        for pod in list(self.some(slot)):
            self.world.remove(pod.name)

    @rule(slot=st.sampled_from(SLOTS))
    def a_machine_is_lost(self, slot: str) -> None:
        # The cluster deletes its pods then, and nobody is there to say that they ended.
        for pod in list(self.some(slot)):
            pod.unreachable, pod.slow = True, False
            self.world.remove(pod.name)
        for pod in self.world.pods.values():
            # Those that went already too.
            pod.slow = pod.slow and not (pod.slot == slot and pod.node == self.world.node)
        if slot == "a":
            # The daemon goes with its machine, and comes back on another one.
            self.world.node += "+"
            self.daemon = Daemon(self.world)

    @rule()
    def the_daemons_kubelet_is_slow(self) -> None:
        for pod in self.world.pods.values():
            pod.slow = pod.slow or (pod.node == self.world.node and not pod.unreachable)

    @rule(slot=st.sampled_from(SLOTS))
    def a_kubelet_is_quick(self, slot: str) -> None:
        for pod in list(self.world.pods.values()):
            if pod.slot == slot and pod.deleted is not None and not pod.unreachable:
                del self.world.pods[pod.name]

    @rule(slot=st.sampled_from(SLOTS))
    def a_lost_machine_is_taken_away(self, slot: str) -> None:
        for pod in list(self.world.pods.values()):
            if pod.slot == slot and pod.unreachable and not pod.may_run(self.world.now):
                del self.world.pods[pod.name]

    @rule(slot=st.sampled_from(SLOTS))
    def the_cluster_refuses_the_pods_of_a_slot(self, slot: str) -> None:
        self.world.refused = {slot: ApiError(status=Status(code=403, message="quota"))}

    @rule()
    def the_cluster_refuses_nothing(self) -> None:
        self.world.refused = {}

    @invariant()
    def no_two_may_run(self) -> None:
        for slot in SLOTS:
            assert len(self.world.running(slot)) <= 1

    def settles(self) -> None:
        """Left alone, the module has the pods that are wanted, after the waits that the daemon names."""
        self.world.refused = {}
        for pod in self.world.pods.values():
            pod.slow = False
        for _look in range(10):
            pause = self.placed().wait
            self.no_two_may_run()
            if pause is None:
                break
            self.world.pass_time(pause)
        left = [pod for pod in self.world.pods.values() if pod.deleted is None]
        assert sorted(pod.slot for pod in left) == sorted(self.wish)
        assert all((pod.digest, pod.lost) == (self.digest, False) for pod in left)
        self.world.done.clear()
        self.placed()
        assert self.world.done == []


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
