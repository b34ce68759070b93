package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

type kind int

const (
	text kind = iota
	truth
	number
	list
)

// flagSpec is one option of k3s. What is known and not imitated here carries a reason, and is refused when it is set.
type flagSpec struct {
	name    string
	alias   string
	kind    kind
	byEnv   string
	initial string
	beyond  bool // needs the real k3s
}

var loggingFlags = []flagSpec{
	{name: "config", alias: "c", byEnv: "K3S_CONFIG_FILE", initial: "/etc/rancher/k3s/config.yaml"},
	{name: "debug", kind: truth, byEnv: "K3S_DEBUG"},
	{name: "v", kind: number, initial: "0"},
	{name: "vmodule"},
	{name: "log", alias: "l"},
	{name: "alsologtostderr", kind: truth},
}

var agentFlags = []flagSpec{
	{name: "token", alias: "t", byEnv: "K3S_TOKEN"},
	{name: "token-file", byEnv: "K3S_TOKEN_FILE"},
	{name: "server", alias: "s", byEnv: "K3S_URL"},
	{name: "data-dir", alias: "d", byEnv: "K3S_DATA_DIR", initial: "/var/lib/rancher/k3s"},
	{name: "node-name", byEnv: "K3S_NODE_NAME"},
	{name: "with-node-id", kind: truth},
	{name: "node-label", kind: list},
	{name: "node-taint", kind: list},
	{name: "image-credential-provider-bin-dir", initial: "/var/lib/rancher/credentialprovider/bin"},
	{name: "image-credential-provider-config", initial: "/var/lib/rancher/credentialprovider/config.yaml"},
	{name: "selinux", kind: truth, byEnv: "K3S_SELINUX", beyond: true},
	{name: "lb-server-port", kind: number, byEnv: "K3S_LB_SERVER_PORT", initial: "6444"},
	{name: "protect-kernel-defaults", kind: truth},
	{name: "container-runtime-endpoint", beyond: true},
	{name: "default-runtime", beyond: true},
	{name: "image-service-endpoint", beyond: true},
	{name: "pause-image", initial: "rancher/mirrored-pause:3.6"},
	{name: "snapshotter", initial: "overlayfs"},
	{name: "private-registry", initial: "/etc/rancher/k3s/registries.yaml"},
	{name: "disable-default-registry-endpoint", kind: truth},
	{name: "nonroot-devices", kind: truth, beyond: true},
	{name: "node-ip", alias: "i", kind: list},
	{name: "bind-address", initial: "0.0.0.0"},
	{name: "node-external-ip", kind: list, beyond: true},
	{name: "node-internal-dns", kind: list, beyond: true},
	{name: "node-external-dns", kind: list, beyond: true},
	{name: "resolv-conf", byEnv: "K3S_RESOLV_CONF"},
	{name: "flannel-iface"},
	{name: "flannel-conf", beyond: true},
	{name: "flannel-cni-conf", beyond: true},
	{name: "kubelet-arg", kind: list},
	{name: "kube-proxy-arg", kind: list},
	{name: "enable-pprof", kind: truth, beyond: true},
	{name: "rootless", kind: truth, beyond: true},
	{name: "prefer-bundled-bin", kind: truth},
	{name: "docker", kind: truth, beyond: true},
	{name: "vpn-auth", byEnv: "K3S_VPN_AUTH", beyond: true},
	{name: "vpn-auth-file", byEnv: "K3S_VPN_AUTH_FILE", beyond: true},
	{name: "disable-apiserver-lb", kind: truth},
}

