# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the modules for IoT Hub, in plugins that run on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_client, iothub_module

NAMES = tuple(iothub_module.argument_spec())


class OptionError(ValueError):
    """Options that exclude each other, or one that is missing; the message holds no value."""


def client(options: Mapping[str, Any]) -> iothub_client.HubClient:
    """Return a client of the hub. options: with every one of NAMES, None for what is not given.

    They are checked by the rules of the modules. Raises OptionError, CredentialError or ServiceUntrusted.
    """
    rules = {name: value for name, value in iothub_module.RULES.items() if name != "supports_check_mode"}
    validator = ArgumentSpecValidator(iothub_module.argument_spec(), **rules)
    # None is not given: with its default the option is as in a module.
    given = {name: options[name] for name in NAMES if options[name] is not None}
    result = validator.validate(given)
    if result.error_messages:
        raise OptionError("; ".join(result.error_messages))
    return iothub_module.client(result.validated_parameters)
