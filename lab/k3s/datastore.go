package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// datastore is an etcd that somebody else runs. Servers that share it meet there, and need not name each other.
type datastore struct {
	endpoints                   []string
	authority, certificate, key string
}

// externalDatastore is the one that the options name; nil is none. Its address is a secret with other kinds, so no
// error shows it.
func externalDatastore(o *options) (*datastore, error) {
	endpoint := o.text("datastore-endpoint")
	if endpoint == "" {
		return nil, nil
	}
	d := &datastore{
		authority: o.text("datastore-cafile"), certificate: o.text("datastore-certfile"), key: o.text("datastore-keyfile"),
	}
	for _, each := range strings.Split(endpoint, ",") {
		each = strings.TrimSpace(each)
		scheme, rest, found := strings.Cut(each, "://")
		if !found || scheme != "https" && scheme != "http" {
			if !found {
				scheme = "this kind of datastore"
			}
			return nil, fmt.Errorf("--datastore-endpoint: %s needs the real k3s: the lab's work-alike does not imitate it", scheme)
		}
		if rest == "" {
			return nil, errors.New("--datastore-endpoint: an address is empty")
		}
		d.endpoints = append(d.endpoints, each)
	}
	if (d.certificate == "") != (d.key == "") {
		return nil, errors.New("--datastore-certfile and --datastore-keyfile go together")
	}
	return d, nil
}

func (d *datastore) connect() (*clientv3.Client, error) {
	return connectTo(d.endpoints, transport.TLSInfo{CertFile: d.certificate, KeyFile: d.key, TrustedCAFile: d.authority})
}

// arguments are those by which the API server reaches it.
func (d *datastore) arguments() []string {
	found := []string{"--etcd-servers=" + strings.Join(d.endpoints, ",")}
	for name, value := range map[string]string{
		"etcd-cafile": d.authority, "etcd-certfile": d.certificate, "etcd-keyfile": d.key,
	} {
		if value != "" {
			found = append(found, "--"+name+"="+value)
		}
	}
	return found
}

// meetInStore takes the cluster's authorities and keys from the datastore, or puts them there as the first server.
func (s *server) meetInStore(ctx context.Context, given string) error {
	store, err := s.elsewhere.connect()
	if err != nil {
		return err
	}
	s.store = store
	password := s.secrets().server
	content, err := loadBootstrap(ctx, store, password)
	if err != nil {
		return err
	}
	if content == nil {
		if err := s.makeAuthorities(); err != nil {
			return err
		}
		if content, err = readBootstrap(s.home); err != nil {
			return err
		}
		if content, err = firstBootstrap(ctx, store, password, content); err != nil {
			return err
		}
	}
	if err := writeBootstrap(s.home, content); err != nil {
		return err
	}
	who, err := parseToken(given, "server")
	if err != nil || who.caHash == "" {
		return err
	}
	bundle, err := os.ReadFile(s.home.tls("server-ca.crt"))
	if err != nil {
		return err
	}
	if hash, err := caHash(bundle); err != nil || hash != who.caHash {
		return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", who.caHash, hash)
	}
	return nil
}

// firstBootstrap writes what the cluster begins with, and returns it; of two servers that begin at once, one gets what
// the other wrote.
func firstBootstrap(ctx context.Context, client *clientv3.Client, password string, content []byte) ([]byte, error) {
	sealed, err := seal(password, content)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	key := bootstrapKey(password)
	answer, err := client.Txn(limited).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, sealed)).Else(clientv3.OpGet(key)).Commit()
	if err != nil || answer.Succeeded {
		return content, err
	}
	infof("Another server has begun this cluster")
	return unseal(password, string(answer.Responses[0].GetResponseRange().Kvs[0].Value))
}
