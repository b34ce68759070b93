// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Whom the daemon's certificate is for, wherever the daemon is reached.
	serverName = "edgeha-daemon"
	// Outside the paths of the workload API.
	readyPath = "/-/ready"
	// The daemon refuses more than this for sign; the rest of the contract is smaller than a certificate chain.
	maxBody     = 1 << 20
	maxHeader   = 16 << 10
	maxParallel = 32
	maxToken    = 8 << 10
	bufferSize  = 16 << 10
)

// patience is how long an API may take; 0 is without end. request and read: for a request's header, and for the whole
// of it; hold: until the daemon can be connected to; header: for the daemon's answer to begin; write: for the whole of it.
type patience struct {
	request, read, hold, header, write time.Duration
}

var (
	workload = patience{
		request: 5 * time.Second,
		read:    15 * time.Second,
		hold:    time.Minute,
		header:  15 * time.Second,
		write:   30 * time.Second,
	}
	// A stock agent waits five minutes for an answer, and reads logs for as long as it likes.
	management = patience{request: 5 * time.Second, hold: time.Minute, header: 5 * time.Minute}
)

// proxy forwards requests of the pod's module to the daemon.
type proxy struct {
	target  *url.URL
	token   *tokenFile
	forward *httputil.ReverseProxy
	client  *http.Client
	slots   chan struct{}
	limits  patience
}

// newProxy returns a proxy to the daemon at a URL, which is known by certificate (PEM) and by nothing else.
func newProxy(daemon, tokenPath, certificate string, limits patience) (*proxy, error) {
	target, err := url.Parse(daemon)
	if err != nil || target.Host == "" || target.Scheme != "https" {
		return nil, fmt.Errorf("%s is %q: give the https URL of the daemon's API", envURL, daemon)
	}
	pinned := x509.NewCertPool()
	if !pinned.AppendCertsFromPEM([]byte(certificate)) {
		return nil, fmt.Errorf("%s holds no certificate: give the daemon's, in PEM", envCertificate)
	}
	if tokenPath == "" {
		return nil, fmt.Errorf("%s is not set: give the path of the projected token", envTokenFile)
	}
	config := &tls.Config{RootCAs: pinned, ServerName: serverName, MinVersion: tls.VersionTLS13}
	transport := &http.Transport{
		// The daemon is in the cluster: never through a proxy, whatever the environment says.
		Proxy:                 nil,
		DialTLSContext:        connect(config),
		ResponseHeaderTimeout: limits.header,
		// Short: after the daemon moved, a kept connection leads to a node that may be dead.
		IdleConnTimeout:        5 * time.Second,
		MaxIdleConns:           4,
		MaxConnsPerHost:        maxParallel,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
	}
	p := &proxy{
		target: target,
		token:  &tokenFile{path: tokenPath},
		client: &http.Client{Transport: transport, Timeout: 2 * time.Second},
		slots:  make(chan struct{}, maxParallel),
		limits: limits,
	}
	p.forward = &httputil.ReverseProxy{
		Rewrite:      p.rewrite,
		Transport:    patient{transport, limits.hold},
		ErrorHandler: p.failed,
		BufferPool:   &bufferPool{},
		ErrorLog:     slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	return p, nil
}

func newServer(listen string, handler http.Handler, limits patience) *http.Server {
	return &http.Server{
		Addr:              listen,
		Handler:           handler,
		ReadHeaderTimeout: limits.request,
		ReadTimeout:       limits.read,
		WriteTimeout:      limits.write,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    maxHeader,
	}
}

type exchangeKey struct{}

// exchange is what is known of a request: the pod's token as it was when it came, and until when it may be read.
type exchange struct {
	token string
	end   atomic.Pointer[time.Time]
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == readyPath {
		p.ready(w, r)
		return
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, fmt.Sprintf("more than %d requests at once", maxParallel))
		return
	}
	if r.ContentLength > maxBody {
		answer(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxBody))
		return
	}
	token, err := p.token.read()
	if err != nil {
		slog.Error("no token", "reason", err.Error())
		answer(w, http.StatusBadGateway, "the pod's token cannot be read: "+err.Error())
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	// The server's limits count from the request's header on; a request that is held has them anew when it goes on.
	controller := http.NewResponseController(w)
	own := &exchange{token: token}
	p.extend(controller, own, p.limits.hold+connectTimeout+handshakeTimeout)
	ctx := httptrace.WithClientTrace(context.WithValue(r.Context(), exchangeKey{}, own), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { p.extend(controller, own, 0) },
	})
	p.forward.ServeHTTP(w, r.WithContext(ctx))
}

