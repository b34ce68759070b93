package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"sigs.k8s.io/yaml"
)

// etcd is this server's member of the embedded cluster.
type etcd struct {
	home    home
	name    string
	node    string
	address string
	more    []string // --etcd-arg
	metrics bool

	running *embed.Etcd
}

func (e *etcd) folder(parts ...string) string {
	return e.home.server(append([]string{"db", "etcd"}, parts...)...)
}

func (e *etcd) isInitialized() bool { return exists(e.folder("member", "wal")) }

func (e *etcd) peerURL() string   { return fmt.Sprintf("https://%s:2380", e.address) }
func (e *etcd) clientURL() string { return fmt.Sprintf("https://%s:2379", e.address) }

// prepare sets a member aside that its cluster has removed, and gives this one the name that it keeps.
func (e *etcd) prepare(fresh bool) error {
	if exists(e.folder("tombstone")) {
		infof("tombstone file has been detected, removing data dir to rejoin the cluster")
		if err := e.setAside(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(e.folder(), 0o700); err != nil {
		return err
	}
	content, err := os.ReadFile(e.folder("name"))
	if err == nil && !fresh {
		e.name = string(content)
		return nil
	}
	e.name = e.node + "-" + randomHex(4)
	return writeAtomic(e.folder("name"), []byte(e.name), 0o600)
}

func (e *etcd) setAside() error {
	return os.Rename(e.folder(), e.home.server("db", fmt.Sprintf("etcd-old-%d", time.Now().Unix())))
}

// start begins the member; initial is "name=peer,…" of the cluster that it joins, or "" for one of its own.
func (e *etcd) start(initial string, forceNew bool) error {
	state := "existing"
	if initial == "" {
		initial, state = e.name+"="+e.peerURL(), "new"
	}
	tls := func(certificate, authority string) map[string]any {
		return map[string]any{
			"cert-file": e.home.tls("etcd", certificate+".crt"), "key-file": e.home.tls("etcd", certificate+".key"),
			"client-cert-auth": true, "trusted-ca-file": e.home.tls("etcd", authority+".crt"),
		}
	}
	document := map[string]any{
		"name": e.name, "data-dir": e.folder(), "force-new-cluster": forceNew,
		"listen-client-urls":    e.clientURL() + ",https://127.0.0.1:2379",
		"listen-peer-urls":      e.peerURL() + ",https://127.0.0.1:2380",
		"listen-metrics-urls":   "http://127.0.0.1:2381",
		"advertise-client-urls": e.clientURL(), "initial-advertise-peer-urls": e.peerURL(),
		"initial-cluster": initial, "initial-cluster-state": state,
		"heartbeat-interval": 500, "election-timeout": 5000, "snapshot-count": 10000,
		"client-transport-security": tls("server-client", "server-ca"),
		"peer-transport-security":   tls("peer-server-client", "peer-ca"),
		"logger":                    "zap", "log-outputs": []string{"stderr"}, "log-level": "error",
	}
	if e.metrics {
		document["listen-metrics-urls"] = fmt.Sprintf("http://%s:2381,http://127.0.0.1:2381", e.address)
	}
	if pageCacheSurvives() {
		document["unsafe-no-fsync"] = true
	}
	for _, argument := range e.more {
		key, value, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		var typed any
		if err := yaml.Unmarshal([]byte(value), &typed); err != nil {
			return fmt.Errorf("--etcd-arg=%s: %w", argument, err)
		}
		document[key] = typed
	}
	content, err := yaml.Marshal(document)
	if err != nil {
		return err
	}
	if err := writeAtomic(e.folder("config"), content, 0o600); err != nil {
		return err
	}
	config, err := embed.ConfigFromFile(e.folder("config"))
	if err != nil {
		return fmt.Errorf("etcd configuration: %w", err)
	}
	e.running, err = embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	return nil
}

// watch ends this process when its member was removed from the cluster, or its etcd stopped for another reason.
func (e *etcd) watch(ctx context.Context) {
	go func() {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-e.running.Server.StopNotify():
		case err = <-e.running.Err():
		}
		if ctx.Err() != nil {
			return
		}
		if e.running.Server.IsIDRemoved(uint64(e.running.Server.MemberID())) {
			_ = writeAtomic(e.folder("tombstone"), nil, 0o600)
			fatalf("this node has been removed from the cluster please restart k3s to rejoin the cluster")
		}
		fatalf("etcd stopped: %v", err)
	}()
}

// waitReady waits for the member to serve: for the cluster's quorum, as long as that takes.
func (e *etcd) waitReady(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.running.Server.ReadyNotify():
			return nil
		case <-time.After(5 * time.Second):
			infof("Waiting for etcd server to become available")
		}
	}
}

func (e *etcd) connect(endpoints ...string) (*clientv3.Client, error) {
	return connectStore(e.home, endpoints...)
}

func connectStore(h home, endpoints ...string) (*clientv3.Client, error) {
	return connectTo(endpoints, transport.TLSInfo{
		CertFile: h.tls("etcd", "client.crt"), KeyFile: h.tls("etcd", "client.key"),
		TrustedCAFile: h.tls("etcd", "server-ca.crt"),
	})
}

