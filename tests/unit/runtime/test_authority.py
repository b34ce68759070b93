# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of modules chain to the CA that the gateway has, and live no longer than it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import ClientVerifier, PolicyBuilder, Store
from edgeha_runtime.daemon import authority
from edgeha_runtime.daemon.authority import AuthorityError, AuthorityFileError, EdgeCa, NameRefusedError

from tests import tls

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
Answer = TypeVar("Answer")


class Kept:
    """A store in memory."""

    def __init__(self) -> None:
        self.authority: tuple[str, str] | None = None
        self.writes = 0

    def keep_authority(self, key: str, chain: str) -> None:
        self.writes += 1
        self.authority = key, chain


class Full(Kept):
    """One on a disk that may be full."""

    full = False

    def keep_authority(self, key: str, chain: str) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().keep_authority(key, chain)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def run(work: Coroutine[None, None, Answer]) -> Answer:
    return asyncio.run(work)


def edge_ca(store: Kept, clock: Clock | None = None, files: tuple[Path, Path] | None = None) -> EdgeCa:
    return EdgeCa(
        store,
        device_id="gw-1",
        iothub_hostname="hub.example.net",
        certificate_file=files[0] if files else None,
        key_file=files[1] if files else None,
        clock=clock or Clock(),
    )


def certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def test_a_server_certificate_is_believed_for_its_names_and_for_no_other() -> None:
    ca = edge_ca(Kept())
    issued = run(ca.server("$edgeHub", "gw.plant.example", None))
    leaf, *above = certificates(issued.chain)
    roots = certificates(run(ca.roots()))
    assert above == roots
    builder = PolicyBuilder().store(Store(roots)).time(NOW)
    for name in ("gw.plant.example", "edgehub"):
        builder.build_server_verifier(x509.DNSName(name)).verify(leaf, [])
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example")).verify(leaf, [])
    assert leaf.subject.rfc4514_string() == "CN=gw.plant.example"
    key = authority.load_pem_private_key(issued.key.encode(), None)
    assert key.public_key() == leaf.public_key()
    assert issued.expiration == leaf.not_valid_after_utc == NOW + 90 * DAY


def test_an_identity_certificate_says_which_module_of_which_device() -> None:
    ca = edge_ca(Kept())
    leaf = certificates(run(ca.identity("Sensor", NOW + DAY)).chain)[0]
    verifier: ClientVerifier = (
        PolicyBuilder().store(Store(certificates(run(ca.roots())))).time(NOW).build_client_verifier()
    )
    verifier.verify(leaf, [])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "azureiot://hub.example.net/devices/gw-1/modules/Sensor"
    ]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc == NOW + DAY


@pytest.mark.parametrize("asked", [DAY, 89 * DAY, 91 * DAY, 4000 * DAY])
def test_no_certificate_outlives_ninety_days(asked: timedelta) -> None:
    issued = run(edge_ca(Kept()).server("m", "gw", NOW + asked))
    assert issued.expiration == NOW + min(asked, 90 * DAY)


def test_a_certificate_ends_with_its_ca(tmp_path: Path) -> None:
    files = tls.issue("plant CA", ca=True, days=(-1, 5)).write(tmp_path)
    issued = run(edge_ca(Kept(), files=files).server("m", "gw", None))
    leaf, ca = certificates(issued.chain)
    assert leaf.not_valid_after_utc == ca.not_valid_after_utc
    assert leaf.issuer == ca.subject


def test_a_long_common_name_stands_in_the_names_alone() -> None:
    name = ".".join(["a" * 60, "b" * 60, "example"])
    leaf = certificates(run(edge_ca(Kept()).server("m", name, None)).chain)[0]
    assert leaf.subject.rfc4514_string() == ""
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert name in names.value.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("name", ["10.7.0.10", "fd00::1"])
def test_an_address_is_one(name: str) -> None:
    leaf = certificates(run(edge_ca(Kept()).server("m", name, None)).chain)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(found) for found in names.get_values_for_type(x509.IPAddress)] == [name]


