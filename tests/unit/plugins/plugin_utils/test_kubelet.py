# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import kubelet


def program(folder: Path, text: str) -> None:
    file = folder / "kubelet"
    file.write_text(text)
    file.chmod(0o755)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  kubelet\n")


def test_a_kubelet_tells_its_version(tmp_path: Path) -> None:
    program(tmp_path, "#!/bin/sh\n[ $1 = --version ] && echo Kubernetes v1.34.4\n")
    assert kubelet.version(str(tmp_path)) == "v1.34.4"


@pytest.mark.parametrize(
    "text", ["\x7fELF of another machine", "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho none\n"]
)
def test_what_cannot_be_asked_has_no_version(tmp_path: Path, text: str) -> None:
    program(tmp_path, text)
    assert kubelet.version(str(tmp_path)) == ""


def test_what_is_not_the_file_of_the_sums_is_not_run(tmp_path: Path) -> None:
    assert kubelet.version(str(tmp_path / "none")) == ""
    program(tmp_path, f"#!/bin/sh\ntouch {tmp_path}/ran\necho Kubernetes v1.34.4\n")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  kubelet\n")
    assert kubelet.version(str(tmp_path)) == ""
    assert not (tmp_path / "ran").exists()