var snapshotFlags = []flagSpec{
	{name: "etcd-snapshot-name", initial: "etcd-snapshot"},
	{name: "etcd-snapshot-dir"},
	{name: "etcd-snapshot-compress", kind: truth},
	{name: "etcd-snapshot-retention", kind: number, initial: "5"},
	{name: "etcd-s3", kind: truth, beyond: true},
	{name: "etcd-s3-endpoint", beyond: true},
	{name: "etcd-s3-endpoint-ca", beyond: true},
	{name: "etcd-s3-skip-ssl-verify", kind: truth, beyond: true},
	{name: "etcd-s3-access-key", beyond: true},
	{name: "etcd-s3-secret-key", beyond: true},
	{name: "etcd-s3-session-token", beyond: true},
	{name: "etcd-s3-bucket", beyond: true},
	{name: "etcd-s3-bucket-lookup-type", beyond: true},
	{name: "etcd-s3-region", beyond: true},
	{name: "etcd-s3-folder", beyond: true},
	{name: "etcd-s3-proxy", beyond: true},
	{name: "etcd-s3-config-secret", beyond: true},
	{name: "etcd-s3-insecure", kind: truth, beyond: true},
	{name: "etcd-s3-timeout", beyond: true},
	{name: "etcd-s3-retention", kind: number, beyond: true},
}

var onlyServerFlags = []flagSpec{
	{name: "https-listen-port", kind: number, initial: "6443"},
	{name: "supervisor-port", kind: number, beyond: true},
	{name: "advertise-address"},
	{name: "advertise-port", kind: number, beyond: true},
	{name: "tls-san", kind: list},
	{name: "tls-san-security", kind: truth, initial: "true"},
	{name: "cluster-cidr", kind: list, initial: "10.42.0.0/16"},
	{name: "service-cidr", kind: list, initial: "10.43.0.0/16"},
	{name: "service-node-port-range", initial: "30000-32767"},
	{name: "cluster-dns", kind: list, initial: ""},
	{name: "cluster-domain", initial: "cluster.local"},
	{name: "flannel-backend", initial: "vxlan"},
	{name: "flannel-ipv6-masq", kind: truth, beyond: true},
	{name: "flannel-external-ip", kind: truth, beyond: true},
	{name: "egress-selector-mode", initial: "agent"},
	{name: "servicelb-namespace", initial: "kube-system"},
	{name: "write-kubeconfig", alias: "o", byEnv: "K3S_KUBECONFIG_OUTPUT"},
	{name: "write-kubeconfig-mode", byEnv: "K3S_KUBECONFIG_MODE"},
	{name: "write-kubeconfig-group", byEnv: "K3S_KUBECONFIG_GROUP"},
	{name: "helm-job-image"},
	{name: "agent-token", byEnv: "K3S_AGENT_TOKEN"},
	{name: "agent-token-file", byEnv: "K3S_AGENT_TOKEN_FILE"},
	{name: "cluster-init", kind: truth, byEnv: "K3S_CLUSTER_INIT"},
	{name: "cluster-reset", kind: truth, byEnv: "K3S_CLUSTER_RESET"},
	{name: "cluster-reset-restore-path"},
	{name: "kube-apiserver-arg", kind: list},
	{name: "etcd-arg", kind: list},
	{name: "kube-controller-manager-arg", kind: list},
	{name: "kube-scheduler-arg", kind: list},
	{name: "kube-cloud-controller-manager-arg", kind: list, beyond: true},
	{name: "datastore-endpoint", byEnv: "K3S_DATASTORE_ENDPOINT"},
	{name: "datastore-cafile", byEnv: "K3S_DATASTORE_CAFILE"},
	{name: "datastore-certfile", byEnv: "K3S_DATASTORE_CERTFILE"},
	{name: "datastore-keyfile", byEnv: "K3S_DATASTORE_KEYFILE"},
	{name: "kine-tls", kind: truth, beyond: true},
	{name: "etcd-expose-metrics", kind: truth},
	{name: "etcd-disable-snapshots", kind: truth},
	{name: "etcd-snapshot-schedule-cron", initial: "0 */12 * * *"},
	{name: "default-local-storage-path"},
	{name: "disable", kind: list},
	{name: "disable-scheduler", kind: truth},
	{name: "disable-cloud-controller", kind: truth},
	{name: "disable-kube-proxy", kind: truth},
	{name: "disable-network-policy", kind: truth},
	{name: "disable-helm-controller", kind: truth},
	{name: "disable-apiserver", kind: truth, beyond: true},
	{name: "disable-controller-manager", kind: truth, beyond: true},
	{name: "disable-etcd", kind: truth, beyond: true},
	{name: "disable-agent", kind: truth, beyond: true},
	{name: "embedded-registry", kind: truth, beyond: true},
	{name: "supervisor-metrics", kind: truth, beyond: true},
	{name: "multi-cluster-cidr", kind: truth, beyond: true},
	{name: "system-default-registry", byEnv: "K3S_SYSTEM_DEFAULT_REGISTRY"},
	{name: "secrets-encryption", kind: truth},
	{name: "secrets-encryption-provider", initial: "aescbc"},
}

