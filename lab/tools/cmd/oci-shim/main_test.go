package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const withoutSysResource = 0x1fffeffffff

const containerConfig = `{"ociVersion":"1.0.2","process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":1048576,"soft":1048576}],
"oomScoreAdj":-500,"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE"],"effective":["CAP_CHOWN"]}},
"linux":{"resources":{"memory":{"limit":9007199254740993}}}}`

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTakesOutWhatTheHostCannotGrant(t *testing.T) {
	file := write(t, containerConfig)
	if err := adapt(file, withoutSysResource); err != nil {
		t.Fatal(err)
	}
	text := read(t, file)
	for _, gone := range []string{"rlimits", "oomScoreAdj", "CAP_SYS_RESOURCE"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is still there: %s", gone, text)
		}
	}
	for _, kept := range []string{"CAP_CHOWN", "9007199254740993"} {
		if !strings.Contains(text, kept) {
			t.Errorf("%s was lost: %s", kept, text)
		}
	}
}

func TestChangesNothingWhereNothingIsMissing(t *testing.T) {
	file := write(t, containerConfig)
	if err := adapt(file, ^uint64(0)); err != nil {
		t.Fatal(err)
	}
	if text := read(t, file); text != containerConfig {
		t.Errorf("rewritten: %s", text)
	}
}

func TestAdaptsTheProcessFileOfAnExec(t *testing.T) {
	file := write(t, `{"args":["sh"],"rlimits":[],"capabilities":{"bounding":["CAP_SYS_RESOURCE"]}}`)
	if err := adapt(file, withoutSysResource); err != nil {
		t.Fatal(err)
	}
	var process map[string]any
	if err := json.Unmarshal([]byte(read(t, file)), &process); err != nil {
		t.Fatal(err)
	}
	if _, found := process["rlimits"]; found || len(process["args"].([]any)) != 1 {
		t.Errorf("unexpected process: %v", process)
	}
}

func TestFindsTheFileThatACallNames(t *testing.T) {
	for want, args := range map[string][]string{
		"/b/config.json": {"--root", "/r", "create", "--bundle", "/b", "id"},
		"/c/config.json": {"run", "--bundle=/c", "id"},
		"config.json":    {"create", "id"},
		"/p":             {"exec", "--process", "/p", "id"},
		"":               {"delete", "id"},
	} {
		if got := configFile(args); got != want {
			t.Errorf("%v: %q, wanted %q", args, got, want)
		}
	}
}
