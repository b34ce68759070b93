// Command k3s is the lab's work-alike of k3s: it keeps the outer contract (flags, files, paths, ports, states) that
// CONTRACT.md lists, and runs upstream Kubernetes inside. It is a part of the tests, no distribution of Kubernetes, and
// its version says so. What it does not know it refuses.
//
// One file is every program: it picks one from the name that it is called by (argv[0]), as the kubelet's or kubectl's.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// Set by the linker.
var (
	version   = "v0.0.0+k3s0"
	gitCommit = "work-alike"
)

const program = "k3s"

func main() {
	name := filepath.Base(os.Args[0])
	if run, found := components[name]; found {
		os.Exit(run())
	}
	os.Exit(commandLine(os.Args[1:]))
}

func commandLine(words []string) int {
	command, rest := "", []string{}
	if len(words) > 0 {
		command, rest = words[0], words[1:]
	}
	switch command {
	case "server":
		return exitCode(runServer(rest))
	case "agent":
		return exitCode(runAgent(rest))
	case "kubectl":
		return becomeKubectl(rest)
	case "crictl":
		return exitCode(runCrictl(rest))
	case "ctr":
		return exitCode(becomeCtr(rest))
	case "etcd-snapshot":
		return exitCode(runSnapshotCommand(rest))
	case "token":
		return exitCode(runTokenCommand(rest))
	case "secrets-encrypt":
		return exitCode(runEncryptCommand(rest))
	case "certificate":
		return exitCode(runCertificateCommand(rest))
	case "check-config":
		return exitCode(runCheckConfig())
	case "--version", "-v", "version":
		fmt.Printf("%s version %s (lab work-alike, %s)\ngo version %s\n", program, version, gitCommit, goVersion())
		return 0
	case "", "help", "--help", "-h":
		usage(os.Stdout)
		return 0
	}
	fmt.Fprintf(os.Stderr, "No help topic for '%s'\n", command)
	return 3
}

func usage(to *os.File) {
	fmt.Fprintf(to, `NAME:
   %s - Kubernetes, but small and simple: the lab's work-alike

USAGE:
   %s [global options] command [command options] [arguments...]

VERSION:
   %s (lab work-alike, %s)

COMMANDS:
   server           Run management server
   agent            Run node agent
   kubectl          Run kubectl
   crictl           Run crictl
   ctr              Run ctr
   check-config     Run config check
   token            Manage tokens
   etcd-snapshot    Manage etcd snapshots
   secrets-encrypt  Control secrets encryption and keys rotation
   certificate      Manage K3s certificates

GLOBAL OPTIONS:
   --help, -h     show help
   --version, -v  print the version
`, program, program, version, gitCommit)
}

// exitCode says what went wrong the way that k3s does, as its last line.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if wrong, usage := err.(usageError); usage {
		fmt.Fprintf(os.Stderr, "Incorrect Usage: %s\n", string(wrong))
	}
	logLine("fatal", err.Error())
	return 1
}
