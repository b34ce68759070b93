// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func tokenOf(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestARequestIsHeldUntilTheDaemonIsBackWithItsWholeBody(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 100_000) // more than what is read along with a header
	got := make(chan []byte, 2)
	daemon, certificate := serve(t, serverName, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all, _ := io.ReadAll(r.Body)
		got <- all
	}))
	// Connections are refused at this address until the daemon's are passed on there.
	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := reserved.Addr().String()
	reserved.Close()
	limits := workload
	// Less than it is held: they begin when it goes on.
	limits.read, limits.write = 300*time.Millisecond, 300*time.Millisecond
	front := frontOf(t, "https://"+address, tokenOf(t), certificate, limits)
	tried := make(chan struct{})
	go func() {
		<-tried
		back, err := net.Listen("tcp", address)
		if err != nil {
			panic(err)
		}
		t.Cleanup(func() { back.Close() })
		for {
			connection, err := back.Accept()
			if err != nil {
				return
			}
			target, err := net.Dial("tcp", daemon.Listener.Addr().String())
			if err != nil {
				panic(err)
			}
			go func() { _, _ = io.Copy(target, connection) }()
			go func() { _, _ = io.Copy(connection, target) }()
		}
	}()
	time.AfterFunc(3*limits.read, func() { close(tried) })
	asked := make(chan string, 1)
	go func() { // net/http reads on behind a request without a body, and cancels it at the limit
		status, text := send(t, "GET", front.URL+"/trust-bundle", nil, nil)
		asked <- fmt.Sprint(status, text)
	}()
	status, text := send(t, "POST", front.URL+"/modules/m/genid/1/sign", bytes.NewReader(body), nil)
	if status != 200 {
		t.Fatalf("got %d %q", status, text)
	}
	if answered := <-asked; answered != "200" {
		t.Fatalf("without a body: got %s", answered)
	}
	if first, second := <-got, <-got; !bytes.Equal(first, body) && !bytes.Equal(second, body) {
		t.Fatal("the daemon saw another body")
	}
}

func TestARequestIsHeldForATimeOnly(t *testing.T) {
	gone, certificate := serve(t, serverName, http.NotFoundHandler())
	gone.Close()
	limits := workload
	limits.hold = 3 * connectPause / 2
	front := frontOf(t, gone.URL, tokenOf(t), certificate, limits)
	status, text := send(t, "GET", front.URL+"/trust-bundle", nil, nil)
	if status != 502 || !strings.Contains(message(t, text), "does not answer") {
		t.Fatalf("got %d %q", status, text)
	}
}

// counting is a transport that fails in one way.
type counting struct {
	err   error
	count int
}

func (c *counting) RoundTrip(*http.Request) (*http.Response, error) {
	c.count++
	return nil, c.err
}

func TestWhatMayHaveBeenSentIsNotSentAgain(t *testing.T) {
	next := &counting{err: io.ErrUnexpectedEOF}
	_, err := patient{next, time.Minute}.RoundTrip(httptest.NewRequest("POST", "/", strings.NewReader("x")))
	if !errors.Is(err, io.ErrUnexpectedEOF) || next.count != 1 {
		t.Fatalf("%d attempts, %v", next.count, err)
	}
}

func TestNobodyWaitsForAClientThatHungUp(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	next := &counting{err: awayError{io.EOF}}
	_, err := patient{next, time.Minute}.RoundTrip(httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) || next.count != 1 {
		t.Fatalf("%d attempts, %v", next.count, err)
	}
}

func TestADaemonThatDiesAfterTheRequestIsAskedOnce(t *testing.T) {
	var asked atomic.Int32
	daemon, certificate := serve(t, serverName, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			connection.Close()
		}
	}))
	front := frontOf(t, daemon.URL, tokenOf(t), certificate, workload)
	status, _ := send(t, "POST", front.URL+"/modules/m/genid/1/sign", strings.NewReader("{}"), nil)
	if status != 502 || asked.Load() != 1 {
		t.Fatalf("got %d after %d requests", status, asked.Load())
	}
}

// half sends the beginning of a request and returns all that comes until the proxy ends the connection.
func half(t *testing.T, limits patience, text string) string {
	t.Helper()
	daemon, certificate := serve(t, serverName, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler) // nobody is left to be answered
		}
	}))
	front := frontOf(t, daemon.URL, tokenOf(t), certificate, limits)
	connection, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(connection, text); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(bufio.NewReader(connection))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection was not ended: %q", all)
	}
	return string(all)
}

func TestHalfAHeaderIsCut(t *testing.T) {
	for name, limits := range map[string]patience{"workload": workload, "management": management} {
		if limits.request <= 0 {
			t.Fatalf("%s: a header may take for ever", name)
		}
		limits.request = 50 * time.Millisecond
		if got := half(t, limits, "GET /trust-bundle HTTP/1.1\r\nHost: x\r\n"); strings.Contains(got, "200") {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestHalfABodyIsCutAndToldSo(t *testing.T) {
	limits := workload
	limits.read = 50 * time.Millisecond
	text := "POST /modules/m/genid/1/sign HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf"
	if got := half(t, limits, text); !strings.HasPrefix(got, "HTTP/1.1 408") {
		t.Fatalf("got %q", got)
	}
}

// closing is a transport without a connection at first; as the contract of transports says, it closes the body.
type closing struct{ got string }

func (c *closing) RoundTrip(r *http.Request) (*http.Response, error) {
	first := c.got == ""
	c.got = "nothing"
	defer r.Body.Close()
	if first {
		return nil, awayError{io.EOF}
	}
	all, err := io.ReadAll(r.Body)
	c.got = string(all)
	return &http.Response{}, err
}

// closable is a body that cannot be read once it is closed.
type closable struct {
	io.Reader
	closed bool
}

func (c *closable) Close() error { c.closed = true; return nil }

func (c *closable) Read(into []byte) (int, error) {
	if c.closed {
		return 0, fs.ErrClosed
	}
	return c.Reader.Read(into)
}

func TestTheBodyIsThereForTheAttemptThatSucceeds(t *testing.T) {
	next := &closing{}
	request := httptest.NewRequest("POST", "/", &closable{Reader: strings.NewReader("all of it")})
	if _, err := (patient{next, time.Minute}).RoundTrip(request); err != nil || next.got != "all of it" {
		t.Fatalf("got %q, %v", next.got, err)
	}
}
