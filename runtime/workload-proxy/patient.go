// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	connectTimeout   = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	// Between two attempts to connect.
	connectPause = 500 * time.Millisecond
)

// awayError says that there was no connection to the daemon, so nothing was sent.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

// connect returns what dials the daemon. Each error but that of somebody else's certificate is an awayError: it may pass.
func connect(config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, awayError{err}
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		connection := tls.Client(raw, config)
		if err := connection.HandshakeContext(ctx); err != nil {
			raw.Close()
			var foreign *tls.CertificateVerificationError
			if errors.As(err, &foreign) {
				return nil, err
			}
			return nil, awayError{err}
		}
		return connection, nil
	}
}

// patient holds a request for as long as the daemon cannot be connected to: clients such as stock edgeHub try three
// times and exit, and a daemon that moves to another machine is away for longer than that.
type patient struct {
	next http.RoundTripper
	hold time.Duration
}

func (p patient) RoundTrip(request *http.Request) (*http.Response, error) {
	begun := time.Now()
	for first := true; ; first = false {
		attempt := request
		if request.Body != nil && request.Body != http.NoBody {
			// A transport closes the body of an attempt that failed too. The server closes it for good.
			attempt = request.Clone(request.Context())
			attempt.Body = io.NopCloser(request.Body)
		}
		reply, err := p.next.RoundTrip(attempt)
		var away awayError
		if err == nil || !errors.As(err, &away) || time.Since(begun)+connectPause > p.hold {
			return reply, err
		}
		if first {
			slog.Warn("daemon away, holding the request", "path", request.URL.EscapedPath(), "reason", err.Error())
		}
		pause := time.NewTimer(connectPause)
		select {
		case <-request.Context().Done():
			pause.Stop()
			return nil, request.Context().Err()
		case <-pause.C:
		}
	}
}
