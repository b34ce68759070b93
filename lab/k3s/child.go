package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a program of ours that must not outlive this process: an upstream component, or containerd.
type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

var (
	forks    = make(chan func())
	forkOnce sync.Once
)

// startChild starts a program with the kernel's promise that it dies with this process. The promise is bound to the
// thread that forks, so one thread that never ends does it.
func startChild(name, path string, arguments, environment []string, output string) (*child, error) {
	forkOnce.Do(func() {
		go func() {
			runtime.LockOSThread()
			for fork := range forks {
				fork()
			}
		}()
	})
	cmd := exec.Command(path)
	cmd.Args = append([]string{name}, arguments...)
	cmd.Env = append(childEnvironment(), environment...)
	cmd.Stdout, cmd.Stderr = &quiet{}, &quiet{}
	if output != "" {
		file, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		cmd.Stdout, cmd.Stderr = file, file
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	forks <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	begun := &child{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		begun.err = cmd.Wait()
		close(begun.done)
	}()
	return begun, nil
}

// startComponent starts an upstream component out of this very file, also after the file was replaced on the disk.
func startComponent(name string, arguments []string, environment ...string) (*child, error) {
	infof("Running %s %s", name, strings.Join(arguments, " "))
	return startChild(name, "/proc/self/exe", arguments, environment, "")
}

// quiet passes on what a component complains about, and leaves out what it merely tells (unless --debug is set): a
// journal that takes every line of four components costs a small machine as much as they do.
type quiet struct{ rest []byte }

func (q *quiet) Write(content []byte) (int, error) {
	q.rest = append(q.rest, content...)
	for {
		end := bytes.IndexByte(q.rest, '\n')
		if end < 0 {
			return len(content), nil
		}
		line := q.rest[:end+1]
		tells := len(line) > 5 && (line[0] == 'I' || line[0] == 'W') && line[1] >= '0' && line[1] <= '9'
		if debugging || !tells {
			_, _ = os.Stderr.Write(line)
		}
		q.rest = q.rest[end+1:]
	}
}

// childEnvironment is ours without what only we may know: the token, and the socket that systemd listens at.
func childEnvironment() []string {
	kept := []string{}
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "K3S_") && !strings.HasPrefix(pair, "NOTIFY_SOCKET=") {
			kept = append(kept, pair)
		}
	}
	return kept
}

// stop asks, and insists when the answer takes longer than the patience.
func (c *child) stop(patience time.Duration) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(patience):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

// guard ends this process when a child ends before its time, as one process with everything inside would.
func (c *child) guard(ctx context.Context) {
	go func() {
		select {
		case <-ctx.Done():
		case <-c.done:
			if ctx.Err() == nil {
				fatalf("%s exited: %v", c.name, c.err)
			}
		}
	}()
}
