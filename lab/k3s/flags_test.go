package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func config(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(folder, "config.yaml")
}

// The example of the documentation's page "Configuration Options", section "Multiple Config Files".
func TestLaterFilesWinAndPlusAppends(t *testing.T) {
	file := config(t, map[string]string{
		"config.yaml":              "token: boop\nnode-label:\n  - foo=bar\n  - bar=baz\n",
		"config.yaml.d/test1.yaml": "write-kubeconfig-mode: 600\nnode-taint:\n  - alice=bob:NoExecute\n",
		"config.yaml.d/test2.yaml": "write-kubeconfig-mode: 777\nnode-label:\n  - other=what\n  - foo=three\n" +
			"node-taint+:\n  - charlie=delta:NoSchedule\n",
		"config.yaml.d/ignored.txt": "token: other\n",
	})
	o, err := parse(serverFlags, []string{"--config", file}, warned)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.text("write-kubeconfig-mode"); got != "777" {
		t.Errorf("write-kubeconfig-mode is %q", got)
	}
	if got := o.text("token"); got != "boop" {
		t.Errorf("token is %q", got)
	}
	if got, want := o.list("node-label"), []string{"other=what", "foo=three"}; !reflect.DeepEqual(got, want) {
		t.Errorf("node-label is %q", got)
	}
	if got, want := o.list("node-taint"), []string{"alice=bob:NoExecute", "charlie=delta:NoSchedule"}; !reflect.DeepEqual(got, want) {
		t.Errorf("node-taint is %q", got)
	}
}

func TestTheCommandLineWinsOverFileAndEnvironment(t *testing.T) {
	file := config(t, map[string]string{"config.yaml": "token: of-file\nnode-label: [a=1]\n"})
	t.Setenv("K3S_TOKEN", "of-environment")
	t.Setenv("K3S_NODE_NAME", "of-environment")
	o, err := parse(serverFlags, []string{"--config=" + file, "--node-label", "b=2", "--cluster-init"}, warned)
	if err != nil {
		t.Fatal(err)
	}
	if o.text("token") != "of-file" || o.text("node-name") != "of-environment" || !o.truth("cluster-init") {
		t.Errorf("token %q, node-name %q, cluster-init %v", o.text("token"), o.text("node-name"), o.truth("cluster-init"))
	}
	if got := o.list("node-label"); !reflect.DeepEqual(got, []string{"b=2"}) {
		t.Errorf("node-label is %q", got)
	}
}

func TestWhatIsRefused(t *testing.T) {
	for words, want := range map[string]string{
		"--no-such-flag":                  "flag provided but not defined: -no-such-flag",
		"--token":                         "flag needs an argument: -token",
		"--cluster-init=perhaps":          "invalid boolean value",
		"--https-listen-port many":        "invalid value",
		"--etcd-s3":                       "needs the real k3s",
		"--selinux":                       "needs the real k3s",
		"--flannel-ipv6-masq --token abc": "needs the real k3s",
	} {
		_, err := parse(serverFlags, append([]string{"--config", "/does/not/exist"}, strings.Fields(words)...), warned)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", words, err, want)
		}
	}
	if _, err := parse(serverFlags, []string{"--config", "/does/not/exist", "--selinux=false"}, warned); err != nil {
		t.Errorf("a feature that is switched off is no wish for it: %v", err)
	}
}

func TestAStrangerInTheFile(t *testing.T) {
	file := config(t, map[string]string{"config.yaml": "no-such-key: 1\n"})
	if _, err := parse(serverFlags, []string{"--config", file}, warned); err != nil {
		t.Errorf("a server: %v", err)
	}
	if _, err := parse(join(loggingFlags, agentFlags), []string{"--config", file}, refused); err == nil {
		t.Error("an agent takes a key that it does not know")
	}
}

func TestArgumentsOfComponents(t *testing.T) {
	got := mergeArguments([]string{"--a=1", "--b=2"}, []string{"b=3", "--c=4,5"})
	if want := []string{"--a=1", "--b=3", "--c=4,5"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	o, err := parse(serverFlags, []string{"--config", "/does/not/exist", "--kubelet-arg", "x=1,2"}, warned)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.list("kubelet-arg"); !reflect.DeepEqual(got, []string{"x=1,2"}) {
		t.Errorf("an argument of a component was cut: %q", got)
	}
}
