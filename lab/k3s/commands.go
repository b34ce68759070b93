package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// token rotate

type tokenRequest struct {
	NewToken *string `json:"newToken"`
}

// serveToken gives the cluster a new token: the bootstrap data are encrypted with it from now on.
func (s *server) serveToken(w http.ResponseWriter, r *http.Request) {
	request := tokenRequest{}
	if r.Method != http.MethodPut {
		writeStatus(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&request); err != nil || request.NewToken == nil || *request.NewToken == "" {
		writeStatus(w, http.StatusBadRequest, "newToken is required")
		return
	}
	who, err := parseToken(*request.NewToken, "server")
	if err == nil {
		err = s.changeToken(r.Context(), who.password)
	}
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *server) changeToken(ctx context.Context, password string) error {
	before := s.secrets().server
	if before == password {
		return nil
	}
	content, err := readBootstrap(s.home)
	if err != nil {
		return err
	}
	if err := saveBootstrap(ctx, s.store, password, content); err != nil {
		return err
	}
	if err := deleteBootstrap(ctx, s.store, before); err != nil {
		return err
	}
	s.lock.Lock()
	s.password.server = password
	s.lock.Unlock()
	return s.writeTokens()
}

func runTokenCommand(words []string) error {
	o, err := parse([]flagSpec{
		{name: "config", alias: "c", initial: "/etc/rancher/k3s/config.yaml"}, {name: "debug", kind: truth},
		{name: "data-dir", alias: "d", byEnv: "K3S_DATA_DIR", initial: "/var/lib/rancher/k3s"},
		{name: "kubeconfig", byEnv: "KUBECONFIG"}, {name: "server", alias: "s", byEnv: "K3S_URL", initial: "https://127.0.0.1:6443"},
		{name: "token", alias: "t", byEnv: "K3S_TOKEN"}, {name: "new-token"},
	}, words, noFile)
	if err != nil {
		return err
	}
	if len(o.rest) == 0 || o.rest[0] != "rotate" {
		return errors.New("of 'k3s token' the work-alike knows 'rotate' only: others need the real k3s")
	}
	given := o.text("token")
	if given == "" {
		content, err := os.ReadFile(filepath.Join(o.text("data-dir"), "server", "token"))
		if err != nil {
			return fmt.Errorf("the existing token is required: %w", err)
		}
		given = strings.TrimSpace(string(content))
	}
	who, err := parseToken(given, "server")
	if err != nil {
		return err
	}
	fresh := o.text("new-token")
	if fresh == "" {
		fresh = randomHex(16)
	}
	peer, err := meet(o.text("server"), who)
	if err != nil {
		return err
	}
	body, _ := json.Marshal(tokenRequest{&fresh})
	if _, err := peer.call(http.MethodPut, "/v1-k3s/token", map[string]string{"Content-Type": "application/json"}, body); err != nil {
		return fmt.Errorf("failed to rotate token: %w", err)
	}
	fmt.Println("Token rotated, restart k3s nodes with new token")
	return nil
}

// secrets-encrypt status

func (s *server) serveEncryption(w http.ResponseWriter, _ *http.Request) {
	content, err := os.ReadFile(s.home.server("cred", "encryption-config.json"))
	state := map[string]any{"stage": "start", "enable": false}
	if err == nil && s.options.truth("secrets-encryption") {
		digest := sha256.Sum256(content)
		state = map[string]any{"stage": "start", "enable": true, "activekey": "aescbckey", "hash": hex.EncodeToString(digest[:])}
	}
	writeJSON(w, state)
}

func runEncryptCommand(words []string) error {
	o, err := parse(join(loggingFlags, []flagSpec{
		{name: "data-dir", alias: "d", byEnv: "K3S_DATA_DIR", initial: "/var/lib/rancher/k3s"},
		{name: "token", alias: "t", byEnv: "K3S_TOKEN"}, {name: "server", alias: "s", byEnv: "K3S_URL"},
		{name: "output", alias: "o", initial: "text"}, {name: "https-listen-port", kind: number, initial: "6443"},
	}), words, skipped)
	if err != nil {
		return err
	}
	if len(o.rest) == 0 || o.rest[0] != "status" {
		return errors.New("of 'k3s secrets-encrypt' the work-alike knows 'status' only: others need the real k3s")
	}
	text, err := askServer(home{o.text("data-dir")}, o.number("https-listen-port"), http.MethodGet, "/v1-k3s/encrypt/status", nil)
	if err != nil {
		return err
	}
	if o.text("output") == "json" {
		fmt.Println(strings.TrimSpace(string(text)))
		return nil
	}
	state := struct {
		Stage     string
		Enable    bool
		ActiveKey string
	}{}
	if err := json.Unmarshal(text, &state); err != nil {
		return err
	}
	if !state.Enable {
		fmt.Println("Encryption Status: Disabled, no configuration file found")
		return nil
	}
	fmt.Printf("Encryption Status: Enabled\nCurrent Rotation Stage: %s\nServer Encryption Hashes: All hashes match\n\n", state.Stage)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "Active\tKey Type\tName\n------\t--------\t----\n *\tAES-CBC\t%s\n", state.ActiveKey)
	return table.Flush()
}

