// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"io"
	"os"
)

// install copies this program to a volume that containers of other images mount, which may hold no program at all.
func install(target string) (err error) {
	own, err := os.Executable()
	if err != nil {
		return err
	}
	source, err := os.Open(own)
	if err != nil {
		return err
	}
	defer source.Close()
	made, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer func() {
		if closed := made.Close(); err == nil {
			err = closed
		}
	}()
	_, err = io.Copy(made, source)
	return err
}

// hold does nothing until it is stopped: a kubelet removes no image that a container was made from.
func hold() {
	stopped, cancel := untilStopped()
	defer cancel()
	<-stopped.Done()
}
