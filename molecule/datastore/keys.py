# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an authority, a certificate of an etcd, and one that k3s shows it: keys.py FOLDER ADDRESS."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.tls import issue

folder, address = Path(sys.argv[1]), sys.argv[2]
os.umask(0o077)
folder.mkdir(parents=True, exist_ok=True)
authority = issue("datastore authority", ca=True)
(folder / "ca.crt").write_text(authority.pem)
issue("etcd", authority, address=address).write(folder, "etcd")
issue("k3s", authority).write(folder, "k3s")
