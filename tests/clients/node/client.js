// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Makes and reads things with Microsoft's clients for Node.js: 'client.js create|read', a document on stdin,
// one on stdout. Both clients know no port but 443.

'use strict';

const { text } = require('node:stream/consumers');
const { Registry } = require('azure-iothub');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

const hub = () => Registry.fromConnectionString(process.env.HUB_CONNECTION_STRING);
const dps = () => ProvisioningServiceClient.fromConnectionString(process.env.DPS_CONNECTION_STRING);

async function create(wanted) {
  for (const device of wanted.devices ?? []) {
    await hub().create({ deviceId: device.id, status: 'enabled', capabilities: { iotEdge: device.edge } });
    const twin = (await hub().getTwin(device.id)).responseBody;
    await twin.update({ tags: device.tags });
  }
  for (const configuration of wanted.configurations ?? []) {
    await hub().addConfiguration({
      schemaVersion: '1.0',
      metrics: { queries: {}, results: {} },
      ...configuration,
    });
  }
  for (const enrollment of wanted.enrollments ?? []) {
    await dps().createOrUpdateIndividualEnrollment(enrollment);
  }
  return {};
}

async function read(wanted) {
  const found = { devices: [], configurations: [], enrollments: [] };
  for (const id of wanted.devices ?? []) {
    const identity = (await hub().get(id)).responseBody;
    const twin = (await hub().getTwin(id)).responseBody;
    found.devices.push({
      id: identity.deviceId,
      edge: identity.capabilities.iotEdge,
      status: identity.status,
      key: identity.authentication.symmetricKey.primaryKey,
      tags: twin.tags,
    });
  }
  for (const id of wanted.configurations ?? []) {
    const { content, priority, targetCondition, labels } = (await hub().getConfiguration(id)).responseBody;
    found.configurations.push({ id, content, priority, targetCondition, labels });
  }
  for (const id of wanted.enrollments ?? []) {
    const { registrationId, deviceId, provisioningStatus, attestation } = (
      await dps().getIndividualEnrollment(id)
    ).responseBody;
    found.enrollments.push({ registrationId, deviceId, provisioningStatus, type: attestation.type });
  }
  return found;
}

async function main() {
  const act = { create, read }[process.argv[2]];
  process.stdout.write(JSON.stringify(await act(JSON.parse(await text(process.stdin)))));
}

main().catch((error) => {
  console.error(error.message, error.responseBody ?? error.result ?? '');
  process.exitCode = 1;
});
