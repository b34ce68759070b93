package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

// balancer is an agent's way to the servers: one local port, behind it whichever server answers. It remembers the
// servers in a file, so that an agent comes up again when the one that it joined through is away.
type balancer struct {
	url   string
	file  string
	probe *http.Client

	lock    sync.Mutex
	first   string // the address that the agent was given
	servers []string
	broken  map[string]int
	open    map[string]map[net.Conn]bool
}

type balancerFile struct {
	ServerURL       string
	ServerAddresses []string
}

func newBalancer(ctx context.Context, h home, server string, port int, off bool) (*balancer, error) {
	place, err := url.Parse(server)
	if err != nil || place.Scheme != "https" || place.Host == "" {
		return nil, fmt.Errorf("invalid server url, failed to parse: %s", server)
	}
	address := place.Host
	if place.Port() == "" {
		address = net.JoinHostPort(place.Hostname(), "443")
	}
	b := &balancer{
		url: fmt.Sprintf("https://127.0.0.1:%d", port), file: h.agent("etc", "k3s-agent-load-balancer.json"), first: address,
		broken: map[string]int{}, open: map[string]map[net.Conn]bool{},
		probe: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, //nolint:gosec // asks for a sign of life only
		}},
	}
	if off {
		b.url = server
		return b, nil
	}
	kept := balancerFile{}
	if content, err := os.ReadFile(b.file); err == nil && json.Unmarshal(content, &kept) == nil && kept.ServerURL == server {
		b.servers = kept.ServerAddresses
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	b.remember(server)
	infof("Running load balancer k3s-agent-load-balancer 127.0.0.1:%d -> %v [default: %s]", port, b.servers, b.first)
	go func() {
		<-ctx.Done()
		_ = listener.Close()
	}()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go b.carry(connection)
		}
	}()
	go b.watch(ctx)
	return b, nil
}

func (b *balancer) remember(server string) {
	b.lock.Lock()
	content, _ := json.MarshalIndent(balancerFile{server, b.servers}, "", "  ")
	b.lock.Unlock()
	if err := writeChanged(b.file, content, 0o600); err != nil {
		warnf("%s: %v", b.file, err)
	}
}

// candidates in the order to try: those that answer before those that did not.
func (b *balancer) candidates() []string {
	b.lock.Lock()
	defer b.lock.Unlock()
	good, bad, seen := []string{}, []string{}, map[string]bool{}
	for _, address := range append(append([]string{}, b.servers...), b.first) {
		if seen[address] {
			continue
		}
		seen[address] = true
		if b.broken[address] > 0 {
			bad = append(bad, address)
		} else {
			good = append(good, address)
		}
	}
	return append(good, bad...)
}

func (b *balancer) carry(connection net.Conn) {
	for _, address := range b.candidates() {
		other, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			b.mark(address, false)
			continue
		}
		b.lock.Lock()
		if b.open[address] == nil {
			b.open[address] = map[net.Conn]bool{}
		}
		b.open[address][other] = true
		b.lock.Unlock()
		splice(connection, other)
		b.lock.Lock()
		delete(b.open[address], other)
		b.lock.Unlock()
		return
	}
	_ = connection.Close()
}

// mark keeps account of a server. One that misses two probes loses its connections: a machine without power closes none.
func (b *balancer) mark(address string, good bool) {
	b.lock.Lock()
	defer b.lock.Unlock()
	if good {
		b.broken[address] = 0
		return
	}
	b.broken[address]++
	if b.broken[address] >= 2 {
		for connection := range b.open[address] {
			_ = connection.Close()
		}
	}
}

func (b *balancer) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for _, address := range b.candidates() {
			answer, err := b.probe.Get("https://" + address + "/ping")
			if err == nil {
				_ = answer.Body.Close()
			}
			b.mark(address, err == nil)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
}

// follow keeps the list of servers as the cluster has it.
func (b *balancer) follow(ctx context.Context, a *agent) {
	for ctx.Err() == nil {
		if text, err := a.peer.get("/v1-k3s/apiservers"); err == nil {
			found := []string{}
			if json.Unmarshal(text, &found) == nil && len(found) > 0 {
				b.lock.Lock()
				b.servers = found
				b.lock.Unlock()
				b.remember(a.options.text("server"))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
	}
}
