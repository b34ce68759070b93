# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables of the environment that lead to another cluster than the kubeconfig does. Pure."""

from __future__ import annotations

from collections.abc import Mapping

CONTEXT = "K8S_AUTH_CONTEXT"
# kubernetes.core and Helm take each of them before what the kubeconfig says.
_BEFORE_KUBECONFIG = (
    "K8S_AUTH_HOST",
    "K8S_AUTH_API_KEY",
    "K8S_AUTH_USERNAME",
    "K8S_AUTH_PASSWORD",
    "K8S_AUTH_CERT_FILE",
    "K8S_AUTH_KEY_FILE",
)
FACT = "is set, and would send parts of the run elsewhere than the kubeconfig"
FIX = "unset it (on AWX: take its credential off the job template), and name the cluster by a kubeconfig"


def misleading(environment: Mapping[str, str], in_memory: bool = False) -> list[str]:
    """Return the names of those that are set.

    in_memory: whether the kubeconfig is one of a run's own, which has one context with a name of its own.
    """
    names = (*_BEFORE_KUBECONFIG, CONTEXT) if in_memory else _BEFORE_KUBECONFIG
    return [name for name in names if environment.get(name)]
