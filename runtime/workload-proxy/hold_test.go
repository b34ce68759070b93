// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestInstalledProgramIsTheSameAndRuns(t *testing.T) {
	target := filepath.Join(t.TempDir(), "program")
	for range 2 { // a container that is started anew finds the one from before
		if err := install(target); err != nil {
			t.Fatal(err)
		}
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	found, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(found, wanted) {
		t.Fatal("the copy differs")
	}
	if output, err := exec.Command(target, "-test.list", "none").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}

func TestInstallTellsWhyItCannot(t *testing.T) {
	if err := install(filepath.Join(t.TempDir(), "missing", "program")); err == nil {
		t.Fatal("no error")
	}
}
