package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

// agent is what makes a machine a node: containerd, kubelet, kube-proxy and the pod network.
type agent struct {
	options  *options
	home     home
	tools    string
	node     string
	address  string
	who      credential
	url      string // the supervisor
	apiURL   string
	peer     *remote
	cluster  clusterConfig
	children []*child
	runtime  chan error
}

// clusterConfig is what a node needs of the values that all servers share.
type clusterConfig struct {
	ClusterIPRange, ClusterDNS, ClusterDomain, FlannelBackend string
	DisableKubeProxy                                          bool
}

func runAgent(words []string) error {
	specs := join(loggingFlags, agentFlags)
	if wantsHelp(words) {
		printFlags("agent - Run node agent", specs)
		return nil
	}
	o, err := parse(specs, words, refused)
	if err != nil {
		return err
	}
	if len(o.rest) > 0 {
		return fmt.Errorf("unexpected argument: %s", o.rest[0])
	}
	if os.Geteuid() != 0 {
		return errors.New("agent must be run as root, or with --rootless")
	}
	syscall.Umask(0o022)
	url := o.text("server")
	if url == "" {
		return errors.New("--server is required")
	}
	infof("Starting %s agent %s (lab work-alike)", program, version)
	token, err := o.token("token")
	if err != nil {
		return err
	}
	if token == "" {
		return errors.New("--token is required")
	}
	who, err := parseToken(token, "node")
	if err != nil {
		return err
	}
	h := home{o.text("data-dir")}
	tools, err := unpackTools(h.root)
	if err != nil {
		return err
	}
	usePath(tools)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	a := &agent{options: o, home: h, tools: tools, node: nodeName(o), address: nodeAddress(o), who: who}
	balancer, err := newBalancer(ctx, h, url, o.number("lb-server-port"), o.truth("disable-apiserver-lb"))
	if err != nil {
		return err
	}
	a.url, a.apiURL = balancer.url, balancer.url
	err = a.run(ctx, func() {
		infof("k3s agent is up and running")
		notifyReady()
		go balancer.follow(ctx, a)
	})
	if ctx.Err() != nil {
		a.shutDown()
		return nil
	}
	return err
}

// ownAgent makes a server a node too, of its own API.
func (s *server) ownAgent(tools string) *agent {
	return &agent{
		options: s.options, home: s.home, tools: tools, node: s.node, address: s.address,
		url: fmt.Sprintf("https://127.0.0.1:%d", s.port), apiURL: s.apiURL(),
	}
}

// begin starts what needs no certificates, once it is clear that this machine may be a node.
func (a *agent) begin(ctx context.Context) {
	if a.runtime == nil {
		os.Setenv("NODE_NAME", a.node)
		a.runtime = make(chan error, 1)
		go func() { a.runtime <- a.startRuntime(ctx) }()
	}
}

