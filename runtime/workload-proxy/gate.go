// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"log/slog"
)

// activeSlot is the slot whose gate is open. As long as nothing decides about a takeover, that is always the first.
const activeSlot = "a"

var errClosed = errors.New("the gate stayed closed")

// waitAtGate returns nil when slot may run, and errClosed when the pod is ended before: whoever ends a gate does not
// open it.
func waitAtGate(slot string) error {
	switch slot {
	case activeSlot:
		return nil
	case "":
		return fmt.Errorf("%s is not set", envSlot)
	}
	stopped, cancel := untilStopped()
	defer cancel()
	slog.Info("standby: waiting at the gate", "slot", slot, "active", activeSlot)
	<-stopped.Done()
	return errClosed
}
