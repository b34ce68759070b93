# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store keeps what it promised through any crash, and never opens what it cannot trust."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from edgeha_runtime.daemon import authority, keystore, provisioning
from edgeha_runtime.daemon.keystore import KeyStore, Owner, StoreError, StoreLock, StoreLockedError
from edgeha_runtime.daemon.settings import Dps
from hypothesis import given, settings
from hypothesis import strategies as st

RUNTIME = Path(keystore.__file__).parents[2]
OWNER = Owner("gw-1", "hub.example.net")
_MADE = authority.quickstart("gw-1", datetime.now(UTC))
AUTHORITY = (_MADE.key_pem(), _MADE.pem())
DEPLOYMENT = {"modules": {"sensor": {"spec": {"name": "sensor"}, "running": True}}, "identities": ["sensor"]}
DPS = ("dps.example.net", "scope", "reg-1", False)
NAMES = st.text(st.sampled_from("abcXYZ019-:.+%_#*?!(),=@;$'"), min_size=1, max_size=40)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A folder with a store that knows one module."""
    KeyStore.open(tmp_path, OWNER).remember("sensor", "gen-1")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_opened_again_it_has_the_same_keys_and_identities(tmp_path: Path) -> None:
    first = KeyStore.open(tmp_path, OWNER)
    first.remember("sensor", "gen-1")
    first.remember("pump", "gen-2")
    first.forget("pump")
    first.keep_authority(*AUTHORITY)
    first.keep_deployment(DEPLOYMENT)
    first.keep_module_set("[1]")
    again = KeyStore.open(tmp_path, Owner("gw-1", "HUB.example.net"))
    assert again.module_key("sensor", "gen-1", "primary") == first.module_key("sensor", "gen-1", "primary")
    assert again.encryption_key("sensor", "gen-1") == first.encryption_key("sensor", "gen-1")
    assert dict(again.identities) == {"sensor": "gen-1"}
    assert again.authority == AUTHORITY
    assert (again.deployment, again.module_set) == (DEPLOYMENT, "[1]")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_two_new_stores_never_share_a_key(tmp_path: Path) -> None:
    keys = set()
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        keys.add(KeyStore.open(folder, OWNER).module_key("sensor", "1", "primary"))
    assert len(keys) == 2


def test_module_key_is_hmac_sha256_of_module_generation_and_which(tmp_path: Path) -> None:
    store = KeyStore.open(tmp_path, OWNER)
    master = base64.b64decode(json.loads((tmp_path / keystore.KEY_FILE).read_text())["masterKey"])
    # RFC 2104, spelled out with the bare hash, so that no code is shared with the store.
    block = master.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + b"sensor:637:secondary").digest()
    expected = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).digest()
    assert store.module_key("sensor", "637", "secondary") == expected


@given(
    one=st.tuples(NAMES, st.text("0123456789", min_size=1)),
    other=st.tuples(NAMES, st.text("0123456789", min_size=1)),
)
def test_keys_differ_by_module_generation_and_which(one: tuple[str, str], other: tuple[str, str]) -> None:
    store = KeyStore(Path("/nowhere"), OWNER, b"k" * 32, {})
    assert store.module_key(*one, "primary") != store.module_key(*one, "secondary")
    if one != other:
        assert store.module_key(*one, "primary") != store.module_key(*other, "primary")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", [name for name in keystore.FILES if name != keystore.MODULE_SET_FILE])
def test_any_damage_to_a_file_is_refused_with_a_way_out_and_nothing_is_touched(
    name: str, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        store = KeyStore.open(directory, OWNER)
        store.remember("sensor", "gen-1")
        store.keep_authority(*AUTHORITY)
        store.keep_deployment(DEPLOYMENT)
        store.keep_module_set("[]")
        path = directory / name
        whole = path.read_bytes().rstrip()
        if data.draw(st.booleans(), "cut"):
            damaged = whole[: data.draw(st.integers(0, len(whole) - 1), "length")]
        else:
            at = data.draw(st.integers(0, len(whole) - 1), "at")
            byte = data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]), "byte")
            damaged = whole[:at] + bytes([byte]) + whole[at + 1 :]
            try:
                if json.loads(damaged) == json.loads(whole):
                    return  # white space: the same document
            except ValueError:
                pass
        path.write_bytes(damaged)
        before = content(directory)
        with pytest.raises(StoreError) as refused:
            KeyStore.open(directory, OWNER)
        assert str(path) in str(refused.value)
        assert content(directory) == before


@pytest.mark.parametrize("torn", [b"", b"{", b'{"format": "edgeha-keystore", "version": 99}'])
def test_a_module_set_of_no_use_keeps_no_daemon_from_its_keys(filled: Path, torn: bytes) -> None:
    (filled / keystore.MODULE_SET_FILE).write_bytes(torn)
    store = KeyStore.open(filled, OWNER)
    assert (store.module_set, dict(store.identities)) == ("", {"sensor": "gen-1"})
    store.keep_module_set("[]")
    assert KeyStore.open(filled, OWNER).module_set == "[]"


@pytest.mark.parametrize(
    "owner",
    [Owner("gw-2", "hub.example.net"), Owner("gw-1", "other.example.net"), Owner("GW-1", "hub.example.net")],
)
def test_store_of_another_device_or_hub_is_refused_by_name(filled: Path, owner: Owner) -> None:
    before = content(filled)
    with pytest.raises(StoreError, match=r"belongs to device gw-1 at hub hub\.example\.net.*own claim"):
        KeyStore.open(filled, owner)
    assert content(filled) == before


def test_newer_store_is_refused_and_names_the_newer_image(filled: Path) -> None:
    path = filled / keystore.KEY_FILE
    document = json.loads(path.read_text()) | {"version": 2, "sha256": "whatever a newer version puts here"}
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"version 2.*knows up to 1.*newer daemon image"):
        KeyStore.open(filled, OWNER)


def test_lost_master_key_is_not_replaced(filled: Path) -> None:
    (filled / keystore.KEY_FILE).unlink()
    with pytest.raises(StoreError, match=r"master-key\.json is missing although.*Restore it from a backup"):
        KeyStore.open(filled, OWNER)
    assert not (filled / keystore.KEY_FILE).exists()


def test_an_authority_without_its_master_key_is_refused(filled: Path) -> None:
    KeyStore.open(filled, OWNER).keep_authority(*AUTHORITY)
    (filled / keystore.IDENTITIES_FILE).unlink()
    (filled / keystore.KEY_FILE).unlink()
    with pytest.raises(StoreError, match=r"master-key\.json is missing although .*edge-ca\.json"):
        KeyStore.open(filled, OWNER)


def test_a_deployment_without_its_master_key_is_refused(filled: Path) -> None:
    KeyStore.open(filled, OWNER).keep_deployment(DEPLOYMENT)
    (filled / keystore.IDENTITIES_FILE).unlink()
    (filled / keystore.KEY_FILE).unlink()
    with pytest.raises(StoreError, match=r"master-key\.json is missing although .*deployment\.json"):
        KeyStore.open(filled, OWNER)


def test_an_authority_that_is_none_is_refused(filled: Path) -> None:
    KeyStore.open(filled, OWNER).keep_authority(AUTHORITY[0], "no certificate")
    with pytest.raises(StoreError, match=r"edge-ca\.json holds no CA: the certificate is not PEM.*backup"):
        KeyStore.open(filled, OWNER)


def test_folder_that_cannot_be_used_is_named_with_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written by user \d+.*fsGroup"):
        StoreLock(tmp_path / "file" / "store", pod="p", node="n").try_acquire()


# Kills itself with -9 in the n-th call that touches the disk; the write it dies in is cut in half.
CRASHING = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from edgeha_runtime.daemon.keystore import KeyStore, Owner
left = int(sys.argv[2])
def dying(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            if real.__name__ == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("open", "write", "fsync", "close", "replace", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
store = KeyStore.open(Path(sys.argv[3]), Owner("gw-1", "hub.example.net"))
print("key", store.module_key("m", "g", "primary").hex(), flush=True)
for generation in ("1", "2"):
    store.remember("sensor", generation)
    print("identity", generation, flush=True)
store.keep_authority(*json.load(sys.stdin))
print("authority kept", flush=True)
for number in (1, 2):
    store.keep_deployment({"identities": [str(number)]})
    print("deployment", number, flush=True)
from edgeha_runtime.daemon import provisioning  # takes its time, and most steps come before
from edgeha_runtime.daemon.settings import Dps
dps = Dps(*json.loads(sys.argv[4]))
for device in ("gw-1", "gw-2"):
    provisioning.keep(Path(sys.argv[3]), dps, provisioning.Assignment(device, "hub.example.net"))
    print("device", device, flush=True)
"""


