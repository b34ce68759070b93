# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who founds, joins and is started; what is refused; and that nothing ever makes a second cluster."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.filter import cluster_plan as plugin
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

Plan = dict[str, dict[str, Any]]
NAMES = ("gw1", "gw2", "gw3", "gw4", "gw5")


def address(host: str) -> str:
    return f"10.7.0.{10 + int(host[2:])}"


def members(*hosts: str) -> list[dict[str, Any]]:
    return [member(host) for host in hosts]


def member(host: str, name: str | None = None, *, learner: bool = False) -> dict[str, Any]:
    name = f"{host}-aaaa" if name is None else name
    return {"name": name, "peer": f"https://{address(host)}:2380", "learner": learner}


def state(
    datastore: str = "none",
    *,
    active: str = "inactive",
    ready: bool = False,
    name: str = "",
    view: list[dict[str, Any]] | None = None,
    authority: str = "one",
    role: str | None = None,
    nodes: list[dict[str, Any]] | None = None,
    server: str = "",
    **data: Any,
) -> dict[str, Any]:
    holds = datastore != "none"
    keys = [authority] if holds or data.get("half") else []
    return {
        "role": role or ("server" if holds or active != "inactive" else "none"),
        "unit": {"active": active},
        "config": {"server": server},
        "data": {
            "server": holds, "datastore": datastore, "etcd_name": name, "members": view or [], "half": False,
            "ca_certificates": keys, "agent_ca_certificates": [], "agent": False, **data,
        },
        "api": {"readyz": ready, "reachable": ready, "foreign": False},
        "node": {"name_file": ""},
        "nodes": nodes or [],
    }  # fmt: skip


def bare() -> dict[str, Any]:
    return state()


def down(host: str, *others: str, **more: Any) -> dict[str, Any]:
    return state("etcd", name=f"{host}-aaaa", view=members(host, *others), **more)


def alive(host: str, *others: str, **more: Any) -> dict[str, Any]:
    return down(host, *others, active="active", ready=True, **more)


def node(host: str, *, ready: bool = False, at: str = "") -> dict[str, Any]:
    return {"name": host, "ready": ready, "address": at or address(host)}


def decide(
    servers: list[dict[str, Any] | None], agents: list[dict[str, Any] | None] | None = None, **wanted: Any
) -> Plan:
    hidden = wanted.pop("hidden", ())
    entries = [
        {
            "host": host, "kind": "server", "address": address(host), "node_name": host, "state": found,
            "in_play": host not in hidden,
        }
        for host, found in zip(NAMES, servers, strict=False)
    ] + [
        {"host": f"ag{number}", "kind": "agent", "address": f"10.7.1.{number}", "state": found}
        for number, found in enumerate(agents or [], start=1)
    ]  # fmt: skip
    return plugin.cluster_plan(entries, {"cluster": "plant07", **wanted})


def said(plan: Plan) -> list[str]:
    return [f"{host} {step['action']} {step['wave']}" for host, step in plan.items()]


def facts(plan: Plan) -> dict[str, str]:
    return {
        host: f"{problem['fact']} | {problem['fix']}"
        for host, step in plan.items()
        for problem in step["problems"]
    }


def refused(plan: Plan) -> dict[str, str]:
    found = facts(plan)
    assert found
    for host, step in plan.items():
        for problem in step["problems"]:
            assert problem["host"] == host
            assert problem["subject"]
            assert problem["fix"]
    return found


def accepted(plan: Plan) -> list[str]:
    assert facts(plan) == {}
    return said(plan)


def test_three_bare_machines_make_one_cluster() -> None:
    plan = decide([bare(), bare(), bare()])
    assert accepted(plan) == ["gw1 found 0", "gw2 join 1", "gw3 join 2"]
    assert [step["via"] for step in plan.values()] == ["", "10.7.0.11", "10.7.0.11"]
    assert not any(step["cold"] for step in plan.values())


def test_a_finished_cluster_is_kept_one_server_after_the_other() -> None:
    plan = decide([alive(host, *set(NAMES[:3]) - {host}) for host in NAMES[:3]])
    assert accepted(plan) == ["gw1 keep 0", "gw2 keep 1", "gw3 keep 2"]
    assert [step["spare"] for step in plan.values()] == [1, 1, 1]


