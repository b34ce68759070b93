// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestASocketServesAndIsCheckedWithoutAnyPort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "workload.sock")
	status := http.StatusOK
	for range 2 { // a container that is started anew finds the socket of the one before
		listener, err := listenAt(unixScheme + path)
		if err != nil {
			t.Fatal(err)
		}
		if network := listener.Addr().Network(); network != "unix" {
			t.Fatalf("it listens on %s", network)
		}
		server := newServer("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != readyPath {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(status)
		}), workload)
		go func() { _ = server.Serve(listener) }()
		if err := check(unixScheme + path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o666 {
			t.Fatalf("mode %o: a module may have any user", info.Mode().Perm())
		}
		status = http.StatusServiceUnavailable
		if err := check(unixScheme + path); err == nil {
			t.Fatal("check passed although the proxy is not ready")
		}
		status = http.StatusOK
		// Killed: it leaves its socket behind.
		if err := os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
		server.Close()
		if err := os.Rename(path+".old", path); err != nil {
			t.Fatal(err)
		}
	}
	if err := check(unixScheme + path); err == nil {
		t.Fatal("check passed although nobody serves")
	}
}

func TestASocketThatCannotBeMadeIsTold(t *testing.T) {
	if _, err := listenAt(unixScheme + filepath.Join(t.TempDir(), "missing", "workload.sock")); err == nil {
		t.Fatal("no error")
	}
}
