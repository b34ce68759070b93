// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Makes and reads things with a client of the community: 'otherclient create|read', a document on stdin,
// one on stdout.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/amenzhinsky/iothub/iotservice"
)

type device struct {
	ID     string         `json:"id"`
	Edge   bool           `json:"edge"`
	Status string         `json:"status,omitempty"`
	Key    string         `json:"key,omitempty"`
	Tags   map[string]any `json:"tags,omitempty"`
}

type configuration struct {
	ID              string            `json:"id"`
	Content         map[string]any    `json:"content"`
	Priority        uint              `json:"priority"`
	TargetCondition string            `json:"targetCondition"`
	Labels          map[string]string `json:"labels"`
}

type toCreate struct {
	Devices        []device        `json:"devices"`
	Configurations []configuration `json:"configurations"`
}

type toRead struct {
	Devices        []string `json:"devices"`
	Configurations []string `json:"configurations"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	client, err := connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	input := json.NewDecoder(os.Stdin)
	var answer any = struct{}{}
	switch os.Args[1] {
	case "create":
		var wanted toCreate
		if err = input.Decode(&wanted); err == nil {
			err = create(ctx, client, wanted)
		}
	case "read":
		var wanted toRead
		if err = input.Decode(&wanted); err == nil {
			answer, err = read(ctx, client, wanted)
		}
	default:
		err = errors.New("say create or read")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// The client trusts Azure's own authorities, so its HTTP client is replaced.
func connect() (*iotservice.Client, error) {
	pem, err := os.ReadFile(os.Getenv("CA_FILE"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("CA_FILE holds no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return iotservice.NewFromConnectionString(
		os.Getenv("HUB_CONNECTION_STRING"),
		iotservice.WithHTTPClient(&http.Client{Transport: transport}),
	)
}

func create(ctx context.Context, client *iotservice.Client, wanted toCreate) error {
	for _, entry := range wanted.Devices {
		_, err := client.CreateDevice(ctx, &iotservice.Device{
			DeviceID:       entry.ID,
			Status:         iotservice.Enabled,
			Authentication: &iotservice.Authentication{Type: iotservice.AuthSAS},
			Capabilities:   map[string]any{"iotEdge": entry.Edge},
		})
		if err != nil {
			return err
		}
		if _, err = client.UpdateDeviceTwin(ctx, &iotservice.Twin{DeviceID: entry.ID, Tags: entry.Tags}); err != nil {
			return err
		}
	}
	for _, entry := range wanted.Configurations {
		modules, _ := entry.Content["modulesContent"].(map[string]any)
		_, err := client.CreateConfiguration(ctx, &iotservice.Configuration{
			ID:              entry.ID,
			SchemaVersion:   "1.0",
			Labels:          entry.Labels,
			Content:         &iotservice.ConfigurationContent{ModulesContent: modules},
			TargetCondition: entry.TargetCondition,
			Priority:        entry.Priority,
			Metrics:         &iotservice.ConfigurationMetrics{},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func read(ctx context.Context, client *iotservice.Client, wanted toRead) (*toCreate, error) {
	found := &toCreate{}
	for _, id := range wanted.Devices {
		identity, err := client.GetDevice(ctx, id)
		if err != nil {
			return nil, err
		}
		twin, err := client.GetDeviceTwin(ctx, id)
		if err != nil {
			return nil, err
		}
		edge, _ := identity.Capabilities["iotEdge"].(bool)
		found.Devices = append(found.Devices, device{
			ID: id, Edge: edge, Status: string(identity.Status), Tags: twin.Tags,
			Key: identity.Authentication.SymmetricKey.PrimaryKey,
		})
	}
	for _, id := range wanted.Configurations {
		entry, err := client.GetConfiguration(ctx, id)
		if err != nil {
			return nil, err
		}
		found.Configurations = append(found.Configurations, configuration{
			ID: id, Content: map[string]any{"modulesContent": entry.Content.ModulesContent},
			Priority: entry.Priority, TargetCondition: entry.TargetCondition, Labels: entry.Labels,
		})
	}
	return found, nil
}