func join(groups ...[]flagSpec) []flagSpec {
	all := []flagSpec{}
	for _, group := range groups {
		all = append(all, group...)
	}
	return all
}

var serverFlags = join(loggingFlags, agentFlags, snapshotFlags, onlyServerFlags)

// usageError is a wrong command line; the program says so as k3s does.
type usageError string

func (e usageError) Error() string { return string(e) }

// options are the values of one command, by the flags' names.
type options struct {
	known  map[string]flagSpec
	values map[string][]string
	rest   []string
}

// strangers is what a command does with a key of the configuration file that it does not know.
type strangers int

const (
	refused strangers = iota // like a flag on the command line
	warned                   // skipped with a warning
	skipped                  // the file is that of another command
	noFile                   // the command reads no file
)

// parse takes values from the command line, else the configuration file and its folder, else the environment.
func parse(specs []flagSpec, words []string, others strangers) (*options, error) {
	o := &options{known: map[string]flagSpec{}, values: map[string][]string{}}
	for _, spec := range specs {
		o.known[spec.name] = spec
		if spec.alias != "" {
			o.known[spec.alias] = spec
		}
	}
	given, err := o.commandLine(words)
	if err != nil {
		return nil, err
	}
	for _, spec := range specs {
		if value := os.Getenv(spec.byEnv); spec.byEnv != "" && value != "" {
			o.values[spec.name] = split(spec, []string{value})
		}
	}
	if others != noFile {
		file := o.known["config"].initial
		if value := given["config"]; len(value) > 0 {
			file = value[0]
		}
		if value := os.Getenv("K3S_CONFIG_FILE"); value != "" {
			file = value
		}
		if err := o.file(file, others); err != nil {
			return nil, err
		}
	}
	for name, value := range given {
		o.values[name] = value
	}
	for name, values := range o.values {
		spec := o.known[name]
		for _, value := range values {
			switch {
			case spec.kind == truth && value != "true" && value != "false":
				if _, err := strconv.ParseBool(value); err != nil {
					return nil, usageError(fmt.Sprintf("invalid boolean value %q for -%s: parse error", value, name))
				}
			case spec.kind == number:
				if _, err := strconv.Atoi(value); err != nil {
					return nil, usageError(fmt.Sprintf("invalid value %q for flag -%s: parse error", value, name))
				}
			}
		}
		if spec.beyond && !(spec.kind == truth && !o.truth(name)) {
			return nil, fmt.Errorf("--%s needs the real k3s: the lab's work-alike does not imitate it", name)
		}
	}
	debugging = o.truth("debug")
	return o, nil
}

func (o *options) commandLine(words []string) (map[string][]string, error) {
	given := map[string][]string{}
	for i := 0; i < len(words); i++ {
		word := words[i]
		if !strings.HasPrefix(word, "-") || word == "-" {
			o.rest = append(o.rest, word)
			continue
		}
		name, value, has := strings.Cut(strings.TrimLeft(word, "-"), "=")
		spec, found := o.known[name]
		if !found {
			return nil, usageError("flag provided but not defined: -" + name)
		}
		if !has {
			if spec.kind == truth {
				value = "true"
			} else {
				if i+1 >= len(words) {
					return nil, usageError("flag needs an argument: -" + name)
				}
				i++
				value = words[i]
			}
		}
		if spec.kind == list {
			given[spec.name] = append(given[spec.name], split(spec, []string{value})...)
		} else {
			given[spec.name] = []string{value}
		}
	}
	return given, nil
}

