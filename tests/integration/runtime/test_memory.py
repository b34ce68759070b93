# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon does not keep in memory, in the environment of its image."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.integration.runtime.parts import RUNTIME, image_environment

LOOK = """
import json, ssl, sys
import edgeha_runtime.daemon.__main__
from lightkube.models import core_v1
print(json.dumps({
    "modules": sorted(sys.modules),
    "docstring": core_v1.PodSpec.__doc__,
    "cas": ssl.create_default_context().cert_store_stats()["x509_ca"],
}))
"""
# Of lightkube's models, as many as Kubernetes has groups: its client's own, and the daemon's objects'.
MODELS = {
    "_schema",
    "apiextensions_v1",
    "apps_v1",
    "authentication_v1",
    "autoscaling_v1",
    "core_v1",
    "meta_v1",
    "policy_v1",
    "resource",
    "runtime",
    "util_intstr",
}
# What libraries load for uses that are not the daemon's.
NOT_USED = {"httpx2.websockets", "multiprocessing", "pydoc", "unittest"}


def test_only_what_is_used_is_loaded() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(RUNTIME)} | image_environment()
    said = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, check=True, capture_output=True, text=True
    ).stdout
    found = json.loads(said)
    prefix = "lightkube.models."
    assert {name.removeprefix(prefix) for name in found["modules"] if name.startswith(prefix)} <= MODELS
    assert not NOT_USED & set(found["modules"])
    assert (found["docstring"], found["cas"]) == (None, 0)
