package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/robfig/cron/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"sigs.k8s.io/yaml"
)

// snapshotFile is one line of `k3s etcd-snapshot ls`.
type snapshotFile struct {
	Name     string    `json:"name"`
	Location string    `json:"location"`
	NodeName string    `json:"nodeName"`
	Size     int64     `json:"size"`
	Created  time.Time `json:"createdAt"`
	Status   string    `json:"status"`
}

// snapshotRequest is what the command line asks of the server.
type snapshotRequest struct {
	Operation string
	Name      []string
	Dir       string
	Compress  bool
	Retention int
}

func (s *server) serveSnapshots(w http.ResponseWriter, r *http.Request) {
	if s.etcd == nil {
		writeStatus(w, http.StatusBadRequest, "etcd datastore disabled")
		return
	}
	request := snapshotRequest{}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&request); err != nil {
		writeStatus(w, http.StatusBadRequest, err.Error())
		return
	}
	folder := request.Dir
	if folder == "" {
		folder = snapshotFolder(s.options, s.home)
	}
	var files []snapshotFile
	var err error
	switch request.Operation {
	case "save":
		var file snapshotFile
		if file, err = s.saveSnapshot(r.Context(), folder, request.Name[0], request.Compress); err == nil {
			files = []snapshotFile{file}
		}
	case "list":
		files, err = s.listSnapshots(folder)
	case "delete":
		files, err = s.deleteSnapshots(folder, request.Name)
	case "prune":
		files, err = s.pruneSnapshots(folder, request.Name[0], request.Retention)
	default:
		err = fmt.Errorf("unknown snapshot operation %q", request.Operation)
	}
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, files)
}

func (s *server) saveSnapshot(ctx context.Context, folder, base string, compress bool) (snapshotFile, error) {
	limited, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if strings.ContainsAny(base, "/\\") {
		return snapshotFile{}, fmt.Errorf("invalid snapshot name %q", base)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return snapshotFile{}, err
	}
	path := filepath.Join(folder, fmt.Sprintf("%s-%s-%d", base, s.node, time.Now().Unix()))
	content, err := s.store.Snapshot(limited)
	if err != nil {
		return snapshotFile{}, err
	}
	defer content.Close()
	partial := path + ".part"
	file, err := os.OpenFile(partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return snapshotFile{}, err
	}
	defer os.Remove(partial)
	_, err = io.Copy(file, content)
	if err == nil {
		err = file.Sync()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return snapshotFile{}, err
	}
	if compress {
		path += ".zip"
		if err := compressInto(path, partial); err != nil {
			return snapshotFile{}, err
		}
	} else if err := os.Rename(partial, path); err != nil {
		return snapshotFile{}, err
	}
	infof("Snapshot %s saved.", filepath.Base(path))
	return s.describe(path)
}

func compressInto(path, plain string) error {
	target, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path + ".part")
	archive := zip.NewWriter(target)
	entry, err := archive.Create(strings.TrimSuffix(filepath.Base(path), ".zip"))
	if err != nil {
		return err
	}
	source, err := os.Open(plain)
	if err != nil {
		return err
	}
	defer source.Close()
	_, err = io.Copy(entry, source)
	if err := errors.Join(err, archive.Close(), target.Close()); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

func (s *server) describe(path string) (snapshotFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return snapshotFile{}, err
	}
	created := info.ModTime()
	name := strings.TrimSuffix(info.Name(), ".zip")
	if cut := strings.LastIndex(name, "-"); cut > 0 {
		if seconds, err := strconv.ParseInt(name[cut+1:], 10, 64); err == nil {
			created = time.Unix(seconds, 0)
		}
	}
	return snapshotFile{
		Name: info.Name(), Location: "file://" + path, NodeName: s.node, Size: info.Size(), Created: created.UTC(),
		Status: "successful",
	}, nil
}