@pytest.mark.parametrize("name", ["", " ", "a b", "a..b", ".a", "ä.example", "a" * 254, "a\x00b", "a/b", "-"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    store = Kept()
    with pytest.raises(NameRefusedError):
        run(edge_ca(store).server("m", name, None))
    assert store.writes == 0


def is_believed(leaf: x509.Certificate, root: x509.Certificate, at: datetime) -> bool:
    verifier = PolicyBuilder().store(Store([root])).time(at).build_server_verifier(x509.DNSName("gw"))
    return bool(verifier.verify(leaf, []))


def of_before(now: datetime) -> tuple[str, str]:
    """A quickstart CA as daemons made it whose own lived for ninety days: key and certificate in PEM."""
    made = authority.quickstart("gw-1", now)
    old = (
        x509.CertificateBuilder(
            made.certificate.issuer,
            made.certificate.subject,
            made.certificate.public_key(),
            made.certificate.serial_number,
            made.certificate.not_valid_before_utc,
            now + 90 * DAY,
            list(made.certificate.extensions),
        )
    ).sign(made.key, hashes.SHA256())
    return made.key_pem(), authority.Authority(made.key, (old,)).pem()


def test_who_read_the_quickstart_ca_once_believes_it_when_all_leaves_of_then_are_over() -> None:
    clock = Clock()
    ca = edge_ca(Kept(), clock)
    first = certificates(run(ca.roots()))[0]
    clock.now = NOW + 95 * DAY
    leaf = certificates(run(ca.server("m", "gw", None)).chain)[0]
    assert is_believed(leaf, first, clock.now)
    assert leaf.not_valid_after_utc == clock.now + 90 * DAY


def test_a_quickstart_ca_of_before_is_renewed_in_time_for_long() -> None:
    store, clock = Kept(), Clock()
    store.authority = of_before(NOW)
    first = certificates(store.authority[1])[0]
    clock.now = NOW + 71 * DAY
    leaf = certificates(run(edge_ca(store, clock).server("m", "gw", None)).chain)[0]
    assert (store.writes, leaf.not_valid_after_utc) == (0, NOW + 90 * DAY), "it ends with its CA"
    clock.now = NOW + 73 * DAY
    second = certificates(run(edge_ca(store, clock).roots()))[0]
    assert (store.writes, second.public_key()) == (1, first.public_key())
    assert second.not_valid_after_utc == clock.now + 3650 * DAY
    assert is_believed(leaf, second, clock.now)


@pytest.mark.parametrize("anew", [False, True], ids=["same daemon", "next daemon"])
def test_a_quickstart_ca_of_a_clock_that_was_ahead_is_renewed_when_that_is_right(anew: bool) -> None:
    store, clock = Kept(), Clock()
    ca = edge_ca(store, clock)
    clock.now = NOW + 400 * DAY
    first = certificates(run(ca.roots()))[0]
    clock.now = NOW + timedelta(minutes=1)
    leaf, second = certificates(run((edge_ca(store, clock) if anew else ca).server("m", "gw", None)).chain)
    assert second.public_key() == first.public_key()
    assert is_believed(leaf, second, clock.now)
    assert store.writes == 2


def test_a_quickstart_ca_is_looked_at_but_not_made_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "LOOK_SECONDS", 0.0)
    store, clock = Kept(), Clock()
    ca = edge_ca(store, clock)

    async def look() -> None:
        follow = asyncio.create_task(ca.follow())
        for _turn in range(20):
            await asyncio.sleep(0)
        assert (store.writes, ca.expires) == (0, None)
        await ca.roots()
        clock.now = NOW + 4000 * DAY
        while store.writes < 2:
            await asyncio.sleep(0)
        follow.cancel()

    run(asyncio.wait_for(look(), 20))
    assert ca.not_ready() == []


def test_the_quickstart_ca_is_made_once_and_renewed_with_its_key() -> None:
    store, clock = Kept(), Clock()
    ca = edge_ca(store, clock)
    first = certificates(run(ca.roots()))[0]
    assert store.writes == 1
    clock.now = NOW + 2919 * DAY
    assert certificates(run(ca.roots())) == [first]
    before = certificates(run(ca.server("m", "gw", None)).chain)[0]
    clock.now = NOW + 2921 * DAY
    second = certificates(run(ca.roots()))[0]
    assert store.writes == 2
    assert second != first
    assert second.public_key() == first.public_key()
    assert second.not_valid_after_utc == clock.now + 3650 * DAY
    # Whoever has the new one believes what was signed before, and whoever has the old one what is signed now.
    after = certificates(run(ca.server("m", "gw", None)).chain)[0]
    assert is_believed(before, second, clock.now)
    assert is_believed(after, first, clock.now)


def test_a_quickstart_ca_that_has_expired_is_renewed_too() -> None:
    store, clock = Kept(), Clock()
    first = certificates(run(edge_ca(store, clock).roots()))[0]
    clock.now = NOW + 4000 * DAY
    second = certificates(run(edge_ca(store, clock).roots()))[0]
    assert second.public_key() == first.public_key()
    assert second.not_valid_after_utc > clock.now


async def asks(ca: EdgeCa) -> list[str]:
    return list(await asyncio.gather(*(ca.roots() for _ in range(8))))


def test_who_asks_together_gets_the_same_ca() -> None:
    store = Kept()
    assert len(set(run(asks(edge_ca(store))))) == 1
    assert store.writes == 1


def test_a_full_disk_at_the_renewal_leaves_the_quickstart_ca_as_it_is() -> None:
    store, clock = Full(), Clock()
    ca = edge_ca(store, clock)
    first = run(ca.roots())
    store.full = True
    clock.now = NOW + 3000 * DAY
    assert run(ca.roots()) == first
    store.full = False
    assert run(ca.roots()) != first
    store.full = True
    clock.now = NOW + 9000 * DAY
    with pytest.raises(AuthorityError, match="No space left"):
        run(ca.roots())


def test_a_full_disk_is_told_and_the_next_try_may_succeed() -> None:
    store = Full()
    store.full = True
    ca = edge_ca(store)
    with pytest.raises(AuthorityError, match="No space left"):
        run(ca.roots())
    store.full = False
    assert run(ca.roots())


def test_what_a_ca_signs_names_its_key_as_the_ca_itself_does(tmp_path: Path) -> None:
    # Not the SHA-1 of the key, as some programs make it.
    own = x509.SubjectKeyIdentifier(b"named-by-the-program")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + 400 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(own, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    leaf = certificates(run(edge_ca(Kept(), files=files).server("m", "gw", None)).chain)[0]
    found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found.key_identifier == own.digest


def test_a_ca_of_the_operator_is_read_anew_and_its_roots_are_the_operators_affair(tmp_path: Path) -> None:
    root = tls.issue("root", ca=True)
    files = tls.issue("one", root, ca=True).write(tmp_path)
    store = Kept()
    ca = edge_ca(store, files=files)
    leaf, issuer, above = certificates(run(ca.server("m", "gw", None)).chain)
    assert (issuer.subject.rfc4514_string(), above.subject.rfc4514_string()) == ("CN=one", "CN=root")
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root.certificate)
    tls.issue("two", root, ca=True).write(tmp_path)
    assert certificates(run(ca.server("m", "gw", None)).chain)[1].subject.rfc4514_string() == "CN=two"
    assert run(ca.roots()) == ""
    assert store.writes == 0


@pytest.mark.parametrize(
    ("days", "said"), [((-10, -1), "expired at"), ((1, 10), "is valid from")], ids=["expired", "early"]
)
def test_a_ca_outside_of_its_time_is_named_with_the_clock(
    tmp_path: Path, days: tuple[int, int], said: str
) -> None:
    ca = edge_ca(Kept(), files=tls.issue("plant CA", ca=True, days=days).write(tmp_path))
    with pytest.raises(AuthorityError, match=rf"CN=plant CA {said} .*clock"):
        run(ca.server("m", "gw", None))


@pytest.mark.parametrize(
    ("days", "said"), [((-10, -1), "expired at"), ((1, 10), "is valid from")], ids=["expired", "early"]
)
def test_one_above_the_ca_outside_of_its_time_is_named_too(
    tmp_path: Path, days: tuple[int, int], said: str
) -> None:
    between = tls.issue("plant devices", tls.issue("plant root", ca=True), ca=True, days=days)
    ca = edge_ca(Kept(), files=tls.issue("plant CA", between, ca=True).write(tmp_path))
    with pytest.raises(AuthorityError, match=rf"above the edge CA, CN=plant devices {said} .*clock"):
        run(ca.server("m", "gw", None))


def test_nothing_outlives_what_stands_above_the_ca(tmp_path: Path) -> None:
    between = tls.issue("plant devices", tls.issue("plant root", ca=True), ca=True, days=(-1, 7))
    ca = edge_ca(Kept(), files=tls.issue("plant CA", between, ca=True).write(tmp_path))
    issued = run(ca.server("m", "gw", None))
    end = between.certificate.not_valid_after_utc
    assert (issued.expiration, ca.expires) == (end, end)


def test_a_ca_that_cannot_be_used_is_told_before_a_module_asks(tmp_path: Path) -> None:
    files = tls.issue("plant CA", ca=True, days=(-10, -1)).write(tmp_path)
    ca = edge_ca(Kept(), files=files)

    async def looked() -> list[list[str]]:
        follow = asyncio.create_task(ca.follow())
        while not ca.not_ready():
            await asyncio.sleep(0.01)
        follow.cancel()
        return [ca.not_ready()]

    assert ca.not_ready() == []
    (told,) = run(asyncio.wait_for(looked(), 20))
    assert "CN=plant CA expired at" in told[0]


def test_an_error_that_nobody_thought_of_is_told_and_the_look_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = edge_ca(Kept(), files=tls.issue("plant CA", ca=True).write(tmp_path))
    read = authority._read
    monkeypatch.setattr(authority, "LOOK_SECONDS", 0.01)

    def odd(*_files: Path) -> authority.Authority:
        raise ValueError("an extension that no library reads")

    async def look() -> None:
        follow = asyncio.create_task(ca.follow())
        monkeypatch.setattr(authority, "_read", odd)
        while not ca.not_ready():
            await asyncio.sleep(0.01)
        monkeypatch.setattr(authority, "_read", read)
        while ca.not_ready():
            await asyncio.sleep(0.01)
        follow.cancel()

    run(asyncio.wait_for(look(), 20))


@pytest.mark.parametrize(
    ("key", "chain", "said"),
    [
        ("", "", "the certificate is not PEM"),
        ("x", None, "the key is not PEM"),
        (None, "other", "not that of the first certificate"),
        (None, "leaf", "not that of a CA"),
    ],
)
def test_what_is_no_ca_is_told(tmp_path: Path, key: str | None, chain: str | None, said: str) -> None:
    ca = tls.issue("plant CA", ca=chain != "leaf")
    texts = {
        None: ca.chain_pem,
        "leaf": ca.chain_pem,
        "other": tls.issue("other", ca=True).chain_pem,
        "": "",
    }
    with pytest.raises(AuthorityFileError, match=said):
        authority.parse((ca.key_pem if key is None else key).encode(), texts[chain].encode())
    files = ca.write(tmp_path)
    files[0].write_text(texts[chain])
    files[1].write_text(ca.key_pem if key is None else key)
    with pytest.raises(AuthorityError, match=f"{files[0]}: .*{said}.*Correct the edge CA"):
        run(edge_ca(Kept(), files=files).server("m", "gw", None))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "tls.crt", tmp_path / "tls.key"
    with pytest.raises(AuthorityError, match=r"tls\.key cannot be read: No such file"):
        run(edge_ca(Kept(), files=missing).server("m", "gw", None))


def test_devices_with_long_names_have_cas_with_names_of_their_own() -> None:
    names = {authority.quickstart("d" * 100 + end, NOW).certificate.subject.rfc4514_string() for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 64 + len("CN=") for name in names)
