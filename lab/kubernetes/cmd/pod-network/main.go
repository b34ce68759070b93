// Command pod-network joins one node to the lab's pod network: flannel's
// host-gateway backend keeps the routes to the other nodes' pod subnets, and
// the CNI configuration for this node's own subnet is written once it is known.
//
// It is flannel's library with one backend, because flannel's own main also
// links backends that a lab on one machine has no use for.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	"k8s.io/klog/v2"
)

const ruleResyncSeconds = 15

func main() {
	networkConfig := flag.String("network-config", "/etc/pod-network/net-conf.json", "flannel's network configuration")
	cniConfig := flag.String("cni-config", "/etc/cni/net.d/10-pod-network.conflist", "CNI configuration to write")
	nodeAddress := flag.String("node-address", os.Getenv("NODE_ADDRESS"), "address whose interface carries pod traffic between nodes")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *networkConfig, *cniConfig, *nodeAddress); err != nil && !errors.Is(err, context.Canceled) {
		klog.ErrorS(err, "pod network stopped")
		os.Exit(1)
	}
}

func run(ctx context.Context, networkConfig, cniConfig, nodeAddress string) error {
	manager, err := kube.NewSubnetManager(ctx, "", "", "flannel.alpha.coreos.com", networkConfig, false)
	if err != nil {
		return fmt.Errorf("reading this node and its pod subnet from the API: %w", err)
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("reading %s: %w", networkConfig, err)
	}
	family, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	link, err := ipmatch.LookupExtIface(nodeAddress, "", "", family, ipmatch.PublicIPOpts{})
	if err != nil {
		return fmt.Errorf("looking for the interface that holds %s: %w", nodeAddress, err)
	}
	routes, err := backend.NewManager(ctx, manager, link).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	network, err := routes.RegisterNetwork(ctx, &running, config)
	if err != nil {
		return fmt.Errorf("taking this node's lease on the pod network: %w", err)
	}
	if err := ensureRules(ctx, config, network); err != nil {
		return err
	}
	if err := writeCNIConfig(cniConfig, network.Lease().Subnet.String(), config.Network.String(), network.MTU()); err != nil {
		return err
	}
	running.Add(1)
	go func() {
		defer running.Done()
		network.Run(ctx)
	}()
	err = manager.CompleteLease(ctx, network.Lease(), &running)
	running.Wait()
	return err
}

// ensureRules keeps forwarding open and masquerades what leaves the pod network.
func ensureRules(ctx context.Context, config *subnet.Config, network backend.Network) error {
	rules := iptables.IPTablesManager{}
	if err := rules.Init(ctx); err != nil {
		return err
	}
	lease := network.Lease()
	// Naming the present subnet as the previous one too: nothing is left to recycle on a fresh node.
	err := rules.SetupAndEnsureMasqRules(ctx, config.Network, lease.Subnet, config.Network,
		config.IPv6Network, lease.IPv6Subnet, config.IPv6Network, lease, ruleResyncSeconds, true)
	if err != nil {
		return fmt.Errorf("setting masquerade rules: %w", err)
	}
	rules.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, ruleResyncSeconds)
	return nil
}

func writeCNIConfig(path, nodeSubnet, podNetwork string, mtu int) error {
	document := map[string]any{
		"cniVersion": "0.4.0",
		"name":       "pod-network",
		"plugins": []map[string]any{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
				"ipMasq": false, "mtu": mtu,
				"ipam": map[string]any{
					"type":   "host-local",
					"ranges": [][]map[string]string{{{"subnet": nodeSubnet}}},
					"routes": []map[string]string{{"dst": "0.0.0.0/0"}, {"dst": podNetwork}},
				},
			},
			{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Renamed into place: the container runtime reads the folder at any moment.
	temporary := path + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