func connectTo(endpoints []string, info transport.TLSInfo) (*clientv3.Client, error) {
	settings := clientv3.Config{
		Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
	}
	if strings.HasPrefix(endpoints[0], "https") {
		config, err := info.ClientConfig()
		if err != nil {
			return nil, err
		}
		settings.TLS = config
	}
	return clientv3.New(settings)
}

// join adds this member as a learner and starts it. One learner joins at a time; others wait here.
func (e *etcd) join(ctx context.Context, members []*etcdserverpb.Member) error {
	endpoints := []string{}
	for _, member := range members {
		if !member.IsLearner {
			endpoints = append(endpoints, member.ClientURLs...)
		}
	}
	if len(endpoints) == 0 {
		return errors.New("the server told of no etcd member to join")
	}
	client, err := e.connect(endpoints...)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		initial, err := e.addLearner(ctx, client)
		if err == nil {
			infof("Starting etcd to join cluster with members [%s]", initial)
			return e.start(initial, false)
		}
		switch {
		case errors.Is(err, rpctypes.ErrTooManyLearners), errors.Is(err, rpctypes.ErrUnhealthy),
			errors.Is(err, rpctypes.ErrMemberNotEnoughStarted), errors.Is(err, context.DeadlineExceeded):
			infof("Waiting for other members to finish joining etcd cluster: %v", err)
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (e *etcd) addLearner(ctx context.Context, client *clientv3.Client) (string, error) {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	answer, err := client.MemberList(limited)
	if err != nil {
		return "", err
	}
	add, initial := true, []string{}
	for _, member := range answer.Members {
		name := member.Name
		for _, peer := range member.PeerURLs {
			place, err := url.Parse(peer)
			if err != nil {
				return "", err
			}
			// A member that never started has no name; at our address it is ours.
			if name == "" && place.Hostname() == e.address {
				name = e.name
			}
			if name == e.name && place.Hostname() == e.address {
				add = false
			}
			initial = append(initial, name+"="+peer)
		}
		node := name
		if cut := strings.LastIndex(name, "-"); cut > 0 {
			node = name[:cut]
		}
		if name != e.name && node == e.node {
			_ = os.Remove(e.folder("name"))
			return "", errors.New("duplicate node name found, please use a unique name for this node")
		}
	}
	if add {
		infof("Adding member %s=%s to etcd cluster [%s]", e.name, e.peerURL(), strings.Join(initial, ","))
		if _, err := client.MemberAddAsLearner(limited, []string{e.peerURL()}); err != nil {
			return "", err
		}
		initial = append(initial, e.name+"="+e.peerURL())
	}
	return strings.Join(initial, ","), nil
}

// manage promotes learners that have caught up. Only the leader does it.
func (e *etcd) manage(ctx context.Context, client *clientv3.Client) {
	for ctx.Err() == nil {
		pause := 5 * time.Second
		if e.isLeader() {
			for _, member := range e.running.Server.Cluster().Members() {
				if !member.IsLearner || member.Name == "" {
					continue
				}
				pause = 500 * time.Millisecond
				limited, cancel := context.WithTimeout(ctx, 5*time.Second)
				if _, err := client.MemberPromote(limited, uint64(member.ID)); err == nil {
					infof("Promoted learner %s", member.Name)
				}
				cancel()
			}
			if pause > time.Second {
				pause = time.Second
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (e *etcd) isLeader() bool {
	return e.running != nil && e.running.Server.Leader() == e.running.Server.MemberID()
}

// members as others need them to join.
func (e *etcd) members() []*etcdserverpb.Member {
	found := []*etcdserverpb.Member{}
	if e.running == nil {
		return found
	}
	for _, member := range e.running.Server.Cluster().Members() {
		found = append(found, &etcdserverpb.Member{
			ID: uint64(member.ID), Name: member.Name, PeerURLs: member.PeerURLs,
			ClientURLs: member.ClientURLs, IsLearner: member.IsLearner,
		})
	}
	return found
}

// remove takes a member with this name and address out of the cluster; one that is gone is fine.
func (e *etcd) remove(ctx context.Context, client *clientv3.Client, name, address string) error {
	for _, member := range e.members() {
		if member.Name != name {
			continue
		}
		for _, peer := range member.PeerURLs {
			place, err := url.Parse(peer)
			if err != nil || place.Hostname() != address {
				continue
			}
			infof("Removing name=%s id=%d address=%s from etcd", name, member.ID, address)
			_, err = client.MemberRemove(ctx, member.ID)
			if err == nil || errors.Is(err, rpctypes.ErrMemberNotFound) {
				return nil
			}
			return err
		}
	}
	return nil
}

func (e *etcd) stop() {
	if e.running != nil {
		e.running.Close()
	}
}

func snapshotFolder(o *options, h home) string {
	if given := o.text("etcd-snapshot-dir"); given != "" {
		return given
	}
	return h.server("db", "snapshots")
}
