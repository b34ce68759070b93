package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What a new server needs of the cluster: its authorities and keys. It stands in the datastore, encrypted with the
// token, and a server gives it to one that joins.
var bootstrapFiles = []string{
	"tls/server-ca.crt", "tls/server-ca.key", "tls/client-ca.crt", "tls/client-ca.key",
	"tls/request-header-ca.crt", "tls/request-header-ca.key", "tls/etcd/server-ca.crt", "tls/etcd/server-ca.key",
	"tls/etcd/peer-ca.crt", "tls/etcd/peer-ca.key", "tls/service.key", "cred/encryption-config.json",
}

func readBootstrap(h home) ([]byte, error) {
	document := map[string][]byte{}
	for _, name := range bootstrapFiles {
		content, err := os.ReadFile(h.server(name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		document[name] = content
	}
	return json.Marshal(document)
}

func writeBootstrap(h home, content []byte) error {
	document := map[string][]byte{}
	if err := json.Unmarshal(content, &document); err != nil {
		return fmt.Errorf("bootstrap data: %w", err)
	}
	for _, name := range bootstrapFiles {
		value, found := document[name]
		if !found {
			continue
		}
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, ".crt") {
			mode = 0o644
		}
		if before, err := os.ReadFile(h.server(name)); err == nil && bytes.Equal(before, value) {
			continue
		}
		if err := writeAtomic(h.server(name), value, mode); err != nil {
			return err
		}
	}
	return nil
}

func bootstrapKey(password string) string {
	digest := sha256.Sum256([]byte(password))
	return "/bootstrap/" + hex.EncodeToString(digest[:])[:12]
}

func sealer(password string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha1.New, password, salt, 4096, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func seal(password string, content []byte) (string, error) {
	salt := make([]byte, 8)
	_, _ = rand.Read(salt)
	aead, err := sealer(password, salt)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	return hex.EncodeToString(salt) + ":" + base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, content, nil)), nil
}

func unseal(password, sealed string) ([]byte, error) {
	first, second, _ := strings.Cut(sealed, ":")
	salt, err := hex.DecodeString(first)
	if err != nil {
		return nil, err
	}
	content, err := base64.StdEncoding.DecodeString(second)
	if err != nil {
		return nil, err
	}
	aead, err := sealer(password, salt)
	if err != nil {
		return nil, err
	}
	if len(content) < aead.NonceSize() {
		return nil, errors.New("bootstrap data is cut off")
	}
	return aead.Open(nil, content[:aead.NonceSize()], content[aead.NonceSize():], nil)
}

var errOtherToken = errors.New("bootstrap data already found and encrypted with different token")

// loadBootstrap reads what the datastore keeps; nil means that it keeps nothing yet.
func loadBootstrap(ctx context.Context, client *clientv3.Client, password string) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	answer, err := client.Get(limited, "/bootstrap/", clientv3.WithRange("/bootstrap0"))
	if err != nil {
		return nil, err
	}
	for _, pair := range answer.Kvs {
		if string(pair.Key) == bootstrapKey(password) {
			return unseal(password, string(pair.Value))
		}
	}
	if len(answer.Kvs) > 0 {
		return nil, errOtherToken
	}
	return nil, nil
}

// saveBootstrap writes it for this token. It speaks in the transactions that kine knows too.
func saveBootstrap(ctx context.Context, client *clientv3.Client, password string, content []byte) error {
	sealed, err := seal(password, content)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	key := bootstrapKey(password)
	answer, err := client.Get(limited, key)
	if err != nil {
		return err
	}
	revision := int64(0)
	if len(answer.Kvs) > 0 {
		revision = answer.Kvs[0].ModRevision
	}
	transaction := client.Txn(limited).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpPut(key, sealed))
	if revision > 0 {
		transaction = transaction.Else(clientv3.OpGet(key))
	}
	_, err = transaction.Commit()
	return err
}

func deleteBootstrap(ctx context.Context, client *clientv3.Client, password string) error {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	key := bootstrapKey(password)
	answer, err := client.Get(limited, key)
	if err != nil || len(answer.Kvs) == 0 {
		return err
	}
	revision := answer.Kvs[0].ModRevision
	_, err = client.Txn(limited).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpDelete(key)).Else(clientv3.OpGet(key)).Commit()
	return err
}
