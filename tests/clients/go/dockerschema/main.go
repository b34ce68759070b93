// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Dockerschema prints every option of Docker's ContainerCreate as a JSON list of paths, taken from the types of
// Docker's own API by reflection. Lists and maps of objects have the paths of their objects.
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Deeper than this, what is inside of an option is a value and no option.
const depth = 4

func main() {
	found := []string{}
	walk(reflect.TypeFor[container.Config](), "", depth, &found)
	found = append(found, "HostConfig")
	walk(reflect.TypeFor[container.HostConfig](), "HostConfig.", depth, &found)
	found = append(found, "NetworkingConfig")
	walk(reflect.TypeFor[network.NetworkingConfig](), "NetworkingConfig.", depth, &found)
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(1)
	}
}

func walk(kind reflect.Type, prefix string, left int, found *[]string) {
	for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice || kind.Kind() == reflect.Map {
		kind = kind.Elem()
	}
	if kind.Kind() != reflect.Struct || left == 0 {
		return
	}
	for i := range kind.NumField() {
		field := kind.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case !field.IsExported() || name == "-":
		case field.Anonymous && name == "":
			walk(field.Type, prefix, left, found)
		default:
			if name == "" {
				name = field.Name
			}
			*found = append(*found, prefix+name)
			walk(field.Type, prefix+name+".", left-1, found)
		}
	}
}