@pytest.mark.parametrize("lost", range(3))
def test_whichever_server_lost_its_disk_joins(lost: int) -> None:
    others = [host for host in NAMES[:3] if host != NAMES[lost]]
    nodes = [node(host, ready=True) for host in NAMES[:3]]
    servers = [alive(host, *set(NAMES[:3]) - {host}, nodes=nodes) for host in NAMES[:3]]
    servers[lost] = bare()
    plan = decide(list(servers))
    step = plan[NAMES[lost]]
    assert facts(plan) == {}
    assert (step["action"], step["wave"]) == ("join", 0)
    assert step["via"] == address(others[0])
    # It is Ready for a while after it was wiped, but it is this very machine.
    assert step["forget"] == NAMES[lost]
    assert plan[others[0]]["spare"] == 0
    assert sorted(plan[host]["wave"] for host in others) == [1, 2]


def test_a_name_that_another_machine_has_is_refused() -> None:
    nodes = [node("gw1", ready=True), node("gw2", ready=True, at="10.9.9.9")]
    found = refused(decide([alive("gw1", nodes=nodes), bare()]))
    assert "another machine at 10.9.9.9" in found["gw2"]
    assert "edge_node_name" in found["gw2"]
    # The inventory may know it by a name, and it has the address itself.
    named = {**bare(), "addresses": ["10.9.9.9"]}
    assert decide([alive("gw1", nodes=nodes), named])["gw2"]["forget"] == "gw2"
    # One that is gone may come again with another address.
    nodes[1]["ready"] = False
    plan = decide([alive("gw1", nodes=nodes), bare()])
    assert accepted(plan) == ["gw1 keep 1", "gw2 join 0"]
    assert plan["gw2"]["forget"] == "gw2"


def test_after_a_power_cut_all_start_together() -> None:
    plan = decide([down(host, *set(NAMES[:3]) - {host}, active="activating") for host in NAMES[:3]])
    assert accepted(plan) == ["gw1 start 0", "gw2 start 0", "gw3 start 0"]
    assert all(step["cold"] for step in plan.values())


def test_after_a_power_cut_that_took_a_disk_the_lost_one_joins_after_the_others() -> None:
    plan = decide([bare(), down("gw2", "gw1", "gw3"), down("gw3", "gw1", "gw2")])
    assert accepted(plan) == ["gw1 join 1", "gw2 start 0", "gw3 start 0"]
    assert plan["gw1"]["forget"] == "gw1"
    assert plan["gw1"]["via"] == address("gw2")


def test_two_of_three_are_enough_to_start_and_the_third_may_be_silent() -> None:
    plan = decide([None, down("gw2", "gw1", "gw3"), down("gw3", "gw1", "gw2")])
    assert accepted(plan) == ["gw1 none 0", "gw2 start 0", "gw3 start 0"]


def test_one_of_three_waits_for_the_others_when_they_are_silent() -> None:
    found = refused(decide([down("gw1", "gw2", "gw3"), None, None]))
    assert "1 of the 3 voters" in found["gw1"]
    assert "bring up gw2, gw3" in found["gw1"]
    assert "edgeha.iotedge.restore" in found["gw1"]


def test_one_of_three_is_restored_when_the_others_are_wiped() -> None:
    found = refused(decide([bare(), down("gw2", "gw1", "gw3"), bare()]))
    assert set(found) == {"gw2"}
    assert "edgeha.iotedge.restore" in found["gw2"]


def test_a_founder_whose_peers_never_joined_starts_alone() -> None:
    plan = decide([down("gw1"), bare(), bare()])
    assert accepted(plan) == ["gw1 start 0", "gw2 join 1", "gw3 join 2"]
    # A learner has no vote yet.
    learner = [member("gw1"), member("gw2", "", learner=True)]
    plan = decide([state("etcd", name="gw1-aaaa", view=learner), bare(), bare()])
    assert accepted(plan)[0] == "gw1 start 0"
    assert plan["gw2"]["forget"] == ""