// split parts a list at its commas, as k3s does; arguments for components stay whole.
func split(spec flagSpec, values []string) []string {
	if spec.kind != list || strings.HasSuffix(spec.name, "-arg") {
		return values
	}
	parts := []string{}
	for _, value := range values {
		for _, part := range strings.Split(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				parts = append(parts, part)
			}
		}
	}
	return parts
}

func (o *options) file(name string, others strangers) error {
	files := []string{}
	if _, err := os.Stat(name); err == nil {
		files = append(files, name)
	}
	entries, _ := os.ReadDir(name + ".d")
	for _, entry := range entries {
		lower := strings.ToLower(entry.Name())
		if !entry.IsDir() && (strings.HasSuffix(lower, ".yaml") || strings.HasSuffix(lower, ".yml")) {
			files = append(files, filepath.Join(name+".d", entry.Name()))
		}
	}
	found := map[string][]string{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		document := map[string]any{}
		if err := yaml.Unmarshal(content, &document); err != nil {
			return fmt.Errorf("failed to parse config file %s: %w", file, err)
		}
		keys := make([]string, 0, len(document))
		for key := range document {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		for _, key := range keys {
			plain, more := strings.CutSuffix(key, "+")
			values := asList(document[key])
			if more {
				values = append(found[plain], values...)
			}
			found[plain] = values
		}
	}
	for key, values := range found {
		spec, known := o.known[key]
		if !known {
			switch others {
			case refused:
				return usageError("flag provided but not defined: -" + key)
			case warned:
				warnf("Unknown flag --%s found in config.yaml, skipping", key)
			}
			continue
		}
		o.values[spec.name] = split(spec, values)
	}
	return nil
}

func asList(value any) []string {
	switch typed := value.(type) {
	case nil:
		return []string{""}
	case []any:
		values := []string{}
		for _, item := range typed {
			values = append(values, asList(item)...)
		}
		return values
	case float64:
		return []string{strconv.FormatFloat(typed, 'f', -1, 64)}
	}
	return []string{fmt.Sprint(value)}
}

func (o *options) isSet(name string) bool { return len(o.values[name]) > 0 }

func (o *options) text(name string) string {
	if values := o.values[name]; len(values) > 0 {
		return values[len(values)-1]
	}
	return o.known[name].initial
}

func (o *options) truth(name string) bool {
	value, _ := strconv.ParseBool(o.text(name))
	return value
}

func (o *options) number(name string) int {
	value, _ := strconv.Atoi(o.text(name))
	return value
}

func (o *options) list(name string) []string {
	if values := o.values[name]; len(values) > 0 {
		return values
	}
	if initial := o.known[name].initial; initial != "" {
		return []string{initial}
	}
	return nil
}

// token is the secret as it was given: the option, or the first line of the file that another option names.
func (o *options) token(option string) (string, error) {
	if value := o.text(option); value != "" {
		return strings.TrimSpace(value), nil
	}
	file := o.text(option + "-file")
	if file == "" {
		return "", nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading --%s-file: %w", option, err)
	}
	value := strings.TrimSpace(string(content))
	if value == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return value, nil
}

func wantsHelp(words []string) bool {
	for _, word := range words {
		if word == "--help" || word == "-h" || word == "help" {
			return true
		}
	}
	return false
}

func printFlags(title string, specs []flagSpec) {
	fmt.Printf("NAME:\n   k3s %s\n\nOPTIONS:\n", title)
	for _, spec := range specs {
		line := "   --" + spec.name
		if spec.kind != truth {
			line += " value"
		}
		if spec.alias != "" {
			line += ", -" + spec.alias
		}
		if spec.initial != "" {
			line += fmt.Sprintf(" (default: %q)", spec.initial)
		}
		if spec.byEnv != "" {
			line += fmt.Sprintf(" [$%s]", spec.byEnv)
		}
		if spec.beyond {
			line += " (needs the real k3s)"
		}
		fmt.Println(line)
	}
}
