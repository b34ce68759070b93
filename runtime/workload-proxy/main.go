// Copyright (c) 2026, edgeha developers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Workload-proxy stands beside a module in its pod. It gives the module the workload API of IoT Edge on the pod's
// loopback and adds the pod's ServiceAccount token, by which the daemon knows the module. Beside edgeAgent it gives the
// management API too. In a pod on the node's network it listens on a socket (unix:///path) instead, which no other pod
// sees.
//
//	workload-proxy         serve
//	workload-proxy check   exit 0 when the whole way to the daemon works (for the kubelet's exec probe)
//	workload-proxy gate    exit 0 when the pod's slot may run (as the first init container)
//	workload-proxy install FILE
//	                       copy itself to FILE
//	workload-proxy hold    wait (beside images that are to stay on the machine)
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	envURL         = "EDGEHA_WORKLOAD_URL"
	envCertificate = "EDGEHA_WORKLOAD_CERTIFICATE"
	envTokenFile   = "EDGEHA_WORKLOAD_TOKEN_FILE"
	envListen      = "EDGEHA_WORKLOAD_LISTEN"
	// Set beside edgeAgent only.
	envManagementURL    = "EDGEHA_MANAGEMENT_URL"
	envManagementListen = "EDGEHA_MANAGEMENT_LISTEN"
	envSlot             = "EDGEHA_SLOT"
	// The soft limit of the Go heap; the pod's hard limit leaves room for the probe's short-lived process.
	memoryLimit = 10 << 20
)

func main() {
	// One small process beside every module: threads and heap cost more than they bring.
	runtime.GOMAXPROCS(1)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	listen := os.Getenv(envListen)
	if listen == "" {
		listen = "127.0.0.1:35001"
	}
	var err error
	switch arguments := os.Args[1:]; {
	case len(arguments) == 0:
		err = run(listen)
	case len(arguments) == 1 && arguments[0] == "check":
		err = check(listen)
	case len(arguments) == 1 && arguments[0] == "gate":
		err = waitAtGate(os.Getenv(envSlot))
	case len(arguments) == 1 && arguments[0] == "hold":
		hold()
	case len(arguments) == 2 && arguments[0] == "install":
		err = install(arguments[1])
	default:
		err = fmt.Errorf("usage: %s [check | gate | hold | install FILE]", os.Args[0])
	}
	if err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(listen string) error {
	handler, err := newProxy(os.Getenv(envURL), os.Getenv(envTokenFile), os.Getenv(envCertificate), workload)
	if err != nil {
		return err
	}
	servers := []*http.Server{newServer(listen, handler, workload)}
	if target := os.Getenv(envManagementURL); target != "" {
		other, err := newProxy(target, os.Getenv(envTokenFile), os.Getenv(envCertificate), management)
		if err != nil {
			return err
		}
		servers = append(servers, newServer(os.Getenv(envManagementListen), other, management))
	}
	stopped, cancel := untilStopped()
	defer cancel()
	failed := make(chan error, len(servers))
	for _, server := range servers {
		listener, err := listenAt(server.Addr)
		if err != nil {
			return err
		}
		defer listener.Close()
		go func() { failed <- server.Serve(listener) }()
	}
	slog.Info("serving", "listen", listen, "daemon", handler.target.String())
	select {
	case err := <-failed:
		return err
	case <-stopped.Done():
	}
	// The module has ended before: a native sidecar stops last.
	grace, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	for _, server := range servers {
		if err := server.Shutdown(grace); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return nil
}

func untilStopped() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

func check(listen string) error {
	client := http.Client{
		Timeout:   2500 * time.Millisecond,
		Transport: &http.Transport{DialContext: dialTo(listen), DisableKeepAlives: true},
	}
	answer, err := client.Get("http://proxy" + readyPath)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(answer.Body, 1024))
		return fmt.Errorf("not ready: %s", reason)
	}
	return nil
}