def test_without_views_the_inventory_says_how_many_are_needed() -> None:
    blind = state("etcd", name="gw1-aaaa")
    assert "1 of the 3 voters" in refused(decide([blind, None, None]))["gw1"]
    assert accepted(decide([blind, state("etcd", name="gw2-aaaa"), None])) == [
        "gw1 start 0",
        "gw2 start 0",
        "gw3 none 0",
    ]


def test_founding_wants_an_answer_of_everyone() -> None:
    found = refused(decide([bare(), None, bare()]))
    assert set(found) == {"gw2"}
    assert "does not answer" in found["gw2"]
    assert "edge_k3s_force_bootstrap" in found["gw2"]
    forced = decide([bare(), None, bare()], force_bootstrap=True)
    assert accepted(forced) == ["gw1 found 0", "gw2 none 0", "gw3 join 1"]
    # Force founds without servers that are silent, never beside one that holds a cluster.
    assert "found" not in str(said(decide([bare(), None, down("gw3")], force_bootstrap=True)))


def test_a_slice_that_hides_a_server_is_refused() -> None:
    servers: list[dict[str, Any] | None] = [alive("gw1", "gw2"), None]
    found = refused(decide(servers, hidden=("gw2",)))
    assert set(found) == {"gw2"}
    assert "--limit" in found["gw2"]
    plan = decide([bare(), None, None], hidden=("gw2", "gw3"))
    assert set(refused(plan)) == {"gw2", "gw3"}
    assert {step["action"] for step in plan.values()} == {"none"}


@pytest.mark.parametrize("count", [1, 3])
def test_the_expected_number_of_servers_is_held_to(count: int) -> None:
    found = refused(decide([bare(), bare()], server_count=count))
    assert f"is {count}" in found["gw1"]
    assert accepted(decide([bare(), bare()], server_count=2))


def test_an_interrupted_founding_goes_on_where_it_began() -> None:
    keys = state(half=True, active="activating")
    assert accepted(decide([bare(), keys, bare()])) == ["gw1 join 1", "gw2 found 0", "gw3 join 2"]
    starting = state(active="activating")
    assert accepted(decide([bare(), bare(), starting]))[2] == "gw3 found 0"
    # One that waits for a server to join founds nothing.
    waiting = state(active="activating", server="https://10.7.0.13:6443")
    assert accepted(decide([bare(), waiting, starting])) == ["gw1 join 1", "gw2 join 2", "gw3 found 0"]
    assert accepted(decide([waiting, state(half=True), bare()]))[1] == "gw2 found 0"


def test_keys_of_an_interrupted_start_beside_a_cluster_are_refused() -> None:
    found = refused(decide([alive("gw1"), state(half=True, authority="two")]))
    assert set(found) == {"gw2"}
    assert "replace_node" in found["gw2"]
    # Keys that it got from the cluster are no hindrance.
    assert accepted(decide([alive("gw1"), state(half=True)])) == ["gw1 keep 1", "gw2 join 0"]


def test_two_clusters_are_refused_whether_they_live_or_not() -> None:
    for first, second in itertools.product((alive, down), repeat=2):
        found = refused(decide([first("gw1"), second("gw2", authority="two")]))
        # The living one is the one that stays.
        wrong = "gw1" if first is down and second is alive else "gw2"
        assert wrong in found
        assert "another cluster" in found[wrong]


def test_rotated_authorities_are_one_cluster() -> None:
    rotated = alive("gw2", "gw1")
    rotated["data"]["ca_certificates"] = ["one", "new"]
    assert accepted(decide([alive("gw1", "gw2"), rotated]))


def test_two_that_serve_with_the_same_keys_are_two_clusters() -> None:
    found = refused(decide([alive("gw1"), alive("gw2", "gw3")]))
    assert "serves another cluster" in found["gw2"]


def test_a_copy_of_a_server_is_refused() -> None:
    found = refused(decide([alive("gw1"), state("etcd", name="gw1-aaaa", view=members("gw1"))]))
    assert set(found) == {"gw1", "gw2"}
    assert "copy" in found["gw2"]