// run brings the node up and stays until the context ends.
func (a *agent) run(ctx context.Context, ready func()) error {
	for {
		err := a.register(ctx)
		if err == nil {
			break
		}
		errorf("%v", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
	if err := <-a.runtime; err != nil {
		return err
	}
	if err := a.startNode(ctx); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	return ctx.Err()
}

// register takes the node's certificates from a server.
func (a *agent) register(ctx context.Context) error {
	peer, err := meet(a.url, a.who)
	if err != nil {
		return fmt.Errorf("Failed to validate connection to cluster at %s: %w", a.url, err) //nolint:staticcheck
	}
	a.peer = peer
	text, err := peer.get("/v1-k3s/config")
	if err != nil {
		return fmt.Errorf("Failed to retrieve agent configuration: %w", err) //nolint:staticcheck
	}
	if err := json.Unmarshal(text, &a.cluster); err != nil {
		return err
	}
	a.begin(ctx)
	password, err := nodePassword()
	if err != nil {
		return err
	}
	for _, name := range []string{"client-ca.crt", "server-ca.crt"} {
		content, err := peer.get("/v1-k3s/" + name)
		if err != nil {
			return err
		}
		if err := writeChanged(a.home.agent(name), content, 0o644); err != nil {
			return err
		}
	}
	header := map[string]string{"k3s-Node-Name": a.node, "k3s-Node-Password": password, "k3s-Node-IP": a.address}
	for _, name := range []string{"serving-kubelet", "client-kubelet", "client-kube-proxy", "client-k3s-controller"} {
		if err := a.certify(name, header); err != nil {
			return err
		}
	}
	for name, certificate := range map[string]string{
		"kubelet": "client-kubelet", "kubeproxy": "client-kube-proxy", "k3scontroller": "client-k3s-controller",
	} {
		content := fmt.Sprintf(`apiVersion: v1
clusters:
- cluster:
    certificate-authority: %s
    server: %s
  name: local
contexts:
- context:
    cluster: local
    namespace: default
    user: user
  name: Default
current-context: Default
kind: Config
users:
- name: user
  user:
    client-certificate: %s
    client-key: %s
`, a.home.agent("server-ca.crt"), a.apiURL, a.home.agent(certificate+".crt"), a.home.agent(certificate+".key"))
		if err := writeChanged(a.home.agent(name+".kubeconfig"), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return a.identify()
}

// identify lets the node show its certificate from now on: that outlives a change of the token.
func (a *agent) identify() error {
	certificate, err := tls.LoadX509KeyPair(a.home.agent("client-kubelet.crt"), a.home.agent("client-kubelet.key"))
	if err != nil {
		return err
	}
	if carrier, ok := a.peer.client.Transport.(*http.Transport); ok {
		carrier.CloseIdleConnections()
		carrier.TLSClientConfig.Certificates = []tls.Certificate{certificate}
	}
	return nil
}

func writeChanged(path string, content []byte, mode os.FileMode) error {
	if before, err := os.ReadFile(path); err == nil && bytes.Equal(before, content) {
		return nil
	}
	return writeAtomic(path, content, mode)
}

// nodePassword is what a node proves its name with, for as long as the machine lives.
func nodePassword() (string, error) {
	content, err := os.ReadFile(nodePasswordFile)
	if err == nil {
		return strings.TrimSpace(string(content)), nil
	}
	if !os.IsNotExist(err) {
		return "", err
	}
	password := randomHex(16)
	return password, writeAtomic(nodePasswordFile, []byte(password+"\n"), 0o600)
}

func (a *agent) certify(name string, header map[string]string) error {
	path := a.home.agent(name)
	key, err := readKey(path + ".key")
	if err != nil {
		fresh, content, err := newKey()
		if err != nil {
			return err
		}
		if err := writeAtomic(path+".key", content, 0o600); err != nil {
			return err
		}
		key = fresh
	}
	signer, _ := key.(crypto.Signer)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: a.node}}, signer)
	if err != nil {
		return err
	}
	chain, err := a.peer.call(http.MethodPost, "/v1-k3s/"+name+".crt", header, request)
	if err != nil {
		return fmt.Errorf("getting %s.crt: %w", name, err)
	}
	if block, _ := pem.Decode(chain); block == nil {
		return fmt.Errorf("getting %s.crt: the answer is no certificate", name)
	}
	return writeAtomic(path+".crt", chain, 0o644)
}

// startNode starts kubelet, kube-proxy and the pod network.
func (a *agent) startNode(ctx context.Context) error {
	folder := a.home.agent("etc", "kubelet.conf.d")
	content, err := yaml.Marshal(a.kubeletConfig())
	if err != nil {
		return err
	}
	if err := writeChanged(filepath.Join(folder, "00-k3s-defaults.conf"), content, 0o600); err != nil {
		return err
	}
	for _, needed := range []string{a.home.agent("pod-manifests"), "/var/lib/kubelet"} {
		if err := os.MkdirAll(needed, 0o700); err != nil {
			return err
		}
	}
	arguments := []string{
		"--config-dir=" + folder, "--hostname-override=" + a.node, "--node-ip=" + a.address,
		"--kubeconfig=" + a.home.agent("kubelet.kubeconfig"), "--cert-dir=" + a.home.agent("kubelet"),
	}
	labels := append([]string{"node.kubernetes.io/instance-type=k3s"}, a.options.list("node-label")...)
	arguments = append(arguments, "--node-labels="+strings.Join(labels, ","))
	if taints := a.options.list("node-taint"); len(taints) > 0 {
		arguments = append(arguments, "--register-with-taints="+strings.Join(taints, ","))
	}
	if err := a.component(ctx, "kubelet", mergeArguments(arguments, a.options.list("kubelet-arg"))); err != nil {
		return err
	}
	if !a.cluster.DisableKubeProxy {
		// What is below zero or zero leaves the kernel's settings alone, which a container may not change.
		if err := a.component(ctx, "kube-proxy", mergeArguments([]string{
			"--kubeconfig=" + a.home.agent("kubeproxy.kubeconfig"), "--hostname-override=" + a.node,
			"--cluster-cidr=" + a.cluster.ClusterIPRange, "--proxy-mode=iptables", "--conntrack-max-per-core=0",
			"--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s",
			"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249",
		}, a.options.list("kube-proxy-arg"))); err != nil {
			return err
		}
	}
	if a.cluster.FlannelBackend != "none" {
		go a.runNetwork(ctx)
	}
	return nil
}

func (a *agent) component(ctx context.Context, name string, arguments []string) error {
	started, err := startComponent(name, arguments)
	if err != nil {
		return err
	}
	a.children = append(a.children, started)
	started.guard(ctx)
	return nil
}

func (a *agent) shutDown() {
	infof("Stopping: pods keep running")
	for _, each := range a.children {
		each.stop(4 * time.Second)
	}
}

func (a *agent) kubeletConfig() map[string]any {
	config := map[string]any{
		"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
		"address": a.options.text("bind-address"), "cgroupDriver": "cgroupfs", "failSwapOn": false,
		"clusterDNS": []string{a.cluster.ClusterDNS}, "clusterDomain": a.cluster.ClusterDomain,
		"containerRuntimeEndpoint": "unix://" + containerdSocket, "staticPodPath": a.home.agent("pod-manifests"),
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": a.home.agent("client-ca.crt")},
		},
		"authorization": map[string]any{"mode": "Webhook"},
		"tlsCertFile":   a.home.agent("serving-kubelet.crt"), "tlsPrivateKeyFile": a.home.agent("serving-kubelet.key"),
		"evictionHard":           map[string]string{"imagefs.available": "5%", "nodefs.available": "5%"},
		"evictionMinimumReclaim": map[string]string{"imagefs.available": "10%", "nodefs.available": "10%"},
		"serializeImagePulls":    false, "resolvConf": a.resolvConf(), "providerID": "k3s://" + a.node,
		"protectKernelDefaults": a.options.truth("protect-kernel-defaults"),
	}
	if !mayRaiseLimits() {
		// Forgives writes to rlimits and oom_score_adj that this host forbids.
		config["featureGates"] = map[string]bool{"KubeletInUserNamespace": true}
	}
	return config
}

// resolvConf is the machine's own, unless that names only resolvers that a pod cannot reach.
func (a *agent) resolvConf() string {
	if given := a.options.text("resolv-conf"); given != "" {
		return given
	}
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(content), "\n") {
			words := strings.Fields(line)
			if len(words) > 1 && words[0] == "nameserver" {
				if address := net.ParseIP(words[1]); address != nil && address.IsGlobalUnicast() {
					return file
				}
			}
		}
	}
	warnf("Host resolv.conf includes loopback, multicast, or link-local nameservers - kubelet will use autogenerated resolv.conf with nameserver 8.8.8.8")
	file := a.home.agent("etc", "resolv.conf")
	_ = writeChanged(file, []byte("nameserver 8.8.8.8\n"), 0o644)
	return file
}

// mayRaiseLimits says whether this machine holds CAP_SYS_RESOURCE (bit 24).
func mayRaiseLimits() bool {
	content, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(content), "\n") {
		if digits, found := strings.CutPrefix(line, "CapEff:"); found {
			var held uint64
			_, _ = fmt.Sscanf(strings.TrimSpace(digits), "%x", &held)
			return held&(1<<24) != 0
		}
	}
	return true
}
