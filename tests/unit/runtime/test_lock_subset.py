# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's requirements are the lock's own lines, complete, and nothing that is not needed."""

from __future__ import annotations

from pathlib import Path

import lock_subset
import pytest

REPOSITORY = Path(__file__).parents[3]
LOCK = """\
# made by a tool
a-root==1.0 \\
    --hash=sha256:11 \\
    --hash=sha256:12
    # via -r requirements.in
b==2.0 ; python_version < "4" \\
    --hash=sha256:21
    # via
    #   A_Root
    #   other
c[x]==3.0 \\
    --hash=sha256:31
    # via b
other==4.0 \\
    --hash=sha256:41
    # via -r requirements.in
"""


def test_it_holds_the_roots_and_all_they_need_with_their_hashes() -> None:
    found = lock_subset.subset(LOCK, ["A.root"])
    assert [line.split("==")[0] for line in found.splitlines() if "==" in line] == ["a-root", "b", "c[x]"]
    assert found.count("--hash") == 4
    assert "other" not in found


def test_a_root_that_is_not_locked_is_named() -> None:
    with pytest.raises(lock_subset.LockError, match="not in the lock: missing"):
        lock_subset.subset(LOCK, ["other", "missing"])


@pytest.mark.parametrize(
    ("roots", "needed"),
    [("runtime/requirements.in", "httpx2"), ("lab/images/sensor/requirements.in", "paho-mqtt")],
)
def test_the_images_requirements_come_out_of_the_projects_lock(roots: str, needed: str) -> None:
    lines = (REPOSITORY / roots).read_text().splitlines()
    lock = (REPOSITORY / "requirements/requirements.lock").read_text()
    found = lock_subset.subset(lock, [line for line in lines if line and not line.startswith("#")])
    assert f"\n{needed}==" in found
    assert "ansible" not in found