def test_a_member_that_was_removed_is_not_started() -> None:
    found = refused(decide([alive("gw1", "gw2"), alive("gw2", "gw1"), down("gw3", "gw1", "gw2")]))
    assert set(found) == {"gw3"}
    assert "replace_node" in found["gw3"]


def test_a_member_that_knows_that_it_was_removed_joins_anew() -> None:
    removed = down("gw2", "gw1", tombstone=True)
    assert accepted(decide([alive("gw1"), removed])) == ["gw1 keep 1", "gw2 join 0"]
    assert accepted(decide([down("gw1"), removed])) == ["gw1 start 0", "gw2 join 1"]
    # What it was removed from is somewhere.
    assert "removed from a cluster" in refused(decide([bare(), removed]))["gw2"]


def test_a_restore_that_was_interrupted_is_ended_first() -> None:
    reset = down("gw1", reset_flag=True)
    for others in ([down("gw2", "gw1", "gw3"), bare()], [None, None]):
        found = refused(decide([reset, *others]))
        assert "edgeha.iotedge.restore" in found["gw1"]
    assert accepted(decide([reset, bare(), bare()]))[0] == "gw1 start 0"
    # Without the mark it shows in what the members know of each other.
    assert "gw1" in str(refused(decide([down("gw1"), down("gw2", "gw1", "gw3"), bare()]))["gw2"])


def test_servers_and_agents_that_changed_places_are_refused() -> None:
    agent = state(role="agent", active="active")
    assert "edge_agents" in refused(decide([alive("gw1"), agent]))["gw2"]
    found = refused(decide([alive("gw1", "ag1")], [down("gw2", "gw1")]))
    assert "edge_servers" in found["ag1"]


def test_a_port_that_another_program_has_is_refused() -> None:
    taken = bare()
    taken["api"] = {"readyz": True, "reachable": True, "foreign": True}
    plan = decide([taken])
    assert "another program" in refused(plan)["gw1"]
    # While k3s starts, it answers before its keys are written.
    taken["unit"]["active"] = "activating"
    assert accepted(decide([taken])) == ["gw1 found 0"]


def test_sqlite_has_one_server() -> None:
    single = state("sqlite", active="active", ready=True)
    assert accepted(decide([single], datastore="sqlite")) == ["gw1 keep 0"]
    assert accepted(decide([state("sqlite")], datastore="sqlite")) == ["gw1 start 0"]
    grown = decide([single, bare(), bare()])
    assert accepted(grown) == ["gw1 keep 0", "gw2 join 1", "gw3 join 2"]
    assert [step["convert"] for step in grown.values()] == [True, False, False]
    assert refused(decide([single, state("sqlite")]))
    assert refused(decide([single, single]))
    assert set(refused(decide([state("sqlite"), state("sqlite")]))) == {"gw1", "gw2"}
    assert decide([state("sqlite"), bare()])["gw1"]["convert"] is True


def test_servers_of_an_external_datastore_need_no_founder() -> None:
    served = state("external", active="active", ready=True)
    assert accepted(decide([served, bare()], datastore="external")) == ["gw1 keep 1", "gw2 join 0"]
    assert accepted(decide([bare(), None], datastore="external")) == ["gw1 found 0", "gw2 none 0"]
    both = decide([state("external"), state("external")], datastore="external")
    assert accepted(both) == ["gw1 start 0", "gw2 start 0"]
    assert "edge_k3s_datastore" in refused(decide([alive("gw1")], datastore="external"))["gw1"]
    assert "edge_k3s_datastore" in refused(decide([served]))["gw1"]


def test_agents() -> None:
    joined = state(role="agent", active="active", agent=True, agent_ca_certificates=["one"])
    stopped = state(role="agent", agent=True, agent_ca_certificates=["one"])
    cluster = alive("gw1", nodes=[node("gw1", ready=True), {**node("gw1"), "name": "ag3"}])
    plan = decide([cluster], [joined, stopped, bare(), None])
    assert accepted(plan)[1:] == ["ag1 keep 0", "ag2 start 0", "ag3 join 0", "ag4 none 0"]
    assert plan["ag3"]["forget"] == "ag3"
    assert plan["ag3"]["via"] == "10.7.0.11"
    stranger = state(role="agent", active="active", agent=True, agent_ca_certificates=["two"])
    assert "another cluster" in refused(decide([cluster], [stranger]))["ag1"]
    # What proves that it is this node was kept.
    kept = bare()
    kept["node"]["name_file"] = "/etc/rancher/node/password"
    assert decide([cluster], [bare(), bare(), kept])["ag3"]["forget"] == ""


