package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
)

const (
	defaultKubeconfig = "/etc/rancher/k3s/k3s.yaml"
	nodePasswordFile  = "/etc/rancher/node/password"
	// The API server of this machine, behind the supervisor: the same port on an address of its own, so that the
	// endpoints of the service "kubernetes" name the port at which the supervisor listens on the node's address.
	hiddenAddress = "127.64.43.1"
)

// home knows where things are below the data directory.
type home struct{ root string }

func (h home) server(parts ...string) string {
	return filepath.Join(append([]string{h.root, "server"}, parts...)...)
}

func (h home) agent(parts ...string) string {
	return filepath.Join(append([]string{h.root, "agent"}, parts...)...)
}

func (h home) tls(parts ...string) string {
	return h.server(append([]string{"tls"}, parts...)...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// nodeAddress is --node-ip, else the address of the interface with the default route.
func nodeAddress(o *options) string {
	if given := o.list("node-ip"); len(given) > 0 {
		return given[0]
	}
	connection, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		fatalf("unable to select an IP from default routes: %v", err)
	}
	defer connection.Close()
	return connection.LocalAddr().(*net.UDPAddr).IP.String()
}

// nodeName is --node-name, else the host's name, in lower case; with --with-node-id an id of the machine behind it.
func nodeName(o *options) string {
	name := o.text("node-name")
	if name == "" {
		name, _ = os.Hostname()
	}
	name = strings.ToLower(name)
	if o.truth("with-node-id") {
		file := filepath.Join(filepath.Dir(nodePasswordFile), "id")
		id, err := os.ReadFile(file)
		if err != nil {
			id = []byte(randomHex(4))
			if err := writeAtomic(file, id, 0o600); err != nil {
				fatalf("writing %s: %v", file, err)
			}
		}
		name += "-" + strings.TrimSpace(string(id))
	}
	return name
}
