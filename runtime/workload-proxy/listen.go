// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
)

const unixScheme = "unix://"

// place splits the address of a listener: unix:///path/of/socket, or host:port.
func place(address string) (network, name string) {
	if path, found := strings.CutPrefix(address, unixScheme); found {
		return "unix", path
	}
	return "tcp", address
}

// listenAt listens on a port, or on a socket that every user of the pod may use: whoever sees its folder is in the pod.
func listenAt(address string) (net.Listener, error) {
	network, name := place(address)
	if network == "unix" {
		// A container that is started anew finds the socket of the one before, on which nobody listens.
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.Listen(network, name)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := os.Chmod(name, 0o666); err != nil {
			listener.Close()
			return nil, err
		}
	}
	return listener, nil
}

// dialTo returns what connects to a listener's address, whatever host a URL names.
func dialTo(address string) func(context.Context, string, string) (net.Conn, error) {
	network, name := place(address)
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, name)
	}
}
