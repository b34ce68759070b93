package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
)

var fullToken = regexp.MustCompile(`^K10([0-9a-f]{64})::(?:([^:]+):)?(.+)$`)

// credential is a token taken apart: K10<hash of the cluster's CA>::<user>:<password>, or the password alone.
type credential struct {
	caHash   string
	user     string
	password string
}

func parseToken(token, user string) (credential, error) {
	if !strings.HasPrefix(token, "K10") {
		return credential{user: user, password: token}, nil
	}
	parts := fullToken.FindStringSubmatch(token)
	if parts == nil {
		return credential{}, fmt.Errorf("invalid token format: K10 is not followed by a CA hash and credentials")
	}
	if parts[2] != "" {
		user = parts[2]
	}
	return credential{caHash: parts[1], user: user, password: parts[3]}, nil
}

func formatToken(bundle []byte, user, password string) (string, error) {
	hash, err := caHash(bundle)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("K10%s::%s:%s", hash, user, password), nil
}

func randomHex(bytes int) string {
	buffer := make([]byte, bytes)
	_, _ = rand.Read(buffer)
	return hex.EncodeToString(buffer)
}

// remote is another server of the cluster, known by its certificate authority.
type remote struct {
	url    string
	bundle []byte
	who    credential
	client *http.Client
}

// meet fetches the authority of a server, and holds it against the token before any credential is sent.
func meet(url string, who credential) (*remote, error) {
	if !strings.HasPrefix(url, "https://") {
		return nil, fmt.Errorf("invalid server url, failed to parse: %s must use https", url)
	}
	url = strings.TrimSuffix(url, "/")
	careless := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, //nolint:gosec
	}
	answer, err := careless.Get(url + "/cacerts")
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	defer answer.Body.Close()
	bundle, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil || answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("failed to get CA certs: %s/cacerts: %s", url, answer.Status)
	}
	if who.caHash != "" {
		hash, err := caHash(bundle)
		if err != nil {
			return nil, fmt.Errorf("failed to get CA certs: %w", err)
		}
		if hash != who.caHash {
			return nil, fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", who.caHash, hash)
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s/cacerts holds no certificate", url)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 1, IdleConnTimeout: 5 * time.Second,
	}}
	return &remote{url: url, bundle: bundle, who: who, client: client}, nil
}

type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

func (r *remote) call(method, path string, header map[string]string, body []byte) ([]byte, error) {
	request, err := http.NewRequest(method, r.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(r.who.user, r.who.password)
	for key, value := range header {
		request.Header.Set(key, value)
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 {
		detail := strings.TrimSpace(string(content))
		if len(detail) > 400 {
			detail = detail[:400]
		}
		return nil, &statusError{answer.StatusCode, fmt.Sprintf("%s: %s: %s", r.url+path, answer.Status, detail)}
	}
	return content, nil
}

func (r *remote) get(path string) ([]byte, error) { return r.call(http.MethodGet, path, nil, nil) }
