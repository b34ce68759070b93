package main

import (
	"context"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

func external(t *testing.T, words ...string) (*datastore, error) {
	t.Helper()
	o, err := parse(serverFlags, words, noFile)
	if err != nil {
		t.Fatal(err)
	}
	return externalDatastore(o)
}

func TestOnlyEtcdIsImitatedAsExternalDatastore(t *testing.T) {
	if got, err := external(t); got != nil || err != nil {
		t.Errorf("without one: %v, %v", got, err)
	}
	for _, endpoint := range []string{"postgres://user:hidden@db/k3s", "mysql://user:hidden@tcp(db:3306)/k3s", "hidden"} {
		_, err := external(t, "--datastore-endpoint="+endpoint)
		if err == nil || !strings.Contains(err.Error(), "needs the real k3s") || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	if _, err := external(t, "--datastore-endpoint=https://one:2379", "--datastore-certfile=/a"); err == nil {
		t.Error("a certificate without a key is taken")
	}
	got, err := external(t, "--datastore-endpoint=https://one:2379, https://two:2379", "--datastore-cafile=/ca",
		"--datastore-certfile=/cert", "--datastore-keyfile=/key")
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(got.arguments(), " ")
	for _, wanted := range []string{"--etcd-servers=https://one:2379,https://two:2379", "--etcd-cafile=/ca", "--etcd-keyfile=/key"} {
		if !strings.Contains(said, wanted) {
			t.Errorf("%s is not in %s", wanted, said)
		}
	}
}

func startTestEtcd(t *testing.T) string {
	t.Helper()
	config := embed.NewConfig()
	config.Dir, config.LogLevel, config.UnsafeNoFsync = t.TempDir(), "fatal", true
	// Sockets in a folder of the test's own.
	anywhere, peer := url.URL{Scheme: "unix", Host: "localhost:1"}, url.URL{Scheme: "unix", Host: "localhost:2"}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{anywhere}, []url.URL{anywhere}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	t.Chdir(t.TempDir())
	running, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Close)
	select {
	case <-running.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd is not ready")
	}
	return anywhere.String()
}

func TestServersMeetInADatastoreElsewhere(t *testing.T) {
	endpoint := startTestEtcd(t)
	meet := func(token string) (*server, error) {
		t.Helper()
		o, err := parse(serverFlags, []string{"--token=" + token, "--secrets-encryption"}, noFile)
		if err != nil {
			t.Fatal(err)
		}
		s := &server{options: o, home: home{t.TempDir()}, elsewhere: &datastore{endpoints: []string{endpoint}}}
		if err := s.setToken(token, false); err != nil {
			t.Fatal(err)
		}
		return s, s.meetInStore(context.Background(), token)
	}
	authority := func(s *server) string {
		t.Helper()
		content, err := os.ReadFile(s.home.tls("server-ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	first, err := meet("secret")
	if err != nil {
		t.Fatal(err)
	}
	second, err := meet("secret")
	if err != nil {
		t.Fatal(err)
	}
	if authority(first) != authority(second) {
		t.Error("two servers of one datastore have two authorities")
	}
	if !exists(second.home.server("cred", "encryption-config.json")) {
		t.Error("the second server does not know the keys of Secrets")
	}
	if _, err := meet("other"); err != errOtherToken {
		t.Errorf("another token: %v", err)
	}
	full, err := formatToken([]byte(authority(first)), "server", "secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := meet(full); err != nil {
		t.Errorf("the token in secure format: %v", err)
	}
	if _, err := meet("K10" + strings.Repeat("0", 64) + "::server:secret"); err == nil {
		t.Error("a token with the hash of another authority is taken")
	}
	late, err := firstBootstrap(context.Background(), first.store, "secret", []byte("late"))
	if err != nil || string(late) == "late" {
		t.Errorf("who comes second has its own authority: %s, %v", late, err)
	}
}
