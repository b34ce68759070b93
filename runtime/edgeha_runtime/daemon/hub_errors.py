# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong between the device and the cloud."""

from __future__ import annotations


class HubError(Exception):
    """The hub refused, and asking again would not help; the message says why and what to do."""


class HubUnavailableError(HubError):
    """The hub did not answer, or asked to come back later."""
