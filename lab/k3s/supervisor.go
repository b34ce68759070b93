package main

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The supervisor owns the one port of a server. It answers k3s's own paths, and hands every other request to the API
// server behind it, as a front proxy: who called with a certificate is told in headers, tokens pass as they are.

const (
	roleAgent  = "agent"
	roleServer = "server"
)

func sharePort(_, _ string, connection syscall.RawConn) error {
	var failed error
	err := connection.Control(func(descriptor uintptr) {
		failed = unix.SetsockoptInt(int(descriptor), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, failed)
}

func (s *server) listen(ctx context.Context) error {
	clientCAs, err := readCertificates(s.home.tls("client-ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, authority := range clientCAs {
		pool.AddCert(authority)
	}
	certificate, err := tls.LoadX509KeyPair(s.home.tls("serving-kube-apiserver.crt"), s.home.tls("serving-kube-apiserver.key"))
	if err != nil {
		return err
	}
	address := net.JoinHostPort(s.options.text("bind-address"), fmt.Sprint(s.port))
	settings := net.ListenConfig{Control: sharePort}
	listener, err := settings.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening at %s: %w", address, err)
	}
	handler, err := s.handler()
	if err != nil {
		return err
	}
	service := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          quietLog(),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool,
		},
	}
	go func() { _ = service.ServeTLS(listener, "", "") }()
	go func() {
		<-ctx.Done()
		_ = service.Close()
	}()
	infof("Listening on %s, supervisor and API", address)
	return nil
}

func (s *server) handler() (http.Handler, error) {
	api, err := s.apiProxy()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ping", func(w http.ResponseWriter, _ *http.Request) { writeText(w, "pong") })
	mux.HandleFunc("/cacerts", func(w http.ResponseWriter, r *http.Request) { s.serveFile(w, "server-ca.crt") })
	agent := func(path string, handle http.HandlerFunc) { mux.HandleFunc(path, s.only(roleAgent, handle)) }
	only := func(path string, handle http.HandlerFunc) { mux.HandleFunc(path, s.only(roleServer, handle)) }

	agent("/v1-k3s/config", s.serveConfig)
	agent("/v1-k3s/apiservers", s.serveServers)
	agent("/v1-k3s/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.apiReady.Load() {
			writeStatus(w, http.StatusServiceUnavailable, "runtime core not ready")
			return
		}
		writeText(w, "ok")
	})
	agent("/v1-k3s/client-ca.crt", func(w http.ResponseWriter, _ *http.Request) { s.serveFile(w, "client-ca.crt") })
	agent("/v1-k3s/server-ca.crt", func(w http.ResponseWriter, _ *http.Request) { s.serveFile(w, "server-ca.crt") })
	agent("/v1-k3s/serving-kubelet.crt", s.ofNode(func(name string, r *http.Request) (string, leaf) {
		hosts := append([]string{name, "localhost", "127.0.0.1"}, strings.Split(r.Header.Get("k3s-Node-IP"), ",")...)
		return "server-ca", leaf{name: name, server: true, hosts: hosts}
	}))
	agent("/v1-k3s/client-kubelet.crt", s.ofNode(func(name string, _ *http.Request) (string, leaf) {
		return "client-ca", leaf{name: "system:node:" + name, groups: []string{"system:nodes"}, client: true}
	}))
	agent("/v1-k3s/client-kube-proxy.crt", s.signing("client-ca", leaf{name: "system:kube-proxy", client: true}))
	agent("/v1-k3s/client-k3s-controller.crt", s.signing("client-ca", leaf{name: "system:k3s-controller", client: true}))

	only("/v1-k3s/server-bootstrap", s.serveBootstrap)
	only("/v1-k3s/token", s.serveToken)
	only("/v1-k3s/encrypt/status", s.serveEncryption)
	only("/db/info", s.serveMembers)
	only("/db/snapshot", s.serveSnapshots)
	mux.Handle("/", api)
	return mux, nil
}

// roles says what a caller may do here, by password or by certificate.
func (s *server) roles(r *http.Request) map[string]bool {
	found := map[string]bool{}
	if user, password, ok := r.BasicAuth(); ok {
		equal := func(secret string) bool {
			return secret != "" && subtle.ConstantTimeCompare([]byte(password), []byte(secret)) == 1
		}
		secrets := s.secrets()
		switch {
		case user == "server" && equal(secrets.server):
			found[roleServer], found[roleAgent] = true, true
		case user == "node" && (equal(secrets.agent) || equal(secrets.server)):
			found[roleAgent] = true
		}
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		for _, group := range r.TLS.PeerCertificates[0].Subject.Organization {
			switch group {
			case "system:masters":
				found[roleServer], found[roleAgent] = true, true
			case "system:nodes":
				found[roleAgent] = true
			}
		}
	}
	return found
}

func (s *server) only(role string, handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		roles := s.roles(r)
		switch {
		case len(roles) == 0:
			writeStatus(w, http.StatusUnauthorized, "Unauthorized")
		case !roles[role]:
			writeStatus(w, http.StatusForbidden, "not authorized")
		default:
			handle(w, r)
		}
	}
}

func (s *server) serveFile(w http.ResponseWriter, name string) {
	content, err := os.ReadFile(s.home.tls(name))
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeText(w, string(content))
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, text)
}

func writeJSON(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(document)
}

func writeStatus(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"message": message, "reason": http.StatusText(code), "code": code,
	})
}

func (s *server) serveConfig(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.critical()) }

