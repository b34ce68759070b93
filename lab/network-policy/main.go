// Command network-policy enforces the NetworkPolicies of the pods of one node: kube-router's controller for them,
// with neither its routes nor its service proxy. When it ends, what it wrote into the kernel goes with it.
//
// It is kube-router's library in a main of our own, because kube-router's also links BGP and the clients of clouds and
// of container engines, and its --cleanup-config leaves the rules of policies where they are (2.1.0).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/spf13/pflag"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const cacheLimit = time.Minute

func main() {
	config := options.NewKubeRouterConfig()
	flags := pflag.NewFlagSet(os.Args[0], pflag.ExitOnError)
	// What stands in no flag is not set at all, not even to its default.
	config.AddFlags(flags)
	if err := flags.Parse(os.Args[1:]); err != nil {
		klog.ErrorS(err, "flags")
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, config); err != nil {
		klog.ErrorS(err, "network policies are not enforced")
		os.Exit(1)
	}
}

func run(ctx context.Context, config *options.KubeRouterConfig) error {
	access, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("looking for the API as a pod: %w", err)
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return fmt.Errorf("making a client of the API: %w", err)
	}

	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	factory.Start(ctx.Done())
	if err := wait(ctx, factory); err != nil {
		return err
	}

	made := func() (*netpol.NetworkPolicyController, error) {
		tables, sets, err := netpol.NewIPTablesHandlers(config)
		if err != nil {
			return nil, fmt.Errorf("looking for iptables and ipset: %w", err)
		}
		return netpol.NewNetworkPolicyController(
			client, config, pods, policies, namespaces, &sync.Mutex{}, tables, sets)
	}
	controller, err := made()
	if err != nil {
		return fmt.Errorf("making the controller: %w", err)
	}
	// One that has not run cleans up: it adds what it finds to the rules that it wrote last.
	cleaner, err := made()
	if err != nil {
		return fmt.Errorf("making the controller: %w", err)
	}
	for _, watched := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{pods, controller.PodEventHandler},
		{namespaces, controller.NamespaceEventHandler},
		{policies, controller.NetworkPolicyEventHandler},
	} {
		if _, err := watched.informer.AddEventHandler(watched.handler); err != nil {
			return fmt.Errorf("watching the API: %w", err)
		}
	}

	// The controller waits for a reader of its heartbeats.
	beats := make(chan *healthcheck.ControllerHeartbeat)
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-beats:
			case <-ended:
				return
			}
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	controller.Run(beats, ctx.Done(), &running)
	running.Wait()
	close(ended)
	cleaner.Cleanup()
	return nil
}

// wait returns when the pods, namespaces and policies that there are have been read.
func wait(ctx context.Context, factory informers.SharedInformerFactory) error {
	limited, cancel := context.WithTimeout(ctx, cacheLimit)
	defer cancel()
	for kind, read := range factory.WaitForCacheSync(limited.Done()) {
		if !read {
			return fmt.Errorf("reading all %s from the API: not done in %s", kind, cacheLimit)
		}
	}
	return nil
}
