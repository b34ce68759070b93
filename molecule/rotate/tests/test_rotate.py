# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests stand in their order: each goes on with the cluster that the one before has left."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import operations as lab

AGE = "k3s_rotate_certificate_hours=0"


def secrets() -> set[str]:
    """Return the tokens that machines have in their configuration, without what k3s puts before them."""
    found = {lab.ssh(name, "cat /etc/rancher/k3s/token") for name in lab.addresses()}
    return {token.rpartition(":")[2] for token in found}


def serials() -> dict[str, str]:
    command = "cd /var/lib/rancher/k3s && sha256sum server/tls/client-admin.crt agent/client-kubelet.crt"
    return {name: lab.ssh(name, command, check=False) for name in lab.addresses()}


def administrators() -> dict[str, str]:
    """Return the certificates that servers keep when they start again. A kubelet gets a new one each time."""
    return {
        name: lab.ssh(name, "cat /var/lib/rancher/k3s/server/tls/client-admin.crt") for name in lab.servers()
    }


def test_it_wants_to_be_confirmed() -> None:
    assert "edge_confirm=plant07" in lab.refused("rotate_keys")
    said = lab.refused("rotate_keys", "-e", lab.CONFIRM, "-e", "edge_rotate=tokens")
    assert "tokens is nothing that can be rotated" in said


def test_check_mode_changes_nothing() -> None:
    before, tokens, certificates = lab.started(), secrets(), serials()
    said = lab.play("rotate_keys", "-e", lab.CONFIRM, "-e", AGE, "--check", "--diff")
    assert min(lab.changes(said).values()) > 0
    assert (lab.started(), secrets(), serials()) == (before, tokens, certificates)


def test_a_rotation_that_is_killed_goes_on_with_the_same_token() -> None:
    (old,) = secrets()
    before = administrators()
    run = lab.Playbook("rotate_keys", "-e", lab.CONFIRM, "-e", "edge_rotate=token")
    lab.wait("a second token", lambda: run.is_over() or len(secrets()) > 1)
    assert not run.is_over(), run.said()[-4000:]
    run.kill()
    (new,) = secrets() - {old}
    said = run.said() + lab.play("rotate_keys", "-e", lab.CONFIRM, "-e", "edge_rotate=token")
    assert secrets() == {new}
    assert new not in said
    assert old not in said
    assert lab.all_is_well()
    assert administrators() == before
    assert lab.ssh("server1", "ls /etc/rancher/k3s").find("token.next") < 0


def test_certificates_are_new_on_every_machine() -> None:
    before = serials()
    lab.play("rotate_keys", "-e", lab.CONFIRM, "-e", AGE, "-e", "edge_rotate=certificates")
    after = serials()
    assert [name for name in after if after[name] == before[name]] == []
    assert lab.all_is_well()


def test_the_next_run_finds_all_as_wanted() -> None:
    before = lab.started()
    assert set(lab.changes(lab.play("cluster")).values()) == {0}
    assert lab.started() == before


def test_a_machine_that_lost_its_disk_joins_with_the_new_token() -> None:
    lab.lab("fault", "wipe", "agent1")
    lab.play("replace_node", "-e", lab.CONFIRM, "-e", "edge_nodes=agent1")
    assert lab.all_is_well()
    assert len(secrets()) == 1
