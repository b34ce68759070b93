package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
)

const ruleResyncSeconds = 60

// runNetwork joins the node to the pod network, with flannel's library. Whatever backend the cluster names, packets
// go by the host-gateway routes: the lab's machines stand in one network.
func (a *agent) runNetwork(ctx context.Context) {
	for told := ""; ctx.Err() == nil; {
		err := a.network(ctx)
		if ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			infof("flannel: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (a *agent) network(ctx context.Context) error {
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	settings := a.home.agent("etc", "flannel", "net-conf.json")
	content := fmt.Sprintf(`{"Network": %q, "EnableIPv6": false, "EnableIPv4": true, "EnableNFTables": false, "Backend": {"Type": "host-gw"}}`, a.cluster.ClusterIPRange)
	if err := writeChanged(settings, []byte(content), 0o644); err != nil {
		return err
	}
	manager, err := kube.NewSubnetManager(limited, "", a.home.agent("k3scontroller.kubeconfig"), "flannel.alpha.coreos.com", settings, false)
	if err != nil {
		return fmt.Errorf("reading this node and its pod subnet from the API: %w", err)
	}
	config, err := manager.GetNetworkConfig(limited)
	if err != nil {
		return err
	}
	family, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	link, err := ipmatch.LookupExtIface(a.address, "", "", family, ipmatch.PublicIPOpts{})
	if err != nil {
		return fmt.Errorf("looking for the interface that holds %s: %w", a.address, err)
	}
	routes, err := backend.NewManager(limited, manager, link).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	network, err := routes.RegisterNetwork(limited, &running, config)
	if err != nil {
		return fmt.Errorf("taking this node's lease on the pod network: %w", err)
	}
	lease := network.Lease()
	rules := iptables.IPTablesManager{}
	if err := rules.Init(limited); err != nil {
		return err
	}
	if err := rules.SetupAndEnsureMasqRules(limited, config.Network, lease.Subnet, config.Network, config.IPv6Network,
		lease.IPv6Subnet, config.IPv6Network, lease, ruleResyncSeconds, true); err != nil {
		return fmt.Errorf("setting masquerade rules: %w", err)
	}
	rules.SetupAndEnsureForwardRules(limited, config.Network, config.IPv6Network, ruleResyncSeconds)
	if err := os.MkdirAll("/run/flannel", 0o755); err != nil {
		return err
	}
	subnet := fmt.Sprintf("FLANNEL_NETWORK=%s\nFLANNEL_SUBNET=%s\nFLANNEL_MTU=%d\nFLANNEL_IPMASQ=true\n", config.Network, lease.Subnet, network.MTU())
	if err := writeChanged("/run/flannel/subnet.env", []byte(subnet), 0o644); err != nil {
		return err
	}
	if err := a.writeCNI(lease.Subnet.String(), config.Network.String(), network.MTU()); err != nil {
		return err
	}
	running.Add(1)
	go func() {
		defer running.Done()
		network.Run(limited)
	}()
	err = manager.CompleteLease(limited, lease, &running)
	if err != nil {
		cancel()
	}
	running.Wait()
	return err
}

func (a *agent) writeCNI(nodeSubnet, podNetwork string, mtu int) error {
	document := map[string]any{
		"cniVersion": "0.4.0",
		"name":       "cbr0",
		"plugins": []map[string]any{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false, "mtu": mtu,
				"ipam": map[string]any{
					"type":    "host-local",
					"ranges":  [][]map[string]string{{{"subnet": nodeSubnet}}},
					"routes":  []map[string]string{{"dst": "0.0.0.0/0"}, {"dst": podNetwork}},
					"dataDir": "/var/lib/cni/networks",
				},
			},
			{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}
	content, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	return writeChanged(a.home.agent("etc", "cni", "net.d", "10-flannel.conflist"), append(content, '\n'), 0o600)
}