def crash_at(step: int, folder: Path) -> tuple[int, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", CRASHING, str(RUNTIME), str(step), str(folder), json.dumps(DPS)],
        input=json.dumps(AUTHORITY),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, dict(line.split() for line in done.stdout.splitlines())


def test_killed_in_any_write_step_the_store_opens_with_all_it_had_promised(tmp_path: Path) -> None:
    steps = 0
    for step in range(1, 100):
        folder = tmp_path / str(step)
        folder.mkdir()
        code, promised = crash_at(step, folder)
        if code == 0:
            break
        steps += 1
        store = KeyStore.open(folder, OWNER)
        key = store.module_key("m", "g", "primary").hex()
        assert promised.get("key", key) == key
        assert store.identities.get("sensor", "0") >= promised.get("identity", "0")
        assert store.authority == AUTHORITY or "authority" not in promised
        assert (store.deployment or {}).get("identities", ["0"])[0] >= promised.get("deployment", "0")
        assigned = provisioning.kept(folder, Dps(*DPS))
        assert (assigned.device_id if assigned else "") >= promised.get("device", "")
        assert not list(folder.glob(".*.new")), "what was half written is cleared away"
        assert KeyStore.open(folder, OWNER).module_key("m", "g", "primary").hex() == key
    # Eight files written, each in at least open, write, fsync, close, rename, fsync of the folder.
    assert steps >= 48


def test_what_the_provisioning_service_said_is_of_a_version_and_files_without_one_are_of_the_first(
    tmp_path: Path,
) -> None:
    dps, assigned = Dps(*DPS), provisioning.Assignment("gw-1", "hub.example.net")
    provisioning.keep(tmp_path, dps, assigned)
    path = tmp_path / provisioning.FILE
    document = json.loads(path.read_text())
    assert document.pop("version") == 1
    path.write_text(json.dumps(document))
    assert provisioning.kept(tmp_path, dps) == assigned
    path.write_text(json.dumps(document | {"version": 2, "sha256": "whatever a newer version puts here"}))
    with pytest.raises(StoreError, match=r"version 2.*knows up to 1.*newer daemon image"):
        provisioning.kept(tmp_path, dps)
    path.write_text(json.dumps(document | {"version": "x"}))
    with pytest.raises(StoreError, match="torn or no provisioning result"):
        provisioning.kept(tmp_path, dps)


def test_a_lock_is_had_although_the_disk_is_too_full_for_the_name_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lock = StoreLock(tmp_path, pod="gw-daemon-y", node="node-b")
    assert lock.try_acquire()
    assert lock.holder() == "a process that left no name"
    lock.release()


HOLDING = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from edgeha_runtime.daemon.keystore import StoreLock
print(StoreLock(Path(sys.argv[2]), pod="gw-daemon-x", node="node-a").try_acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock on tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(RUNTIME), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate(timeout=10)


async def test_lock_says_who_holds_it_and_gives_up_in_time(
    tmp_path: Path, other_holder: subprocess.Popen[str]
) -> None:
    lock = StoreLock(tmp_path, pod="gw-daemon-y", node="node-b")
    with pytest.raises(StoreLockedError, match=r"in use by pod gw-daemon-x on node node-a, waited 0\.2 s"):
        await lock.acquire(0.2, poll=0.05)


async def test_lock_is_free_once_its_holder_was_killed(
    tmp_path: Path, other_holder: subprocess.Popen[str]
) -> None:
    lock = StoreLock(tmp_path, pod="gw-daemon-y", node="node-b")
    assert not lock.try_acquire()
    other_holder.kill()
    await lock.acquire(10, poll=0.05)
    assert lock.holder() == "pod gw-daemon-y on node node-b"
    lock.release()