func (s *server) listSnapshots(folder string) ([]snapshotFile, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	files := []snapshotFile{}
	for _, entry := range entries {
		if entry.IsDir() || strings.HasSuffix(entry.Name(), ".part") {
			continue
		}
		file, err := s.describe(filepath.Join(folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func (s *server) deleteSnapshots(folder string, names []string) ([]snapshotFile, error) {
	known, err := s.listSnapshots(folder)
	if err != nil {
		return nil, err
	}
	gone := []snapshotFile{}
	for _, name := range names {
		found := false
		for _, file := range known {
			if file.Name == name {
				found = true
				if err := os.Remove(filepath.Join(folder, name)); err != nil {
					return gone, err
				}
				infof("Snapshot %s deleted.", name)
				gone = append(gone, file)
			}
		}
		if !found {
			return gone, fmt.Errorf("snapshot not found: %s", name)
		}
	}
	return gone, nil
}

func (s *server) pruneSnapshots(folder, base string, keep int) ([]snapshotFile, error) {
	known, err := s.listSnapshots(folder)
	if err != nil {
		return nil, err
	}
	mine := []snapshotFile{}
	for _, file := range known {
		if strings.HasPrefix(file.Name, base+"-"+s.node+"-") {
			mine = append(mine, file)
		}
	}
	sort.Slice(mine, func(a, b int) bool { return mine[a].Created.After(mine[b].Created) })
	if len(mine) <= keep {
		return []snapshotFile{}, nil
	}
	names := []string{}
	for _, file := range mine[keep:] {
		names = append(names, file.Name)
	}
	return s.deleteSnapshots(folder, names)
}

func (s *server) scheduleSnapshots(ctx context.Context) error {
	plan := cron.New()
	_, err := plan.AddFunc(s.options.text("etcd-snapshot-schedule-cron"), func() {
		folder, base := snapshotFolder(s.options, s.home), s.options.text("etcd-snapshot-name")
		if _, err := s.saveSnapshot(ctx, folder, base, s.options.truth("etcd-snapshot-compress")); err != nil {
			errorf("Failed to take etcd snapshot: %v", err)
			return
		}
		if keep := s.options.number("etcd-snapshot-retention"); keep > 0 {
			if _, err := s.pruneSnapshots(folder, base, keep); err != nil {
				errorf("Failed to apply snapshot retention: %v", err)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("--etcd-snapshot-schedule-cron: %w", err)
	}
	plan.Start()
	go func() {
		<-ctx.Done()
		plan.Stop()
	}()
	return nil
}

var snapshotCommandFlags = join(loggingFlags, snapshotFlags, []flagSpec{
	{name: "data-dir", alias: "d", byEnv: "K3S_DATA_DIR", initial: "/var/lib/rancher/k3s"},
	{name: "node-name", byEnv: "K3S_NODE_NAME"},
	{name: "name", initial: "on-demand"},
	{name: "dir"},
	{name: "snapshot-dir"},
	{name: "snapshot-compress", kind: truth},
	{name: "snapshot-retention", kind: number, initial: "5"},
	{name: "output", alias: "o", initial: "table"},
	{name: "etcd-server", alias: "s", initial: "https://127.0.0.1:6443"},
	{name: "etcd-token", alias: "t", byEnv: "K3S_TOKEN"},
	{name: "https-listen-port", kind: number, initial: "6443"},
})

func runSnapshotCommand(words []string) error {
	o, err := parse(snapshotCommandFlags, words, skipped)
	if err != nil {
		return err
	}
	if wantsHelp(words) || len(o.rest) == 0 {
		fmt.Println("NAME:\n   k3s etcd-snapshot - Manage etcd snapshots\n\nCOMMANDS:\n   delete       Delete given snapshot(s)\n   ls, list, l  List snapshots\n   prune        Remove snapshots that exceed the configured retention count\n   save         Trigger an on-demand etcd snapshot")
		return nil
	}
	request := snapshotRequest{Dir: o.text("etcd-snapshot-dir"), Compress: o.truth("etcd-snapshot-compress") || o.truth("snapshot-compress")}
	for _, alias := range []string{"snapshot-dir", "dir"} {
		if given := o.text(alias); given != "" {
			request.Dir = given
		}
	}
	request.Retention = o.number("etcd-snapshot-retention")
	if o.isSet("snapshot-retention") {
		request.Retention = o.number("snapshot-retention")
	}
	switch command := o.rest[0]; command {
	case "save":
		request.Operation, request.Name = "save", []string{o.text("name")}
	case "ls", "list", "l":
		request.Operation = "list"
	case "delete":
		if len(o.rest) < 2 {
			return errors.New("no snapshots given for removal")
		}
		request.Operation, request.Name = "delete", o.rest[1:]
	case "prune":
		request.Operation, request.Name = "prune", []string{o.text("name")}
	default:
		return fmt.Errorf("No help topic for '%s'", command) //nolint:staticcheck
	}
	text, err := askServer(home{o.text("data-dir")}, o.number("https-listen-port"), http.MethodPost, "/db/snapshot", request)
	if err != nil {
		return err
	}
	files := []snapshotFile{}
	if err := json.Unmarshal(text, &files); err != nil {
		return err
	}
	switch request.Operation {
	case "list":
		return printSnapshots(files, o.text("output"))
	case "save":
		infof("Snapshot %s saved.", files[0].Name)
	default:
		for _, file := range files {
			infof("Snapshot %s deleted.", file.Name)
		}
	}
	return nil
}

func printSnapshots(files []snapshotFile, form string) error {
	switch form {
	case "json":
		items := []any{}
		for _, file := range files {
			items = append(items, map[string]any{
				"metadata": map[string]any{"name": "local-" + file.Name, "creationTimestamp": file.Created},
				"spec":     map[string]any{"snapshotName": file.Name, "nodeName": file.NodeName, "location": file.Location},
				"status":   map[string]any{"size": strconv.FormatInt(file.Size, 10), "creationTime": file.Created, "readyToUse": true},
			})
		}
		return json.NewEncoder(os.Stdout).Encode(map[string]any{
			"kind": "ETCDSnapshotFileList", "apiVersion": "k3s.cattle.io/v1", "metadata": map[string]any{}, "items": items,
		})
	case "yaml":
		content, err := yaml.Marshal(files)
		fmt.Print(string(content))
		return err
	case "table":
		table := tabwriter.NewWriter(os.Stdout, 10, 8, 1, ' ', 0)
		fmt.Fprint(table, "Name\tLocation\tSize\tCreated\n")
		for _, file := range files {
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", file.Name, file.Location, file.Size, file.Created.Format(time.RFC3339))
		}
		return table.Flush()
	}
	return fmt.Errorf("invalid output format: %s", form)
}

// askServer sends a request to the k3s that runs on this machine.
func askServer(h home, port int, method, path string, body any) ([]byte, error) {
	client, url, err := localClient(h, port)
	if err != nil {
		return nil, err
	}
	content := []byte{}
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequest(method, url+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 {
		status := struct{ Message string }{}
		_ = json.Unmarshal(text, &status)
		return nil, fmt.Errorf("%s: %s", answer.Status, status.Message)
	}
	return text, nil
}

// reset makes this server the only member of its cluster, with its own data or those of a snapshot, and ends.
func (s *server) reset(ctx context.Context) error {
	flag := s.home.server("db", "reset-flag")
	if exists(flag) {
		return fmt.Errorf("Managed etcd cluster membership was previously reset, please remove the cluster-reset flag and start k3s normally. If you need to perform another cluster reset, you must first manually delete the file at %s", flag) //nolint:staticcheck
	}
	given, err := s.options.token("token")
	if err != nil {
		return err
	}
	kept, _ := os.ReadFile(s.home.server("token"))
	if given == "" {
		given = strings.TrimSpace(string(kept))
	}
	if given == "" {
		return errors.New("the token of the cluster is required: --token")
	}
	who, err := parseToken(given, "server")
	if err != nil {
		return err
	}
	member := s.newEtcd()
	path := s.options.text("cluster-reset-restore-path")
	if path == "" && !member.isInitialized() {
		return errors.New("cluster-reset: this server has no etcd datastore, and --cluster-reset-restore-path names no snapshot")
	}
	if path != "" {
		if err := s.restore(member, path); err != nil {
			return err
		}
	} else if err := member.prepare(false); err != nil {
		return err
	}
	content, err := member.forget(ctx, who.password)
	if err != nil {
		return err
	}
	if err := writeBootstrap(s.home, content); err != nil {
		return err
	}
	s.password.server = who.password
	if err := s.makeCertificates(); err != nil {
		return err
	}
	if err := s.writeTokens(); err != nil {
		return err
	}
	if err := writeAtomic(flag, nil, 0o600); err != nil {
		return err
	}
	infof("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return nil
}

func (s *server) restore(member *etcd, path string) error {
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		return fmt.Errorf("etcd: snapshot path does not exist: %s", path)
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("etcd: snapshot path must be a file, not a directory: %s", path)
	}
	if strings.HasSuffix(path, ".zip") {
		plain := filepath.Join(filepath.Dir(path), "."+strings.TrimSuffix(filepath.Base(path), ".zip")+".plain")
		if err := decompressInto(plain, path); err != nil {
			return err
		}
		defer os.Remove(plain)
		path = plain
	}
	if exists(member.folder()) {
		if err := member.setAside(); err != nil {
			return err
		}
	}
	member.name = s.node + "-" + randomHex(4)
	infof("Restoring etcd snapshot %s", path)
	err = snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: path, Name: member.name, OutputDataDir: member.folder(), OutputWALDir: member.folder("member", "wal"),
		PeerURLs: []string{member.peerURL()}, InitialCluster: member.name + "=" + member.peerURL(),
		InitialClusterToken: "etcd-cluster",
	})
	if err != nil {
		return fmt.Errorf("etcd: restoring %s: %w", path, err)
	}
	if err := os.Chmod(member.folder(), 0o700); err != nil {
		return err
	}
	return writeAtomic(member.folder("name"), []byte(member.name), 0o600)
}

func decompressInto(plain, path string) error {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	if len(archive.File) != 1 {
		return fmt.Errorf("%s holds %d files, not one snapshot", path, len(archive.File))
	}
	source, err := archive.File[0].Open()
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(plain, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// forget starts the member alone, on this machine's loopback and without certificates, which may be still to come out
// of it; its peers are gone after that. It returns what the datastore keeps for new servers.
func (e *etcd) forget(ctx context.Context, password string) ([]byte, error) {
	document := map[string]any{
		"name": e.name, "data-dir": e.folder(), "force-new-cluster": true,
		"listen-client-urls": "http://127.0.0.1:2399", "advertise-client-urls": "http://127.0.0.1:2399",
		"listen-peer-urls": "http://127.0.0.1:2398", "initial-advertise-peer-urls": e.peerURL(),
		"initial-cluster": e.name + "=" + e.peerURL(), "initial-cluster-state": "new",
		"logger": "zap", "log-outputs": []string{"stderr"}, "log-level": "fatal",
	}
	content, err := yaml.Marshal(document)
	if err != nil {
		return nil, err
	}
	if err := writeAtomic(e.folder("config"), content, 0o600); err != nil {
		return nil, err
	}
	config, err := embed.ConfigFromFile(e.folder("config"))
	if err != nil {
		return nil, err
	}
	if e.running, err = embed.StartEtcd(config); err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	defer e.running.Close()
	if err := e.waitReady(ctx); err != nil {
		return nil, err
	}
	client, err := e.connect("http://127.0.0.1:2399")
	if err != nil {
		return nil, err
	}
	defer client.Close()
	members := e.members()
	if len(members) != 1 {
		return nil, fmt.Errorf("etcd has %d members after the reset", len(members))
	}
	if len(members[0].PeerURLs) != 1 || members[0].PeerURLs[0] != e.peerURL() {
		if _, err := client.MemberUpdate(ctx, members[0].ID, []string{e.peerURL()}); err != nil {
			return nil, err
		}
	}
	found, err := loadBootstrap(ctx, client, password)
	if err != nil {
		return nil, fmt.Errorf("failed to bootstrap cluster data: %w", err)
	}
	if found == nil {
		return nil, errors.New("the datastore keeps no bootstrap data: this is no snapshot of a k3s cluster")
	}
	return found, nil
}