func (s *server) serveServers(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	writeJSON(w, s.apiAddresses(ctx))
}

// apiAddresses are the servers whose API is up: the endpoints of the service "kubernetes".
func (s *server) apiAddresses(ctx context.Context) []string {
	found := []string{}
	if s.apiReady.Load() {
		slice, err := s.api.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{ResourceVersion: "0"})
		if err == nil && len(slice.Ports) > 0 {
			for _, endpoint := range slice.Endpoints {
				for _, address := range endpoint.Addresses {
					found = append(found, net.JoinHostPort(address, fmt.Sprint(*slice.Ports[0].Port)))
				}
			}
		}
	}
	if len(found) == 0 {
		found = append(found, net.JoinHostPort(s.address, fmt.Sprint(s.port)))
	}
	return found
}

func (s *server) signing(authority string, wanted leaf) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { s.signRequest(w, r, authority, wanted) }
}

// ofNode signs for a node that proves its name: by the password that it had when it came, or by its certificate.
func (s *server) ofNode(wanted func(string, *http.Request) (string, leaf)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, password := r.Header.Get("k3s-Node-Name"), r.Header.Get("k3s-Node-Password")
		if name == "" || password == "" {
			writeStatus(w, http.StatusBadRequest, "node name and node password are required")
			return
		}
		if !s.apiReady.Load() {
			writeStatus(w, http.StatusServiceUnavailable, "runtime core not ready")
			return
		}
		if err := s.proveNode(r.Context(), name, password); err != nil {
			code := http.StatusInternalServerError
			if errors.Is(err, errNodePassword) {
				code = http.StatusForbidden
			}
			writeStatus(w, code, err.Error())
			return
		}
		authority, certificate := wanted(name, r)
		s.signRequest(w, r, authority, certificate)
	}
}

func (s *server) signRequest(w http.ResponseWriter, r *http.Request, authority string, wanted leaf) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil || r.Method != http.MethodPost {
		writeStatus(w, http.StatusBadRequest, "a certificate request is expected as the body of a POST")
		return
	}
	request, err := x509.ParseCertificateRequest(body)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		writeStatus(w, http.StatusBadRequest, err.Error())
		return
	}
	chain, err := sign(s.home.tls(authority), wanted, request.PublicKey)
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeText(w, string(chain))
}

func (s *server) serveBootstrap(w http.ResponseWriter, r *http.Request) {
	if s.etcd == nil {
		warnf("Received HTTP bootstrap request from %s, but embedded etcd is not enabled.", r.RemoteAddr)
		writeStatus(w, http.StatusBadRequest, "etcd disabled")
		return
	}
	content, err := readBootstrap(s.home)
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(content)
}

func (s *server) serveMembers(w http.ResponseWriter, _ *http.Request) {
	if s.etcd == nil || s.etcd.running == nil {
		writeStatus(w, http.StatusServiceUnavailable, "etcd is not running")
		return
	}
	writeJSON(w, map[string]any{"members": s.etcd.members()})
}

// apiProxy hands requests to the API server of this machine.
func (s *server) apiProxy() (http.Handler, error) {
	target, err := url.Parse(s.apiURL())
	if err != nil {
		return nil, err
	}
	authorities, err := os.ReadFile(s.home.tls("server-ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authorities)
	front, err := tls.LoadX509KeyPair(s.home.tls("client-auth-proxy.crt"), s.home.tls("client-auth-proxy.key"))
	if err != nil {
		return nil, err
	}
	carrier := func(asFront, streams bool) *http.Transport {
		settings := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if asFront {
			settings.Certificates = []tls.Certificate{front}
		}
		return &http.Transport{
			TLSClientConfig: settings, ForceAttemptHTTP2: !streams, MaxIdleConnsPerHost: 16,
			IdleConnTimeout: time.Minute, DisableCompression: true,
		}
	}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		ErrorLog:      quietLog(),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			for name := range r.Out.Header {
				if strings.HasPrefix(strings.ToLower(name), "x-remote-") {
					r.Out.Header.Del(name)
				}
			}
			r.SetXForwarded()
			if named := callerOf(r.In); named != nil {
				r.Out.Header.Set("X-Remote-User", named.Subject.CommonName)
				r.Out.Header["X-Remote-Group"] = append([]string{}, named.Subject.Organization...)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if !errors.Is(err, context.Canceled) {
				writeStatus(w, http.StatusServiceUnavailable, "apiserver not ready")
			}
		},
		Transport: &carriers{
			named: carrier(true, false), plain: carrier(false, false),
			namedStream: carrier(true, true), plainStream: carrier(false, true),
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.apiReady.Load() {
			writeStatus(w, http.StatusServiceUnavailable, "apiserver not ready")
			return
		}
		proxy.ServeHTTP(w, r)
	}), nil
}

func callerOf(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || r.Header.Get("Authorization") != "" {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

// carriers picks the connection for a request: only one that we name a user in goes with the proxy's certificate, and
// one that becomes a stream (exec, attach, port-forward) needs HTTP/1.1.
type carriers struct{ named, plain, namedStream, plainStream *http.Transport }

func (c *carriers) RoundTrip(r *http.Request) (*http.Response, error) {
	stream := r.Header.Get("Upgrade") != ""
	switch named := r.Header.Get("X-Remote-User") != ""; {
	case named && stream:
		return c.namedStream.RoundTrip(r)
	case named:
		return c.named.RoundTrip(r)
	case stream:
		return c.plainStream.RoundTrip(r)
	}
	return c.plain.RoundTrip(r)
}
