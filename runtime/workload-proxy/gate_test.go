// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestGateOfTheActiveSlotIsOpen(t *testing.T) {
	if err := waitAtGate(activeSlot); err != nil {
		t.Fatal(err)
	}
}

func TestGateWithoutASlotIsAMistakeAndStaysClosed(t *testing.T) {
	if err := waitAtGate(""); err == nil {
		t.Fatal("it opened")
	}
}

func TestGateOfAStandbyStaysClosedUntilThePodEnds(t *testing.T) {
	// Held here too, so that a signal that comes before the gate listens does not end the tests.
	stopped, cancel := untilStopped()
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- waitAtGate("b") }()
	select {
	case err := <-ended:
		t.Fatalf("it ended by itself: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, errClosed) {
				t.Fatalf("it opened: %v", err)
			}
			<-stopped.Done()
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
