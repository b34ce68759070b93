package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for token, want := range map[string]credential{
		"secret":                          {user: "node", password: "secret"},
		"K10" + hash + "::server:pass:w":  {caHash: hash, user: "server", password: "pass:w"},
		"K10" + hash + "::abcdef.0123456": {caHash: hash, user: "node", password: "abcdef.0123456"},
	} {
		got, err := parseToken(token, "node")
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", token, got, err)
		}
	}
	if _, err := parseToken("K10short::server:x", "node"); err == nil {
		t.Error("a hash that is too short is taken")
	}
}

func TestAuthoritiesAndLeaves(t *testing.T) {
	folder := t.TempDir()
	if err := ensureCA(filepath.Join(folder, "server-ca"), "k3s-server-ca"); err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(folder, "server-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(bundle)
	if got, err := caHash(bundle); err != nil || got != hex.EncodeToString(digest[:]) {
		t.Errorf("the hash of an authority that signed itself is that of its file: %s, %v", got, err)
	}
	wanted := leaf{file: "serving", ca: "server-ca", name: "it", server: true, hosts: []string{"localhost", "10.0.0.1"}}
	read := func() []byte {
		t.Helper()
		if err := ensureLeaf(folder, wanted); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(folder, "serving.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	first := read()
	if !bytes.Equal(first, read()) {
		t.Error("a good certificate was made anew")
	}
	wanted.hosts = append(wanted.hosts, "10.0.0.2")
	if bytes.Equal(first, read()) {
		t.Error("a certificate without a new address stayed")
	}
	if info, _ := os.Stat(filepath.Join(folder, "serving.key")); info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %o", info.Mode().Perm())
	}
}

func TestBootstrapDataOpenWithTheirTokenOnly(t *testing.T) {
	sealed, err := seal("right", []byte("keys"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unseal("right", sealed); err != nil || string(got) != "keys" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := unseal("wrong", sealed); err == nil {
		t.Error("another token opened it")
	}
}

func TestRegistries(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "registries.yaml")
	text := "mirrors:\n  docker.io:\n    endpoint: ['https://mirror:5000']\n  '*': {}\nconfigs:\n  'mirror:5000':\n" +
		"    auth: {username: u, password: p}\n    tls: {ca_file: /ca, insecure_skip_verify: true}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := readRegistries(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := found.write(filepath.Join(folder, "certs.d"), false); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile(filepath.Join(folder, "certs.d", "docker.io", "hosts.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`server = "https://registry-1.docker.io/v2"`, `[host."https://mirror:5000"]`, `ca = "/ca"`, "skip_verify = true"} {
		if !strings.Contains(string(hosts), part) {
			t.Errorf("hosts.toml lacks %s:\n%s", part, hosts)
		}
	}
	if !strings.Contains(found.credentials(), `password = "p"`) {
		t.Error("the credentials are lost")
	}
	if err := os.WriteFile(file, []byte("mirrors: {docker.io: {rewrite: {a: b}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readRegistries(file); err == nil || !strings.Contains(err.Error(), "needs the real k3s") {
		t.Errorf("rewrite: %v", err)
	}
}

func TestImagesGetTheirWholeName(t *testing.T) {
	for short, want := range map[string]string{
		"rancher/mirrored-pause:3.6": "docker.io/rancher/mirrored-pause:3.6", "pause": "docker.io/library/pause",
		"registry.test:5000/a/b:1": "registry.test:5000/a/b:1", "localhost/a": "localhost/a",
	} {
		if got := fullImage(short); got != want {
			t.Errorf("%s: %s", short, got)
		}
	}
}