// certificate rotate, certificate check

func runCertificateCommand(words []string) error {
	o, err := parse(join(loggingFlags, []flagSpec{
		{name: "data-dir", alias: "d", byEnv: "K3S_DATA_DIR", initial: "/var/lib/rancher/k3s"},
		{name: "service", alias: "s", kind: list}, {name: "output", alias: "o", initial: "text"},
	}), words, skipped)
	if err != nil {
		return err
	}
	h := home{o.text("data-dir")}
	if len(o.rest) > 0 {
		switch o.rest[0] {
		case "rotate":
			return rotateCertificates(h, o.list("service"))
		case "check":
			return checkCertificates(h, o.text("output"))
		}
	}
	return errors.New("of 'k3s certificate' the work-alike knows 'rotate' and 'check' only: others need the real k3s")
}

// certificateFiles are the leaves of a machine by service, as far as they are there.
func certificateFiles(h home) map[string][]string {
	found := map[string][]string{}
	add := func(service, path string) {
		if exists(path + ".crt") {
			found[service] = append(found[service], path)
		}
	}
	s := &server{home: h, options: &options{known: map[string]flagSpec{}, values: map[string][]string{}}}
	for _, wanted := range s.leaves() {
		add(wanted.service, h.tls(wanted.file))
	}
	add("kubelet", h.agent("client-kubelet"))
	add("kubelet", h.agent("serving-kubelet"))
	add("kube-proxy", h.agent("client-kube-proxy"))
	add("k3s-controller", h.agent("client-k3s-controller"))
	return found
}

// rotateCertificates takes keys and certificates away, into folders beside; the next start makes new ones.
func rotateCertificates(h home, services []string) error {
	files := certificateFiles(h)
	known := map[string]bool{"cloud-controller": true, "supervisor": true}
	for _, service := range []string{"admin", "api-server", "auth-proxy", "controller-manager", "etcd", "k3s-controller", "k3s-server", "kube-proxy", "kubelet", "scheduler"} {
		known[service] = true
	}
	for _, service := range services {
		if !known[service] {
			return fmt.Errorf("%s is not a recognized service", service)
		}
	}
	if len(services) == 0 {
		services = sortedKeys(files)
	}
	stamp := time.Now().Unix()
	for _, service := range services {
		for _, path := range files[service] {
			base, backup := h.tls(), h.server(fmt.Sprintf("tls-%d", stamp))
			if strings.HasPrefix(path, h.agent()) {
				base, backup = h.agent(), h.agent(fmt.Sprintf("tls-%d", stamp))
			}
			relative, err := filepath.Rel(base, path)
			if err != nil {
				return err
			}
			for _, suffix := range []string{".crt", ".key"} {
				target := filepath.Join(backup, relative+suffix)
				if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
					return err
				}
				if err := os.Rename(path+suffix, target); err != nil && !os.IsNotExist(err) {
					return err
				}
			}
		}
		infof("Rotating certificates for %s", service)
	}
	infof("Successfully backed up certificates, please restart k3s to rotate them")
	return nil
}

