# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS that asks clients for a certificate and takes every one that they hold the key of.

Whether a certificate proves anything is decided later, by its thumbprint or by the authorities that
the hub knows. Python's own ssl module cannot do that: it ends a handshake with any certificate that
does not lead to a loaded authority. So OpenSSL runs here on memory buffers, between the TCP transport
and an ordinary protocol.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from iothub_emulator.logs import event
from iothub_emulator.state import State
from iothub_emulator.tls import unusable_certificate

_HANDSHAKE_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_CHUNK = 65536
# Name under which a transport tells the client's certificates, its own first.
_PEER_CERTIFICATES = "peer_certificates"


def client_tls_context(state: State) -> SSL.Context:
    """TLS 1.2 and later with the hub's certificate, asking for the client's. Raises StateError."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    try:
        context.use_certificate_chain_file(str(state.server_certificate))
        context.use_privatekey_file(str(state.server_key))
        context.check_privatekey()
    except SSL.Error as error:
        raise unusable_certificate(state, error) from error
    # The handshake still proves that the client holds the certificate's key.
    context.set_verify(SSL.VERIFY_PEER, lambda *_arguments: True)
    # A resumed session would carry no chain.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    return context


def peer_certificates(transport: asyncio.BaseTransport | None) -> Sequence[x509.Certificate]:
    """The client's certificate and those it sent along; empty when it sent none."""
    if transport is None:
        return ()
    certificates: Sequence[x509.Certificate] = transport.get_extra_info(_PEER_CERTIFICATES, ())
    return certificates


async def serve_client_tls(
    factory: Callable[[], asyncio.BaseProtocol], host: str, port: int, context: SSL.Context
) -> asyncio.Server:
    """Listen; each client's plain text goes to a protocol of `factory`. Raises OSError."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _TlsProtocol(factory, context), host, port)


class _TlsProtocol(asyncio.Protocol):
    """The TCP side of one client."""

    def __init__(self, factory: Callable[[], asyncio.BaseProtocol], context: SSL.Context) -> None:
        self._factory = factory
        self.tls = SSL.Connection(context, None)
        self.tls.set_accept_state()
        self._inner: asyncio.Protocol | None = None
        self.certificates: tuple[x509.Certificate, ...] = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("TLS needs a stream below it")
        self.tcp = transport
        self._deadline = asyncio.get_running_loop().call_later(_HANDSHAKE_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        self.tls.bio_write(data)
        try:
            if self._inner is None and not self._shake_hands():
                return
            self._deliver()
        except SSL.Error as error:
            self._fail(error)
        finally:
            self.flush()

    def _shake_hands(self) -> bool:
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            return False
        self._deadline.cancel()
        own = self.tls.get_peer_certificate(as_cryptography=True)
        if own is not None:
            # On a server's side the chain comes without the client's own certificate.
            above = self.tls.get_peer_cert_chain(as_cryptography=True) or []
            self.certificates = (own, *(certificate for certificate in above if certificate != own))
        inner = self._factory()
        if not isinstance(inner, asyncio.Protocol):
            raise TypeError("TLS needs a stream protocol above it")
        self._inner = inner
        self._transport = _TlsTransport(self)
        inner.connection_made(self._transport)
        return True

    def _deliver(self) -> None:
        if self._inner is None:
            return
        while not self._transport.aborted:
            try:
                data = self.tls.recv(_CHUNK)
            except SSL.WantReadError:
                return
            except SSL.ZeroReturnError:
                self._inner.eof_received()
                self._transport.close()
                return
            self._inner.data_received(data)

    def _fail(self, error: SSL.Error) -> None:
        event(
            "tls-failed", level=logging.WARNING, peer=self.tcp.get_extra_info("peername"), reason=str(error)
        )
        self.flush()  # the alert that says why
        self.tcp.close()

    def flush(self) -> None:
        """Send what OpenSSL has ready."""
        try:
            while True:
                self.tcp.write(self.tls.bio_read(_CHUNK))
        except SSL.WantReadError:
            return

    def eof_received(self) -> bool:
        if self._inner is not None:
            self._inner.eof_received()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()
        if self._inner is not None:
            self._transport.cancel_deadline()
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()


class _TlsTransport(asyncio.Transport):
    """What the protocol above writes to."""

    def __init__(self, below: _TlsProtocol) -> None:
        super().__init__()
        self._below = below
        self._tcp = below.tcp
        self._closing = False
        self._deadline: asyncio.TimerHandle | None = None
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "peer_certificates":
                return self._below.certificates
            case "sslcontext":
                return self._below.tls.get_context()
            case _:
                return self._tcp.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        # One record after the other goes to OpenSSL, all of them in one write to the network.
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._below.tls.send(rest) :]
        except SSL.Error:
            # The client broke the session; what comes of it is told by connection_lost.
            self.abort()
            return
        self._below.flush()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        # What is left of a connection that broke needs no goodbye.
        with contextlib.suppress(SSL.Error):
            self._below.tls.shutdown()
        self._below.flush()
        self._tcp.close()
        # A client that does not read keeps nothing open for ever.
        self._deadline = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._tcp.abort)

    def abort(self) -> None:
        self._closing = self.aborted = True
        self._tcp.abort()

    def cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def is_closing(self) -> bool:
        return self._closing or self._tcp.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._tcp.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def is_reading(self) -> bool:
        return self._tcp.is_reading()
