package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// server is one control plane: its datastore, the upstream components, and the supervisor in front of them.
type server struct {
	options   *options
	home      home
	node      string
	address   string
	port      int
	etcd      *etcd      // nil: kine over SQLite, or a datastore elsewhere
	elsewhere *datastore // nil: the datastore is ours
	store     *clientv3.Client
	api       *kubernetes.Clientset
	rest      *rest.Config
	apiReady  atomic.Bool
	children  []*child
	stopStore context.CancelFunc
	agent     *agent

	lock     sync.Mutex
	password secrets
}

type secrets struct{ server, agent string }

func (s *server) secrets() secrets {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.password
}

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

func (s *server) apiURL() string { return fmt.Sprintf("https://%s:%d", hiddenAddress, s.port) }

func runServer(words []string) error {
	if wantsHelp(words) {
		printFlags("server - Run management server", serverFlags)
		return nil
	}
	o, err := parse(serverFlags, words, warned)
	if err != nil {
		return err
	}
	if len(o.rest) > 0 {
		return fmt.Errorf("unexpected argument: %s", o.rest[0])
	}
	if os.Geteuid() != 0 {
		return errors.New("must run as root unless --rootless and/or --disable-agent is specified")
	}
	if err := checkServerOptions(o); err != nil {
		return err
	}
	syscall.Umask(0o022)
	s := &server{
		options: o, home: home{o.text("data-dir")}, node: nodeName(o), address: nodeAddress(o),
		port: o.number("https-listen-port"),
	}
	if err := os.MkdirAll(s.home.server(), 0o700); err != nil {
		return err
	}
	infof("Starting %s %s (lab work-alike)", program, version)
	tools, err := unpackTools(s.home.root)
	if err != nil {
		return err
	}
	usePath(tools)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if o.truth("cluster-reset") {
		return s.reset(ctx)
	}
	err = s.run(ctx, tools)
	if ctx.Err() != nil {
		s.shutDown()
		return nil
	}
	return err
}

