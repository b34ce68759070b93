# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests stand in their order: each goes on with the cluster that the one before has left."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import operations as lab

BACKUPS = lab.EPHEMERAL / "backups"
FOLDER = f"edge_backup_dir={BACKUPS}"


def snapshot() -> Path:
    (found,) = [path for path in (BACKUPS / lab.CLUSTER).iterdir() if path.suffix != ".token"]
    return found


def restore(source: object, *options: str) -> str:
    return lab.play("restore", "-e", lab.CONFIRM, "-e", f"edge_snapshot={source}", *options)


def configmaps() -> set[str]:
    names = lab.kubectl("get configmaps -o name").split()
    return {name.rpartition("/")[2] for name in names} & {"before", "after"}


def test_a_snapshot_comes_to_the_controller_for_its_owner_s_eyes_only() -> None:
    lab.kubectl("create configmap before --from-literal=a=1")
    lab.play("backup", "-e", FOLDER, "--check")
    assert not BACKUPS.exists()
    said = lab.play("backup", "-e", FOLDER)
    token = Path(f"{snapshot()}.token")
    assert snapshot().stat().st_size > 10_000
    for file in (snapshot(), token):
        assert file.stat().st_mode & 0o777 == 0o600
    assert BACKUPS.joinpath(lab.CLUSTER).stat().st_mode & 0o777 == 0o700
    assert token.read_text().strip().rpartition(":")[2] not in said
    lab.kubectl("create configmap after --from-literal=a=1")


def test_a_restore_wants_a_snapshot_that_is_there_and_the_cluster_s_name() -> None:
    assert "edge_confirm=plant07" in lab.refused("restore", "-e", "edge_snapshot=newest")
    said = lab.refused("restore", "-e", lab.CONFIRM, "-e", "edge_snapshot=nothing")
    assert "the servers hold: " in said
    assert snapshot().name in said


def test_check_mode_stops_nothing() -> None:
    before = lab.started()
    said = restore("newest", "--check", "--diff")
    assert max(lab.changes(said).values()) > 0
    assert lab.started() == before
    assert configmaps() == {"before", "after"}


def test_the_cluster_is_what_it_was() -> None:
    authority = lab.authorities()
    restore(snapshot().name)
    assert configmaps() == {"before"}
    lab.wait("all to be well", lab.all_is_well)
    assert lab.authorities() == authority
    kept = [lab.ssh(name, "ls -d /var/lib/rancher/k3s/server/db/*old*") for name in lab.servers()]
    assert all(kept), kept


def test_machines_with_new_disks_become_the_same_cluster() -> None:
    authority = lab.authorities()
    for name in lab.addresses():
        lab.lab("fault", "wipe", name)
    restore(snapshot())
    assert configmaps() == {"before"}
    lab.wait("all to be well", lab.all_is_well)
    assert lab.authorities() == authority


def test_a_second_run_changes_nothing() -> None:
    before = lab.started()
    assert set(lab.changes(lab.play("cluster")).values()) == {0}
    assert lab.started() == before