// extend lets the limits for reading the request and for writing the answer begin anew, after a time from now.
func (p *proxy) extend(controller *http.ResponseController, own *exchange, after time.Duration) {
	begin := time.Now().Add(after)
	if p.limits.read > 0 {
		end := begin.Add(p.limits.read)
		own.end.Store(&end)
		_ = controller.SetReadDeadline(end)
	}
	if p.limits.write > 0 {
		_ = controller.SetWriteDeadline(begin.Add(p.limits.write))
	}
}

func (p *proxy) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(p.target)
	// Whatever the module sent: the pod's own token is what the daemon shall judge.
	own, _ := r.In.Context().Value(exchangeKey{}).(*exchange)
	r.Out.Header.Set("Authorization", "Bearer "+own.token)
}

func (p *proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		answer(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxBody))
		return
	}
	if errors.Is(r.Context().Err(), context.Canceled) {
		own, _ := r.Context().Value(exchangeKey{}).(*exchange)
		if end := own.end.Load(); end != nil && !time.Now().Before(*end) {
			// So net/http cancels what it could not read in time.
			answer(w, http.StatusRequestTimeout, fmt.Sprintf("the request was not done within %s", p.limits.read))
			return
		}
		panic(http.ErrAbortHandler) // the module hung up; without an answer net/http would say 200
	}
	slog.Warn("daemon away", "path", r.URL.EscapedPath(), "reason", err.Error())
	answer(w, http.StatusBadGateway, fmt.Sprintf("the daemon at %s does not answer: %v", p.target.Host, err))
}

// ready answers 200 when token, way and daemon work together: the daemon knows this pod's module.
func (p *proxy) ready(w http.ResponseWriter, r *http.Request) {
	token, err := p.token.read()
	if err != nil {
		answer(w, http.StatusServiceUnavailable, "the pod's token cannot be read: "+err.Error())
		return
	}
	question, err := http.NewRequestWithContext(r.Context(), http.MethodGet,
		p.target.JoinPath("trust-bundle").String()+"?api-version=2020-07-07", nil)
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error())
		return
	}
	question.Header.Set("Authorization", "Bearer "+token)
	reply, err := p.client.Do(question)
	if err != nil {
		answer(w, http.StatusServiceUnavailable, fmt.Sprintf("the daemon does not answer: %v", err))
		return
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(reply.Body, 512))
		answer(w, http.StatusServiceUnavailable, fmt.Sprintf("the daemon answered %s: %s", reply.Status, reason))
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(reply.Body, maxBody))
	answer(w, http.StatusOK, "ready")
}

// answer writes the contract's ErrorResponse (also for the good news of the ready path).
func answer(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// tokenFile reads a projected token again whenever the kubelet has replaced it.
type tokenFile struct {
	path string

	mutex    sync.Mutex
	token    string
	modified time.Time
	size     int64
}

func (t *tokenFile) read() (string, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	info, err := os.Stat(t.path)
	if err != nil {
		return "", err
	}
	if t.token != "" && info.ModTime().Equal(t.modified) && info.Size() == t.size {
		return t.token, nil
	}
	if info.Size() > maxToken {
		return "", fmt.Errorf("%s has %d bytes, that is no token", t.path, info.Size())
	}
	raw, err := os.ReadFile(t.path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsAny(token, " \r\n\t") {
		return "", fmt.Errorf("%s holds no token", t.path)
	}
	t.token, t.modified, t.size = token, info.ModTime(), info.Size()
	return token, nil
}

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, bufferSize)
}

func (b *bufferPool) Put(buffer []byte) { b.pool.Put(&buffer) }
