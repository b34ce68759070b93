// Command oci-shim stands in front of an OCI runtime (runc) on a host that
// lacks capabilities a privileged container asks for, CAP_SYS_RESOURCE above
// all: it takes what the host can't grant out of the container's configuration
// and then becomes the real runtime. Where the host lacks nothing it changes nothing.
//
// The real runtime is OCI_SHIM_RUNTIME, or runc from PATH.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// capabilityNames in the kernel's numbering (include/uapi/linux/capability.h).
var capabilityNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oci-shim:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	held, err := heldCapabilities("/proc/self/status")
	if err != nil {
		return err
	}
	if file := configFile(args); file != "" {
		if err := adapt(file, held); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	runtime := os.Getenv("OCI_SHIM_RUNTIME")
	if runtime == "" {
		if runtime, err = exec.LookPath("runc"); err != nil {
			return err
		}
	}
	return syscall.Exec(runtime, append([]string{runtime}, args...), os.Environ())
}

// configFile names the JSON file that this call gives to the runtime, or "".
func configFile(args []string) string {
	value := func(long, short string) string {
		for i, arg := range args {
			if (arg == long || arg == short) && i+1 < len(args) {
				return args[i+1]
			}
			if rest, found := strings.CutPrefix(arg, long+"="); found {
				return rest
			}
		}
		return ""
	}
	for _, arg := range args {
		switch arg {
		case "create", "run":
			return filepath.Join(value("--bundle", "-b"), "config.json")
		case "exec":
			return value("--process", "-p")
		}
	}
	return ""
}

func heldCapabilities(statusFile string) (uint64, error) {
	text, err := os.ReadFile(statusFile)
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if digits, found := strings.CutPrefix(line, "CapEff:"); found {
			return strconv.ParseUint(strings.TrimSpace(digits), 16, 64)
		}
	}
	return 0, fmt.Errorf("%s has no CapEff line", statusFile)
}

func holds(held uint64, name string) bool {
	for bit, known := range capabilityNames {
		if known == name {
			return held&(1<<bit) != 0
		}
	}
	return true // a capability newer than this list: let the runtime decide
}

// adapt rewrites a container's config.json, or the process file of an exec.
func adapt(file string, held uint64) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var document map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		return err
	}
	process, found := document["process"].(map[string]any)
	if !found {
		process = document
	}
	if !adaptProcess(process, held) {
		return nil
	}
	if text, err = json.Marshal(document); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

func adaptProcess(process map[string]any, held uint64) bool {
	changed := false
	if !holds(held, "CAP_SYS_RESOURCE") {
		for _, key := range []string{"rlimits", "oomScoreAdj"} {
			if _, found := process[key]; found {
				delete(process, key)
				changed = true
			}
		}
	}
	sets, _ := process["capabilities"].(map[string]any)
	for name, value := range sets {
		list, _ := value.([]any)
		kept := make([]any, 0, len(list))
		for _, capability := range list {
			if text, isText := capability.(string); !isText || holds(held, text) {
				kept = append(kept, capability)
			}
		}
		if len(kept) != len(list) {
			sets[name] = kept
			changed = true
		}
	}
	return changed
}