func checkCertificates(h home, form string) error {
	type row struct {
		File     string    `json:"filename"`
		Subject  string    `json:"subject"`
		Usages   []string  `json:"usages"`
		Expires  time.Time `json:"expiryTime"`
		Residual string    `json:"residualTime"`
		Status   string    `json:"status"`
	}
	rows := []row{}
	files := certificateFiles(h)
	for _, service := range sortedKeys(files) {
		for _, path := range files[service] {
			certificates, err := readCertificates(path + ".crt")
			if err != nil {
				return err
			}
			for _, certificate := range certificates {
				left, status := time.Until(certificate.NotAfter), "OK"
				if left < 0 {
					status = "EXPIRED"
				} else if left < renewUnder {
					status = "WARNING"
				}
				rows = append(rows, row{
					filepath.Base(path) + ".crt", certificate.Subject.CommonName, usagesOf(certificate), certificate.NotAfter.UTC(),
					fmt.Sprintf("%d days", int(left.Hours()/24)), status,
				})
			}
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("no certificates below %s: k3s never ran there", h.root)
	}
	switch form {
	case "json":
		return json.NewEncoder(os.Stdout).Encode(map[string]any{"certificates": rows})
	case "table":
		table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
		fmt.Fprint(table, "FILENAME\tSUBJECT\tUSAGES\tEXPIRES\tRESIDUAL TIME\tSTATUS\n--------\t-------\t------\t-------\t-------------\t------\n")
		for _, each := range rows {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", each.File, each.Subject, strings.Join(each.Usages, ","), each.Expires.Format("Jan 02, 2006 15:04 MST"), each.Residual, each.Status)
		}
		return table.Flush()
	}
	for _, each := range rows {
		infof("%s: certificate %s is ok, expires at %s", each.File, each.Subject, each.Expires.Format(time.RFC3339))
	}
	return nil
}

func usagesOf(certificate *x509.Certificate) []string {
	usages := []string{}
	if certificate.IsCA {
		return []string{"CertSign"}
	}
	for _, usage := range certificate.ExtKeyUsage {
		switch usage {
		case x509.ExtKeyUsageServerAuth:
			usages = append(usages, "ServerAuth")
		case x509.ExtKeyUsageClientAuth:
			usages = append(usages, "ClientAuth")
		}
	}
	return usages
}

// check-config

func runCheckConfig() error {
	failed := 0
	say := func(good bool, what string) {
		state := "good"
		if !good {
			state, failed = "fail", failed+1
		}
		fmt.Printf("- %s: %s\n", what, state)
	}
	fmt.Println("Verifying what the work-alike uses (the kernel's configuration is checked by the real k3s):")
	for _, controller := range []string{"cpu", "memory", "pids", "cpuset"} {
		say(hasController(controller), "cgroup controller "+controller)
	}
	for _, tool := range []string{"iptables", "mount"} {
		_, err := exec.LookPath(tool)
		say(err == nil, tool)
	}
	filesystems, _ := os.ReadFile("/proc/filesystems")
	say(strings.Contains(string(filesystems), "overlay"), "overlayfs")
	fmt.Printf("\nSTATUS: %d failed\n", failed)
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	return nil
}

func hasController(name string) bool {
	file, err := os.Open("/proc/cgroups")
	if err != nil {
		return false
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) == 4 && words[0] == name && words[3] == "1" {
			return true
		}
	}
	return false
}
