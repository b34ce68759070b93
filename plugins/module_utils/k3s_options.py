# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that modules for k3s have in common; their documentation is the fragment `k3s`."""

from __future__ import annotations

from typing import Any

BINARY = "/usr/local/bin/k3s"

DATA_DIR: dict[str, Any] = {"data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"}}
PROGRAM: dict[str, Any] = {"binary": {"type": "path", "default": BINARY}}
API: dict[str, Any] = {
    "config_dir": {"type": "path", "default": "/etc/rancher"},
    "api_port": {"type": "int", "default": 6443},
}