func checkServerOptions(o *options) error {
	if o.truth("cluster-reset") && o.text("server") != "" {
		return errors.New("invalid flag use; --server is not allowed with --cluster-reset")
	}
	if o.text("cluster-reset-restore-path") != "" && !o.truth("cluster-reset") {
		return errors.New("invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
	}
	switch backend := o.text("flannel-backend"); backend {
	case "none", "vxlan", "host-gw":
	case "wireguard-native":
		return errors.New("--flannel-backend=wireguard-native needs the real k3s: the lab's work-alike does not imitate it")
	default:
		return fmt.Errorf("unknown flannel-backend %q", backend)
	}
	for _, name := range []string{"cluster-cidr", "service-cidr"} {
		for _, cidr := range o.list(name) {
			if _, _, err := net.ParseCIDR(cidr); err != nil {
				return fmt.Errorf("invalid %s: %w", name, err)
			}
		}
		if len(o.list(name)) != 1 {
			return fmt.Errorf("two networks in --%s need the real k3s", name)
		}
	}
	if mode := o.text("write-kubeconfig-mode"); mode != "" {
		if _, err := strconv.ParseUint(mode, 8, 32); err != nil {
			return fmt.Errorf("invalid write-kubeconfig-mode %q", mode)
		}
	}
	if _, err := externalDatastore(o); err != nil {
		return err
	}
	known := map[string]bool{"coredns": true, "servicelb": true, "traefik": true, "local-storage": true, "metrics-server": true, "runtimes": true, "ccm": true, "rolebindings": true}
	for _, name := range o.list("disable") {
		if !known[name] {
			warnf("--disable=%s is no packaged component", name)
		}
	}
	if provider := o.text("secrets-encryption-provider"); provider != "aescbc" {
		return fmt.Errorf("--secrets-encryption-provider=%s needs the real k3s", provider)
	}
	return nil
}

func (s *server) newEtcd() *etcd {
	return &etcd{
		home: s.home, node: s.node, address: s.address, more: s.options.list("etcd-arg"),
		metrics: s.options.truth("etcd-expose-metrics"),
	}
}

// critical are the values that all servers of a cluster have in common.
func (s *server) critical() map[string]any {
	o := s.options
	return map[string]any{
		"ClusterIPRange": o.text("cluster-cidr"), "ServiceIPRange": o.text("service-cidr"),
		"ClusterDNS": s.clusterDNS(), "ClusterDomain": o.text("cluster-domain"),
		"FlannelBackend": o.text("flannel-backend"), "EgressSelectorMode": o.text("egress-selector-mode"),
		"DisableServiceLB": contains(o.list("disable"), "servicelb"), "DisableCCM": o.truth("disable-cloud-controller"),
		"DisableNPC": o.truth("disable-network-policy"), "DisableHelmController": o.truth("disable-helm-controller"),
		"EncryptSecrets": o.truth("secrets-encryption"), "DisableKubeProxy": o.truth("disable-kube-proxy"),
		"HTTPSPort": s.port,
	}
}

func contains(values []string, wanted string) bool {
	for _, value := range values {
		if value == wanted {
			return true
		}
	}
	return false
}

func (s *server) clusterDNS() string {
	if given := s.options.list("cluster-dns"); len(given) > 0 {
		return given[0]
	}
	return nth(s.options.text("service-cidr"), 10)
}

// nth address of a network.
func nth(cidr string, n byte) string {
	_, network, err := net.ParseCIDR(cidr)
	if err != nil {
		return ""
	}
	address := append(net.IP{}, network.IP.To4()...)
	if address == nil {
		return ""
	}
	address[3] += n
	return address.String()
}

func (s *server) run(ctx context.Context, tools string) error {
	url := s.options.text("server")
	given, err := s.options.token("token")
	if err != nil {
		return err
	}
	member := s.newEtcd()
	if err := os.Remove(s.home.server("db", "reset-flag")); err == nil {
		infof("Removed the reset flag of a cluster reset")
	}
	elsewhere, err := externalDatastore(s.options)
	if err != nil {
		return err
	}
	useEtcd := member.isInitialized() || exists(member.folder("tombstone")) ||
		elsewhere == nil && (s.options.truth("cluster-init") || url != "")
	if useEtcd {
		if err := member.prepare(false); err != nil {
			return err
		}
		s.etcd = member
	} else {
		s.elsewhere = elsewhere
	}
	joins := useEtcd && !member.isInitialized() && url != ""
	if err := s.setToken(given, joins); err != nil {
		return err
	}
	var peers *remote
	if joins {
		if peers, err = s.introduce(url, given); err != nil {
			return fmt.Errorf("preparing server: failed to bootstrap cluster data: %w", err)
		}
	}
	if s.elsewhere != nil {
		if err := s.meetInStore(ctx, given); err != nil {
			return fmt.Errorf("preparing server: failed to bootstrap cluster data: %w", err)
		}
	}
	node := s.ownAgent(tools)
	s.agent = node
	node.begin(ctx)
	if err := s.makeCertificates(); err != nil {
		return err
	}
	if !exists(s.home.server("token")) {
		if err := s.writeTokens(); err != nil {
			return err
		}
	}
	if err := s.makeClient(); err != nil {
		return err
	}
	if err := s.listen(ctx); err != nil {
		return err
	}
	if err := s.startStore(ctx, peers); err != nil {
		return err
	}
	// A token that replaces another is kept only now: the datastore might have refused it.
	if err := s.writeTokens(); err != nil {
		return err
	}
	if err := s.startControlPlane(ctx); err != nil {
		return err
	}
	infof("k3s is up and running")
	notifyReady()
	go s.careForCluster(ctx)
	if s.etcd != nil && !s.options.truth("etcd-disable-snapshots") {
		if err := s.scheduleSnapshots(ctx); err != nil {
			return err
		}
	}
	node.who = credential{user: "server", password: s.secrets().server}
	return node.run(ctx, func() {})
}

// setToken finds the password: given, else kept from before, else a new one.
func (s *server) setToken(given string, joins bool) error {
	kept := ""
	if content, err := os.ReadFile(s.home.server("token")); err == nil {
		kept = strings.TrimSpace(string(content))
	}
	used := given
	if used == "" {
		if joins && kept == "" {
			return errors.New("--token is required to join a cluster")
		}
		used = kept
	}
	if used == "" {
		used = randomHex(16)
	}
	who, err := parseToken(used, "server")
	if err != nil {
		return err
	}
	// In a datastore elsewhere the authority may stand that is not here yet.
	if who.caHash != "" && !joins && s.elsewhere == nil {
		bundle, err := os.ReadFile(s.home.tls("server-ca.crt"))
		if err != nil {
			return errors.New("a token in secure format names a cluster CA that is not there yet: the first server takes the short format")
		}
		if hash, err := caHash(bundle); err != nil || hash != who.caHash {
			return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", who.caHash, hash)
		}
	}
	s.password.server = who.password
	agent, err := s.options.token("agent-token")
	if err != nil {
		return err
	}
	if agent != "" {
		who, err := parseToken(agent, "node")
		if err != nil {
			return err
		}
		s.password.agent = who.password
	}
	return nil
}

// introduce takes the cluster's authorities and keys from a server of it, and compares what must be the same.
func (s *server) introduce(url, given string) (*remote, error) {
	who, err := parseToken(given, "server")
	if err != nil {
		return nil, err
	}
	if given == "" {
		who = credential{user: "server", password: s.password.server}
	}
	who.user = "server"
	peer, err := meet(url, who)
	if err != nil {
		return nil, err
	}
	content, err := peer.get("/v1-k3s/server-bootstrap")
	if err != nil {
		return nil, err
	}
	theirs := map[string]any{}
	text, err := peer.get("/v1-k3s/config")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &theirs); err != nil {
		return nil, err
	}
	mine := map[string]any{}
	own, _ := json.Marshal(s.critical())
	_ = json.Unmarshal(own, &mine)
	delete(mine, "HTTPSPort")
	for _, name := range sortedKeys(mine) {
		if !reflect.DeepEqual(mine[name], theirs[name]) {
			return nil, fmt.Errorf("failed to validate server configuration: critical configuration value mismatch: %s is %v here and %v at %s", name, mine[name], theirs[name], url)
		}
	}
	return peer, writeBootstrap(s.home, content)
}

