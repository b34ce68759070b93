# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The classes of operations that a hub meters, and the tiers of hubs."""

from enum import StrEnum


class OperationClass(StrEnum):
    """What a call counts as."""

    IDENTITY = "identityRegistry"
    TWIN_READ = "twinReads"
    TWIN_WRITE = "twinUpdates"
    QUERY = "queries"
    CONFIGURATION = "configurations"
    JOB = "jobs"
    METHOD = "directMethods"
    CLOUD_TO_DEVICE = "cloudToDevice"
    OTHER = "other"


TIERS = ("F1", "S1", "S2", "S3")