OLD, NEW, NEXT, LATER = "v1.34.4+k3s1", "v1.34.5+k3s1", "v1.35.1+k3s1", "v1.36.0+k3s1"


def running(found: dict[str, Any], version: str) -> dict[str, Any]:
    found["unit"]["exe_version"] = version
    found["binary"] = {"version": version}
    return found


def test_a_machine_that_is_installed_now_gets_what_the_servers_run() -> None:
    servers = [running(alive("gw1", "gw2"), NEW), running(alive("gw2", "gw1"), OLD), bare()]
    plan = decide(servers, [bare(), running(state(role="agent", active="active", agent=True), OLD)])
    # In the middle of an upgrade that is the older one. Whoever runs keeps what it has.
    versions = {host: step["version"] for host, step in plan.items()}
    assert versions == {"gw1": "", "gw2": "", "gw3": OLD, "ag1": OLD, "ag2": ""}
    assert decide([bare(), bare()])["gw1"]["version"] == ""
    # With data and without a program, it gets that of the others too.
    assert decide([running(alive("gw1", "gw2"), NEW), down("gw2", "gw1")])["gw2"]["version"] == NEW


def test_after_a_power_cut_a_wiped_server_gets_what_the_others_will_run() -> None:
    cold = [down("gw1", "gw2", "gw3"), down("gw2", "gw1", "gw3"), bare()]
    for found in cold[:2]:
        found["binary"] = {"version": NEW}
    plan = decide(cold)
    assert [(step["action"], step["version"]) for step in plan.values()] == [
        ("start", ""), ("start", ""), ("join", NEW)
    ]  # fmt: skip


@pytest.mark.parametrize("version", [OLD, "v1.33.9+k3s2"])
def test_a_machine_is_not_installed_with_less_than_the_servers_run(version: str) -> None:
    servers = [running(alive("gw1", "gw2"), NEW), running(alive("gw2", "gw1"), NEW), bare()]
    plan = decide(servers, [bare()], version=version)
    words = f"would get {version}, and gw1 runs {NEW} | set edge_k3s_version: {NEW} in the inventory"
    assert facts(plan) == {"gw3": words, "ag1": words}
    # Nobody is installed: whatever runs is never taken back, and is no reason to stop.
    assert facts(decide(servers[:2], version=version)) == {}


def test_a_machine_is_not_installed_with_what_is_too_new_for_the_servers() -> None:
    servers = [running(alive("gw1"), NEW), bare()]
    assert facts(decide(servers, version=NEXT)) == {}
    said = "which is too new for gw1 with v1.34.5+k3s1 | upgrade the cluster first"
    assert said in facts(decide(servers, version=LATER))["gw2"]
    agent = facts(decide(servers[:1], [bare()], version=NEXT))
    assert list(agent) == ["ag1"]
    assert said in agent["ag1"]
    assert facts(decide(servers[:1], [bare()], version="v1.34.9+k3s1")) == {}


