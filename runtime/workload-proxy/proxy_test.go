// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type seen struct {
	path, authorization, body string
}

// serve runs a daemon with a certificate for a name; it returns that certificate in PEM too.
func serve(t *testing.T, name string, handler http.Handler) (*httptest.Server, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{name},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	daemon := httptest.NewUnstartedServer(handler)
	daemon.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: private}}}
	daemon.StartTLS()
	t.Cleanup(daemon.Close)
	return daemon, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}

// start runs a daemon that records what reaches it, and the proxy in front of it.
func start(t *testing.T, status int) (front *httptest.Server, requests *[]seen, tokenPath string) {
	t.Helper()
	requests = &[]seen{}
	daemon, certificate := serve(t, serverName, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		*requests = append(*requests, seen{r.URL.EscapedPath(), r.Header.Get("Authorization"), string(body)})
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"digest":"x"}`)
	}))
	tokenPath = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenPath, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	front = frontOf(t, daemon.URL, tokenPath, certificate, workload)
	return front, requests, tokenPath
}

func frontOf(t *testing.T, daemon, tokenPath, certificate string, limits patience) *httptest.Server {
	t.Helper()
	handler, err := newProxy(daemon, tokenPath, certificate, limits)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(handler)
	front.Config = newServer("", handler, limits)
	front.Start()
	t.Cleanup(front.Close)
	return front
}

func send(t *testing.T, method, url string, body io.Reader, header map[string]string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

func message(t *testing.T, text string) string {
	t.Helper()
	var body struct{ Message string }
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatalf("no ErrorResponse: %q", text)
	}
	return body.Message
}

func TestForwardsWithThePodsTokenInPlaceOfAnyOther(t *testing.T) {
	front, requests, _ := start(t, 200)
	path := "/modules/a%2Fb/genid/1/sign?api-version=2020-07-07"
	status, text := send(t, "POST", front.URL+path, strings.NewReader("{}"),
		map[string]string{"Authorization": "Bearer stolen"})
	if status != 200 || text != `{"digest":"x"}` {
		t.Fatalf("got %d %q", status, text)
	}
	if want := (seen{"/modules/a%2Fb/genid/1/sign", "Bearer first", "{}"}); (*requests)[0] != want {
		t.Fatalf("daemon saw %+v, want %+v", (*requests)[0], want)
	}
}

func TestReadsTheTokenAgainWhenTheKubeletReplacedIt(t *testing.T) {
	front, requests, tokenPath := start(t, 200)
	send(t, "GET", front.URL+"/trust-bundle", nil, nil)
	fresh := tokenPath + ".new"
	if err := os.WriteFile(fresh, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(fresh, time.Now(), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, tokenPath); err != nil {
		t.Fatal(err)
	}
	send(t, "GET", front.URL+"/trust-bundle", nil, nil)
	if got := (*requests)[1].authorization; got != "Bearer second" {
		t.Fatalf("daemon saw %q", got)
	}
}

func TestDaemonAwayIsA502ThatSaysSo(t *testing.T) {
	front, _, tokenPath := start(t, 200)
	gone, certificate := serve(t, serverName, http.NotFoundHandler())
	gone.Close()
	limits := workload
	limits.hold = 0
	front = frontOf(t, gone.URL, tokenPath, certificate, limits)
	status, text := send(t, "POST", front.URL+"/modules/m/genid/1/sign", strings.NewReader("{}"), nil)
	if status != 502 || !strings.Contains(message(t, text), "does not answer") {
		t.Fatalf("got %d %q", status, text)
	}
}

func TestSomebodyElseIsNotTheDaemon(t *testing.T) {
	_, requests, tokenPath := start(t, 200)
	record := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { *requests = append(*requests, seen{}) })
	other, _ := serve(t, serverName, record)
	_, pinned := serve(t, serverName, http.NotFoundHandler())
	misnamed, itsOwn := serve(t, "gw-daemon.edge-gw.svc", record)
	for name, front := range map[string]*httptest.Server{
		"another certificate": frontOf(t, other.URL, tokenPath, pinned, workload),
		"another name":        frontOf(t, misnamed.URL, tokenPath, itsOwn, workload),
	} {
		status, text := send(t, "POST", front.URL+"/modules/m/genid/1/sign", strings.NewReader("{}"), nil)
		if status != 502 || !strings.Contains(message(t, text), "certificate") {
			t.Errorf("%s: got %d %q", name, status, text)
		}
	}
	if len(*requests) != 0 {
		t.Fatalf("it saw %+v", *requests)
	}
}

func TestNoTokenIsA502AndReachesNobody(t *testing.T) {
	front, requests, tokenPath := start(t, 200)
	if err := os.Remove(tokenPath); err != nil {
		t.Fatal(err)
	}
	status, text := send(t, "GET", front.URL+"/trust-bundle", nil, nil)
	if status != 502 || !strings.Contains(message(t, text), "token") {
		t.Fatalf("got %d %q", status, text)
	}
	if len(*requests) != 0 {
		t.Fatalf("daemon saw %+v", *requests)
	}
}

func TestBodiesAreBoundedWithAndWithoutALength(t *testing.T) {
	front, requests, _ := start(t, 200)
	large := bytes.Repeat([]byte("x"), maxBody+1)
	for name, body := range map[string]io.Reader{
		"known length":   bytes.NewReader(large),
		"unknown length": io.MultiReader(bytes.NewReader(large)),
	} {
		status, text := send(t, "POST", front.URL+"/modules/m/genid/1/sign", body, nil)
		if status != 413 {
			t.Errorf("%s: got %d %q", name, status, text)
		}
	}
	if len(*requests) != 0 {
		t.Errorf("daemon saw %d whole requests", len(*requests))
	}
}

func TestReadyMeansThatTheDaemonKnowsThisPod(t *testing.T) {
	front, requests, _ := start(t, 200)
	if status, text := send(t, "GET", front.URL+readyPath, nil, nil); status != 200 {
		t.Fatalf("got %d %q", status, text)
	}
	if (*requests)[0].authorization != "Bearer first" {
		t.Fatalf("asked without the token: %+v", (*requests)[0])
	}
	front, _, _ = start(t, 403)
	if status, _ := send(t, "GET", front.URL+readyPath, nil, nil); status != 503 {
		t.Fatalf("got %d although the daemon refuses", status)
	}
	if err := check(strings.TrimPrefix(front.URL, "http://")); err == nil {
		t.Fatal("check passed although the daemon refuses")
	}
}

func TestTooManyAtOnceAreTurnedAway(t *testing.T) {
	release := make(chan struct{})
	handle := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })
	daemon, certificate := serve(t, serverName, handle)
	tokenPath := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenPath, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	handler, err := newProxy(daemon.URL, tokenPath, certificate, workload)
	if err != nil {
		t.Fatal(err)
	}
	for range maxParallel {
		handler.slots <- struct{}{}
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest("GET", "/trust-bundle", nil))
	close(release)
	if recorder.Code != 503 || recorder.Header().Get("Retry-After") == "" {
		t.Fatalf("got %d %v", recorder.Code, recorder.Header())
	}
}

func TestSettingsThatCannotWorkAreRefused(t *testing.T) {
	_, certificate := serve(t, serverName, http.NotFoundHandler())
	for _, daemon := range []string{"", "daemon:35001", "ftp://daemon", "http://daemon:35001"} {
		if _, err := newProxy(daemon, "/token", certificate, workload); err == nil || !strings.Contains(err.Error(), envURL) {
			t.Errorf("%q: %v", daemon, err)
		}
	}
	for _, none := range []string{"", "no certificate"} {
		if _, err := newProxy("https://daemon:35001", "/token", none, workload); err == nil ||
			!strings.Contains(err.Error(), envCertificate) {
			t.Errorf("%q: %v", none, err)
		}
	}
	if _, err := newProxy("https://daemon:35001", "", certificate, workload); err == nil || !strings.Contains(err.Error(), envTokenFile) {
		t.Errorf("no token path: %v", err)
	}
}

func TestLinesOfALogPassWhenTheyAreWritten(t *testing.T) {
	more := make(chan struct{})
	daemon, certificate := serve(t, serverName, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "second\n")
	}))
	tokenPath := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenPath, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Shorter than the daemon takes: a log is followed for as long as the module runs.
	limits := management
	limits.header = time.Second
	front := frontOf(t, daemon.URL, tokenPath, certificate, limits)
	answer, err := http.Get(front.URL + "/modules/m/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	line := make([]byte, 6)
	if _, err := io.ReadFull(answer.Body, line); err != nil || string(line) != "first\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	close(more)
	rest, err := io.ReadAll(answer.Body)
	if err != nil || string(rest) != "second\n" {
		t.Fatalf("got %q, %v", rest, err)
	}
}