// makeAuthorities makes what all servers of the cluster share, unless it is there.
func (s *server) makeAuthorities() error {
	for path, name := range map[string]string{
		"server-ca": "k3s-server-ca", "client-ca": "k3s-client-ca", "request-header-ca": "k3s-request-header-ca",
		"etcd/server-ca": "etcd-server-ca", "etcd/peer-ca": "etcd-peer-ca",
	} {
		if err := ensureCA(s.home.tls(path), name); err != nil {
			return fmt.Errorf("certificate authority %s: %w", path, err)
		}
	}
	if !exists(s.home.tls("service.key")) {
		_, content, err := newKey()
		if err != nil {
			return err
		}
		if err := writeAtomic(s.home.tls("service.key"), content, 0o600); err != nil {
			return err
		}
	}
	if s.options.truth("secrets-encryption") && !exists(s.home.server("cred", "encryption-config.json")) {
		return s.writeEncryptionConfig()
	}
	return nil
}

func (s *server) makeCertificates() error {
	if err := s.makeAuthorities(); err != nil {
		return err
	}
	for _, wanted := range s.leaves() {
		if err := ensureLeaf(s.home.tls(), wanted); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) leaves() []leaf {
	hostname, _ := os.Hostname()
	serving := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + s.options.text("cluster-domain"), "localhost", "127.0.0.1", hiddenAddress,
		nth(s.options.text("service-cidr"), 1), s.address, s.node, hostname,
	}
	serving = append(serving, s.options.list("tls-san")...)
	if extra := s.options.text("advertise-address"); extra != "" {
		serving = append(serving, extra)
	}
	store := []string{"localhost", "127.0.0.1", s.address, s.node, hostname}
	masters := []string{"system:masters"}
	client := func(service, file, name string, groups ...string) leaf {
		return leaf{service: service, file: file, ca: "client-ca", name: name, groups: groups, client: true}
	}
	return []leaf{
		client("admin", "client-admin", "system:admin", masters...),
		client("k3s-server", "client-supervisor", "system:k3s-supervisor", masters...),
		client("controller-manager", "client-controller", "system:kube-controller-manager"),
		client("scheduler", "client-scheduler", "system:kube-scheduler"),
		client("api-server", "client-kube-apiserver", "system:apiserver", masters...),
		client("kube-proxy", "client-kube-proxy", "system:kube-proxy"),
		client("k3s-controller", "client-k3s-controller", "system:k3s-controller"),
		{service: "api-server", file: "serving-kube-apiserver", ca: "server-ca", name: "kube-apiserver", server: true, hosts: serving},
		{service: "auth-proxy", file: "client-auth-proxy", ca: "request-header-ca", name: "system:auth-proxy", client: true},
		{service: "etcd", file: "etcd/server-client", ca: "etcd/server-ca", name: "etcd-server", server: true, client: true, hosts: store},
		{service: "etcd", file: "etcd/peer-server-client", ca: "etcd/peer-ca", name: "etcd-peer", server: true, client: true, hosts: store},
		{service: "etcd", file: "etcd/client", ca: "etcd/server-ca", name: "etcd-client", client: true},
	}
}