def test_agents_of_a_cluster_that_is_not_ours() -> None:
    plan = plugin.cluster_plan(
        [{"host": "ag1", "kind": "agent", "address": "10.7.1.1", "state": bare()}],
        {"cluster": "plant07", "mode": "join"},
    )
    assert accepted(plan) == ["ag1 join 0"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_combination_of_states_founds_once_or_not_at_all(count: int) -> None:
    hosts = NAMES[:count]

    def states(host: str) -> list[dict[str, Any] | None]:
        others = [other for other in hosts if other != host]
        return [
            None, bare(), state(half=True), state(active="activating"), down(host, *others), down(host),
            alive(host, *others), state("sqlite"), down(host, *others, authority="two"),
            state(role="agent", active="active", agent=True),
        ]  # fmt: skip

    for servers in itertools.product(*(states(host) for host in hosts)):
        plan = decide(list(servers))
        founders = [host for host, step in plan.items() if step["action"] == "found"]
        holding = [found for found in servers if found and found["data"]["server"]]
        assert len(founders) <= 1
        if holding or (None in servers and not facts(plan)):
            assert not founders or facts(plan)
        if facts(plan):
            continue
        # Without a problem, everyone that answered has something to do, and joins another one.
        for host, found in zip(hosts, servers, strict=True):
            assert (plan[host]["action"] == "none") == (found is None)
            if plan[host]["action"] == "join":
                assert plan[host]["via"]
                assert plan[host]["via"] != address(host)
        waves = [step["wave"] for step in plan.values() if step["action"] != "none" and not step["cold"]]
        assert len(waves) == len(set(waves))


@dataclass
class Server:
    """One machine of a world in which etcd works as it does: a majority of members makes a cluster."""

    host: str
    powered: bool = True
    reachable: bool = True
    # It has k3s's unit, which starts with the machine.
    installed: bool = False
    running: bool = False
    # 0 is no keys; keys and no member is a start that was interrupted.
    keys: int = 0
    member: str = ""
    view: frozenset[str] = frozenset()


@dataclass
class Cluster:
    number: int
    members: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)


