package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

var debugging bool

// logLine writes one line in the form of k3s's log.
func logLine(level, message string) {
	fmt.Fprintf(os.Stderr, "time=%q level=%s msg=%q\n", time.Now().UTC().Format(time.RFC3339), level, message)
}

func infof(format string, values ...any) { logLine("info", fmt.Sprintf(format, values...)) }

func warnf(format string, values ...any) { logLine("warning", fmt.Sprintf(format, values...)) }

func errorf(format string, values ...any) { logLine("error", fmt.Sprintf(format, values...)) }

func debugf(format string, values ...any) {
	if debugging {
		logLine("debug", fmt.Sprintf(format, values...))
	}
}

// fatalf ends the process: its children die with it, the pods' shims do not.
func fatalf(format string, values ...any) {
	logLine("fatal", fmt.Sprintf(format, values...))
	os.Exit(1)
}

func goVersion() string { return runtime.Version() }