func (s *server) writeEncryptionConfig() error {
	key := make([]byte, 32)
	copy(key, []byte(randomHex(16)))
	document := map[string]any{
		"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
		"resources": []any{map[string]any{"resources": []string{"secrets"}, "providers": []any{
			map[string]any{"aescbc": map[string]any{"keys": []any{
				map[string]any{"name": "aescbckey", "secret": base64.StdEncoding.EncodeToString(key)},
			}}},
			map[string]any{"identity": map[string]any{}},
		}}},
	}
	content, err := json.Marshal(document)
	if err != nil {
		return err
	}
	return writeAtomic(s.home.server("cred", "encryption-config.json"), content, 0o600)
}

// writeTokens keeps the tokens in full format where people and roles look for them.
func (s *server) writeTokens() error {
	bundle, err := os.ReadFile(s.home.tls("server-ca.crt"))
	if err != nil {
		return err
	}
	write := func(name, user, password string) error {
		token, err := formatToken(bundle, user, password)
		if err != nil {
			return err
		}
		if before, err := os.ReadFile(s.home.server(name)); err == nil && strings.TrimSpace(string(before)) == token {
			return nil
		}
		return writeAtomic(s.home.server(name), []byte(token+"\n"), 0o600)
	}
	known := s.secrets()
	if err := write("token", "server", known.server); err != nil {
		return err
	}
	link := func(name, target string) error {
		path := s.home.server(name)
		if before, err := os.Readlink(path); err == nil && before == s.home.server(target) {
			return nil
		}
		_ = os.Remove(path)
		return os.Symlink(s.home.server(target), path)
	}
	if known.agent != "" {
		_ = os.Remove(s.home.server("agent-token"))
		if err := write("agent-token", "node", known.agent); err != nil {
			return err
		}
	} else if err := link("agent-token", "token"); err != nil {
		return err
	}
	return link("node-token", "token")
}

func (s *server) kubeconfig(path, url, certificate, user string, mode os.FileMode) error {
	read := func(name string) string {
		content, err := os.ReadFile(s.home.tls(name))
		if err != nil {
			fatalf("reading %s: %v", name, err)
		}
		return base64.StdEncoding.EncodeToString(content)
	}
	content := fmt.Sprintf(`apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: default
contexts:
- context:
    cluster: default
    user: %s
  name: default
current-context: default
kind: Config
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
`, read("server-ca.crt"), url, user, user, read(certificate+".crt"), read(certificate+".key"))
	if before, err := os.ReadFile(path); err == nil && string(before) == content {
		return os.Chmod(path, mode)
	}
	return writeAtomic(path, []byte(content), mode)
}