class World(RuleBasedStateMachine):
    """Runs that are interrupted anywhere, machines that lose power, network or disk: one cluster at most."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: list[Server] = []
        self.clusters: dict[int, Cluster] = {}
        self.names = itertools.count(1)

    @initialize(count=st.integers(min_value=1, max_value=5))
    def begin(self, count: int) -> None:
        self.servers = [Server(host) for host in NAMES[:count]]

    def server(self, number: int) -> Server:
        return self.servers[number % len(self.servers)]

    def lives(self, number: int) -> bool:
        cluster = self.clusters.get(number)
        if cluster is None or not cluster.members:
            return False
        there = [s for s in self.servers if s.powered and s.running and s.member in cluster.members]
        return len(there) > len(cluster.members) // 2

    def spread(self) -> None:
        """Let every member that takes part know the members that there are now."""
        for server in self.servers:
            takes_part = server.powered and server.running and server.member and self.lives(server.keys)
            if takes_part and server.member in self.clusters[server.keys].members:
                server.view = frozenset(self.clusters[server.keys].members)

    def look(self, server: Server) -> dict[str, Any] | None:
        if not (server.powered and server.reachable):
            return None
        serves = server.running and bool(server.member) and self.lives(server.keys)
        nodes = [node(host) for host in self.clusters[server.keys].nodes] if serves else []
        view = [member(name.partition("-")[0], name) for name in sorted(server.view)]
        return state(
            "etcd" if server.member else "none",
            active="active" if serves else "activating" if server.running else "inactive",
            role="server" if server.installed else "none",
            ready=serves,
            name=server.member,
            view=view,
            authority=str(server.keys),
            half=bool(server.keys) and not server.member,
            nodes=nodes,
        )

    def found(self, server: Server, stop: bool) -> None:
        server.installed = server.running = True
        if not server.keys:
            server.keys = next(self.names)
        if stop:
            return
        name = f"{server.host}-{next(self.names)}"
        server.member, server.view = name, frozenset([name])
        self.clusters[server.keys] = Cluster(server.keys, {name}, {server.host})

    def join(self, server: Server, step: dict[str, Any], stop: bool) -> bool:
        """Return whether it came to live with the cluster of the server that it was told to join."""
        (peer,) = [other for other in self.servers if address(other.host) == step["via"]]
        if not self.lives(peer.keys):
            return False
        cluster = self.clusters[peer.keys]
        assert server.keys in (0, peer.keys)
        if step["forget"]:
            assert step["forget"] == server.host
            cluster.nodes.discard(server.host)
            cluster.members -= {name for name in cluster.members if name.partition("-")[0] == server.host}
            self.spread()
        server.installed = server.running = True
        server.keys = peer.keys
        if stop:
            return True
        # k3s takes no second node of a name.
        assert server.host not in cluster.nodes
        self.admit(server, cluster)
        return True

    def admit(self, server: Server, cluster: Cluster) -> None:
        name = f"{server.host}-{next(self.names)}"
        cluster.members.add(name)
        cluster.nodes.add(server.host)
        server.member = name
        self.spread()
        server.view = frozenset(cluster.members)

    def run(self, stop_after: int) -> Plan:
        """Do what the plan says; after so many steps the run is killed in the middle of the next one."""
        entries = [
            {"host": s.host, "address": address(s.host), "node_name": s.host, "state": self.look(s)}
            for s in self.servers
        ]
        plan = plugin.cluster_plan(entries, {"cluster": "plant07", "datastore": "etcd"})
        if facts(plan):
            return plan
        ordered = sorted(self.servers, key=lambda s: plan[s.host]["wave"])
        for count, server in enumerate(s for s in ordered if plan[s.host]["action"] != "none"):
            step, stop = plan[server.host], count == stop_after
            if step["action"] == "found":
                assert not any(s.member for s in self.servers), "a second cluster"
                self.found(server, stop)
            elif step["action"] == "join":
                if not self.join(server, step, stop):
                    break
            elif step["action"] == "start":
                server.running = True
                self.spread()
            if stop:
                break
        return plan

    @rule(stop_after=st.integers(min_value=0, max_value=12))
    def converge(self, stop_after: int) -> None:
        self.run(stop_after)

    @rule(number=st.integers(min_value=0, max_value=4))
    def wipe(self, number: int) -> None:
        server = self.server(number)
        server.installed = server.running = False
        server.keys, server.member, server.view = 0, "", frozenset()

    @rule(number=st.integers(min_value=0, max_value=4))
    def power_off(self, number: int) -> None:
        self.server(number).powered = self.server(number).running = False

    @rule()
    def power_cut(self) -> None:
        for number in range(len(self.servers)):
            self.power_off(number)

    @rule(number=st.integers(min_value=0, max_value=4))
    def power_on(self, number: int) -> None:
        server = self.server(number)
        if not server.powered:
            server.powered, server.running = True, server.installed
            self.spread()

    @rule(number=st.integers(min_value=0, max_value=4))
    def stop_service(self, number: int) -> None:
        self.server(number).running = False

    @rule(number=st.integers(min_value=0, max_value=4))
    def goes_on_by_itself(self, number: int) -> None:
        """k3s goes on with what it was started for, whether the run that started it lives or not."""
        server = self.server(number)
        if not server.running or server.member:
            return
        if server.keys not in self.clusters:
            assert not any(s.member for s in self.servers), "a second cluster"
            self.found(server, stop=False)
            return
        cluster = self.clusters[server.keys]
        if self.lives(server.keys) and server.host not in cluster.nodes:
            self.admit(server, cluster)

    @rule(number=st.integers(min_value=0, max_value=4), reachable=st.booleans())
    def network(self, number: int, reachable: bool) -> None:
        self.server(number).reachable = reachable

    @precondition(lambda self: self.servers)
    @rule()
    def everyone_comes_back(self) -> None:
        """With all machines up, a run ends with a whole cluster, unless too many lost their disks."""
        for number, server in enumerate(self.servers):
            server.reachable = True
            self.power_on(number)
        numbers = {s.keys for s in self.servers if s.member}
        alive_again = all(
            len({s.member for s in self.servers} & self.clusters[n].members)
            > len(self.clusters[n].members) // 2
            for n in numbers
        )
        plan = self.run(99)
        if not alive_again:
            assert all("edgeha.iotedge.re" in text for text in refused(plan).values())
            return
        keys = {s.keys for s in self.servers if s.keys and not s.member}
        if keys - numbers and (numbers or len(keys) > 1):
            # Left by a founding that was interrupted and that another server then made.
            refused(plan)
            return
        assert facts(plan) == {}
        assert {step["action"] for step in self.run(99).values()} == {"keep"}

    @invariant()
    def there_is_one_cluster(self) -> None:
        assert len({server.keys for server in self.servers if server.member}) <= 1


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
