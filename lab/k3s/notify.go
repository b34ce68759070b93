package main

import (
	"net"
	"os"
)

// notifyReady tells systemd that the unit is up (Type=notify).
func notifyReady() {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		warnf("systemd does not listen: %v", err)
		return
	}
	defer connection.Close()
	_, _ = connection.Write([]byte("READY=1\n"))
	os.Unsetenv("NOTIFY_SOCKET")
}