// makeClient writes the kubeconfigs, and connects ourselves as the cluster's administrator.
func (s *server) makeClient() error {
	for name, certificate := range map[string]string{
		"admin": "client-admin", "controller": "client-controller", "scheduler": "client-scheduler",
		"supervisor": "client-supervisor",
	} {
		url := s.apiURL()
		if name == "admin" {
			url = fmt.Sprintf("https://127.0.0.1:%d", s.port)
		}
		if err := s.kubeconfig(s.home.server("cred", name+".kubeconfig"), url, certificate, "user", 0o600); err != nil {
			return err
		}
	}
	path, mode := s.options.text("write-kubeconfig"), os.FileMode(0o600)
	if path == "" {
		path = defaultKubeconfig
	}
	if given := s.options.text("write-kubeconfig-mode"); given != "" {
		number, _ := strconv.ParseUint(given, 8, 32)
		mode = os.FileMode(number)
	}
	if err := s.kubeconfig(path, fmt.Sprintf("https://127.0.0.1:%d", s.port), "client-admin", "default", mode); err != nil {
		return err
	}
	_ = os.Chmod(filepath.Dir(path), 0o755)
	if group := s.options.text("write-kubeconfig-group"); group != "" {
		found, err := user.LookupGroup(group)
		if err != nil {
			return err
		}
		id, _ := strconv.Atoi(found.Gid)
		if err := os.Chown(path, 0, id); err != nil {
			return err
		}
	}
	infof("Wrote kubeconfig %s", path)
	config, err := clientcmd.BuildConfigFromFlags("", s.home.server("cred", "supervisor.kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100
	s.rest = config
	s.api, err = kubernetes.NewForConfig(config)
	return err
}

// startStore brings the datastore up and makes sure that it is of this cluster and token.
func (s *server) startStore(ctx context.Context, peers *remote) error {
	if s.elsewhere != nil {
		return nil // connected already, by meetInStore
	}
	if err := os.MkdirAll(s.home.server("db"), 0o700); err != nil {
		return err
	}
	endpoint := ""
	var err error
	if s.etcd == nil {
		socket := s.home.server("kine.sock")
		storeContext, stop := context.WithCancel(context.Background())
		s.stopStore = stop
		if err := startKine(storeContext, s.home.server("db", "state.db"), socket); err != nil {
			return fmt.Errorf("starting kine: %w", err)
		}
		endpoint = "unix://" + socket
	} else {
		if peers != nil {
			err = s.joinStore(ctx, peers)
		} else {
			err = s.etcd.start("", false)
		}
		if err != nil {
			return err
		}
		s.etcd.watch(ctx)
		if err := s.etcd.waitReady(ctx); err != nil {
			return err
		}
		endpoint = "https://127.0.0.1:2379"
	}
	if s.store, err = connectStore(s.home, endpoint); err != nil {
		return err
	}
	if s.etcd != nil {
		go s.etcd.manage(ctx, s.store)
		for waited := 0; s.etcd.running.Server.IsLearner(); waited++ {
			if waited%25 == 0 {
				infof("Waiting for this node's promotion from learner to voting member of the etcd cluster")
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(200 * time.Millisecond):
			}
		}
		if exists(s.home.server("db", "state.db")) {
			if err := s.migrate(ctx); err != nil {
				return fmt.Errorf("failed to migrate content from sqlite to etcd: %w", err)
			}
		}
	}
	return s.agreeOnBootstrap(ctx)
}

func (s *server) joinStore(ctx context.Context, peers *remote) error {
	document := struct {
		Members []*etcdserverpb.Member `json:"members"`
	}{}
	content, err := peers.get("/db/info")
	if err != nil {
		return fmt.Errorf("ETCD join failed: %w", err)
	}
	if err := json.Unmarshal(content, &document); err != nil {
		return fmt.Errorf("ETCD join failed: %w", err)
	}
	if err := s.etcd.join(ctx, document.Members); err != nil {
		return fmt.Errorf("ETCD join failed: %w", err)
	}
	return nil
}

func (s *server) agreeOnBootstrap(ctx context.Context) error {
	password := s.secrets().server
	content, err := loadBootstrap(ctx, s.store, password)
	if err != nil {
		return fmt.Errorf("failed to bootstrap cluster data: %w", err)
	}
	if content != nil {
		return writeBootstrap(s.home, content)
	}
	if content, err = readBootstrap(s.home); err != nil {
		return err
	}
	return saveBootstrap(ctx, s.store, password, content)
}

// migrate moves what a single server kept in SQLite into its new etcd.
func (s *server) migrate(ctx context.Context) error {
	infof("Migrating content from sqlite to etcd")
	file, socket := s.home.server("db", "state.db"), s.home.server("kine.sock")
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := startKine(limited, file, socket); err != nil {
		return err
	}
	old, err := connectStore(s.home, "unix://"+socket)
	if err != nil {
		return err
	}
	defer old.Close()
	answer, err := old.Get(limited, "/registry/", clientv3.WithRange("/registry0"))
	if err != nil {
		return err
	}
	for _, pair := range answer.Kvs {
		if _, err := s.store.Put(limited, string(pair.Key), string(pair.Value)); err != nil {
			return err
		}
	}
	return os.Rename(file, file+".migrated")
}

func (s *server) startControlPlane(ctx context.Context) error {
	o, tlsFile := s.options, s.home.tls
	advertised := o.text("advertise-address")
	if advertised == "" {
		advertised = s.address
	}
	issuer := "https://kubernetes.default.svc." + o.text("cluster-domain")
	arguments := []string{
		"--advertise-address=" + advertised, fmt.Sprintf("--secure-port=%d", s.port), "--bind-address=" + hiddenAddress,
		"--permit-port-sharing=true", "--allow-privileged=true", "--anonymous-auth=false",
		"--api-audiences=" + issuer + ",k3s", "--authorization-mode=Node,RBAC",
		"--client-ca-file=" + tlsFile("client-ca.crt"), "--enable-admission-plugins=NodeRestriction",
		"--enable-aggregator-routing=true", "--enable-bootstrap-token-auth=true", "--profiling=false",
		"--kubelet-certificate-authority=" + tlsFile("server-ca.crt"),
		"--kubelet-client-certificate=" + tlsFile("client-kube-apiserver.crt"),
		"--kubelet-client-key=" + tlsFile("client-kube-apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"--proxy-client-cert-file=" + tlsFile("client-auth-proxy.crt"),
		"--proxy-client-key-file=" + tlsFile("client-auth-proxy.key"), "--requestheader-allowed-names=system:auth-proxy",
		"--requestheader-client-ca-file=" + tlsFile("request-header-ca.crt"),
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User", "--service-account-issuer=" + issuer,
		"--service-account-key-file=" + tlsFile("service.key"),
		"--service-account-signing-key-file=" + tlsFile("service.key"),
		"--service-cluster-ip-range=" + o.text("service-cidr"), "--service-node-port-range=" + o.text("service-node-port-range"),
		"--tls-cert-file=" + tlsFile("serving-kube-apiserver.crt"),
		"--tls-private-key-file=" + tlsFile("serving-kube-apiserver.key"),
		"--shutdown-delay-duration=0s", "--event-ttl=30m",
	}
	if s.elsewhere != nil {
		arguments = append(arguments, s.elsewhere.arguments()...)
	} else if s.etcd != nil {
		arguments = append(arguments, "--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile="+tlsFile("etcd", "server-ca.crt"),
			"--etcd-certfile="+tlsFile("etcd", "client.crt"), "--etcd-keyfile="+tlsFile("etcd", "client.key"))
	} else {
		arguments = append(arguments, "--etcd-servers=unix://"+s.home.server("kine.sock"))
	}
	if s.options.truth("secrets-encryption") {
		arguments = append(arguments, "--encryption-provider-config="+s.home.server("cred", "encryption-config.json"))
	}
	if err := s.component(ctx, "kube-apiserver", arguments, o.list("kube-apiserver-arg")); err != nil {
		return err
	}
	if err := s.waitForAPI(ctx); err != nil {
		return err
	}
	s.apiReady.Store(true)
	if err := s.forwardAPI(ctx); err != nil {
		return err
	}
	config := func(name string) string { return s.home.server("cred", name+".kubeconfig") }
	if err := s.component(ctx, "kube-controller-manager", []string{
		"--kubeconfig=" + config("controller"), "--authentication-kubeconfig=" + config("controller"),
		"--authorization-kubeconfig=" + config("controller"), "--authentication-skip-lookup=true",
		"--authentication-tolerate-lookup-failure=true", "--bind-address=127.0.0.1", "--profiling=false",
		"--allocate-node-cidrs=true", "--cluster-cidr=" + o.text("cluster-cidr"), "--configure-cloud-routes=false",
		"--service-cluster-ip-range=" + o.text("service-cidr"), "--use-service-account-credentials=true",
		"--controllers=*,tokencleaner", "--cert-dir=" + s.home.server("tls", "kube-controller-manager"),
		"--cluster-signing-kube-apiserver-client-cert-file=" + tlsFile("client-ca.crt"),
		"--cluster-signing-kube-apiserver-client-key-file=" + tlsFile("client-ca.key"),
		"--cluster-signing-kubelet-client-cert-file=" + tlsFile("client-ca.crt"),
		"--cluster-signing-kubelet-client-key-file=" + tlsFile("client-ca.key"),
		"--cluster-signing-kubelet-serving-cert-file=" + tlsFile("server-ca.crt"),
		"--cluster-signing-kubelet-serving-key-file=" + tlsFile("server-ca.key"),
		"--cluster-signing-legacy-unknown-cert-file=" + tlsFile("server-ca.crt"),
		"--cluster-signing-legacy-unknown-key-file=" + tlsFile("server-ca.key"),
		"--root-ca-file=" + tlsFile("server-ca.crt"), "--service-account-private-key-file=" + tlsFile("service.key"),
	}, o.list("kube-controller-manager-arg")); err != nil {
		return err
	}
	if o.truth("disable-scheduler") {
		return nil
	}
	return s.component(ctx, "kube-scheduler", []string{
		"--kubeconfig=" + config("scheduler"), "--authentication-kubeconfig=" + config("scheduler"),
		"--authorization-kubeconfig=" + config("scheduler"), "--authentication-skip-lookup=true",
		"--authentication-tolerate-lookup-failure=true", "--bind-address=127.0.0.1", "--profiling=false",
		"--cert-dir=" + s.home.server("tls", "kube-scheduler"),
	}, o.list("kube-scheduler-arg"))
}

// component starts one with our arguments, of which the user's replace those of the same name.
func (s *server) component(ctx context.Context, name string, ours, users []string) error {
	started, err := startComponent(name, mergeArguments(ours, users))
	if err != nil {
		return err
	}
	s.children = append(s.children, started)
	started.guard(ctx)
	return nil
}

func mergeArguments(ours, users []string) []string {
	nameOf := func(argument string) string {
		name, _, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		return name
	}
	replaced := map[string]bool{}
	for _, argument := range users {
		replaced[nameOf(argument)] = true
	}
	merged := []string{}
	for _, argument := range ours {
		if !replaced[nameOf(argument)] {
			merged = append(merged, argument)
		}
	}
	for _, argument := range users {
		merged = append(merged, "--"+strings.TrimLeft(argument, "-"))
	}
	return merged
}

// waitForAPI asks over a new connection each time: one that was made while the API server still read its authorities
// was never asked for a certificate, and would stay a stranger's for ever.
func (s *server) waitForAPI(ctx context.Context) error {
	client, _, err := localClient(s.home, s.port)
	if err != nil {
		return err
	}
	client.Timeout = 5 * time.Second
	client.Transport.(*http.Transport).DisableKeepAlives = true
	for told := time.Now(); ; {
		problem := ""
		answer, err := client.Get(s.apiURL() + "/readyz")
		if err != nil {
			problem = err.Error()
		} else {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			problem = answer.Status
		}
		if time.Since(told) > 10*time.Second {
			infof("Waiting for API server to become available: %s", problem)
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// forwardAPI offers the API at 127.0.0.1:6444 too, where a server of k3s has it.
func (s *server) forwardAPI(ctx context.Context) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.options.number("lb-server-port")))
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = listener.Close()
	}()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				other, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", hiddenAddress, s.port), 5*time.Second)
				if err != nil {
					_ = connection.Close()
					return
				}
				splice(connection, other)
			}()
		}
	}()
	return nil
}

