package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Behind the program stand the tools that it brings (containerd, runc, CNI plugins): a tar.gz, its SHA-256 in hex,
// its length, and a mark. lab/edgeha_lab/k3s.py puts it there.
const (
	payloadMark    = "EDGEHAK3"
	payloadTrailer = 64 + 8 + len(payloadMark)
)

// unpackTools puts the tools into DATA_DIR/data/HASH once, and returns their folder.
func unpackTools(dataDir string) (string, error) {
	own, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer own.Close()
	end, err := own.Seek(-int64(payloadTrailer), io.SeekEnd)
	if err != nil {
		return "", err
	}
	trailer := make([]byte, payloadTrailer)
	if _, err := io.ReadFull(own, trailer); err != nil {
		return "", err
	}
	if string(trailer[72:]) != payloadMark {
		return "", errors.New("this program carries no tools (containerd, runc, CNI): it was not built by 'lab k3s'")
	}
	hash, length := string(trailer[:64]), int64(binary.BigEndian.Uint64(trailer[64:72]))
	folder := filepath.Join(dataDir, "data", hash)
	tools := filepath.Join(folder, "bin")
	if _, err := os.Stat(folder); err != nil {
		infof("Preparing data dir %s", folder)
		partial := folder + ".partial"
		if err := os.RemoveAll(partial); err != nil {
			return "", err
		}
		if err := unpack(io.NewSectionReader(own, end-length, length), filepath.Join(partial, "bin")); err != nil {
			return "", fmt.Errorf("extracting tools: %w", err)
		}
		if err := os.Rename(partial, folder); err != nil {
			return "", err
		}
	}
	link := filepath.Join(dataDir, "data", "current")
	if target, err := os.Readlink(link); err != nil || target != folder {
		_ = os.Remove(link + ".new")
		if err := os.Symlink(folder, link+".new"); err != nil {
			return "", err
		}
		if err := os.Rename(link+".new", link); err != nil {
			return "", err
		}
	}
	return tools, nil
}

func unpack(from io.Reader, folder string) error {
	compressed, err := gzip.NewReader(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	archive := tar.NewReader(compressed)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		file, err := os.OpenFile(filepath.Join(folder, filepath.Base(header.Name)), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, archive)
		if closing := file.Close(); err == nil {
			err = closing
		}
		if err != nil {
			return err
		}
	}
}

// usePath lets our tools be found, behind those of the machine or before them as k3s does: bundled ones first.
func usePath(tools string) {
	if !strings.HasPrefix(os.Getenv("PATH"), tools+":") {
		os.Setenv("PATH", tools+":"+os.Getenv("PATH")+":/usr/sbin:/usr/bin:/sbin:/bin")
	}
}

const containerdSocket = "/run/k3s/containerd/containerd.sock"

func becomeCtr(words []string) error {
	tool, err := currentTool("ctr")
	if err != nil {
		return err
	}
	os.Setenv("CONTAINERD_ADDRESS", containerdSocket)
	if os.Getenv("CONTAINERD_NAMESPACE") == "" {
		os.Setenv("CONTAINERD_NAMESPACE", "k8s.io")
	}
	return syscall.Exec(tool, append([]string{"ctr"}, words...), os.Environ())
}

func currentTool(name string) (string, error) {
	dataDir := os.Getenv("K3S_DATA_DIR")
	if dataDir == "" {
		o, err := parse(serverFlags, nil, skipped)
		if err != nil {
			return "", err
		}
		dataDir = o.text("data-dir")
	}
	tools, err := unpackTools(dataDir)
	return filepath.Join(tools, name), err
}