func splice(one, other net.Conn) {
	done := make(chan struct{}, 2)
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		done <- struct{}{}
	}
	go carry(one, other)
	go carry(other, one)
	<-done
	_ = one.Close()
	_ = other.Close()
	<-done
}

// shutDown ends the components and leaves the pods: their shims are no children of ours.
func (s *server) shutDown() {
	infof("Stopping: pods keep running")
	var ending sync.WaitGroup
	all := s.children
	if s.agent != nil {
		all = append(all, s.agent.children...)
	}
	for _, each := range all {
		ending.Add(1)
		go func() {
			defer ending.Done()
			each.stop(3 * time.Second)
		}()
	}
	ending.Wait()
	if s.store != nil {
		_ = s.store.Close()
	}
	if s.etcd != nil {
		s.etcd.stop()
	}
	if s.stopStore != nil {
		s.stopStore()
	}
}

// localClient speaks to the supervisor of this very machine with the administrator's certificate.
func localClient(h home, port int) (*http.Client, string, error) {
	authority, err := os.ReadFile(h.tls("server-ca.crt"))
	if err != nil {
		return nil, "", fmt.Errorf("this is no server, or it never ran: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	certificate, err := tls.LoadX509KeyPair(h.tls("client-supervisor.crt"), h.tls("client-supervisor.key"))
	if err != nil {
		return nil, "", err
	}
	return &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
	}}}, fmt.Sprintf("https://127.0.0.1:%d", port), nil
}
