package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers/generic"
	"github.com/k3s-io/kine/pkg/logstructured"
	"github.com/k3s-io/kine/pkg/logstructured/sqllog"
	kine "github.com/k3s-io/kine/pkg/server"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"modernc.org/sqlite"
	sqliteresult "modernc.org/sqlite/lib"
)

// kine over SQLite: the store of a single server. kine brings its own driver for SQLite, and that one needs cgo; these
// are the same tables and statements over a driver in plain Go.
var kineSchema = []string{
	`CREATE TABLE IF NOT EXISTS kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, deleted INTEGER,
	 create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)`,
	`CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name)`,
	`CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name,id)`,
	`CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id,deleted)`,
	`CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision)`,
	`CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision)`,
	`PRAGMA wal_checkpoint(TRUNCATE)`,
}

const kineCompact = `DELETE FROM kine AS kv WHERE kv.id IN (
	SELECT kp.prev_revision AS id FROM kine AS kp
	 WHERE kp.name != 'compact_rev_key' AND kp.prev_revision != 0 AND kp.id <= ?
	UNION SELECT kd.id AS id FROM kine AS kd WHERE kd.deleted != 0 AND kd.id <= ?)`

// startKine serves the etcd API at a socket, over the database file.
func startKine(ctx context.Context, file, socket string) error {
	logrus.SetLevel(logrus.WarnLevel)
	durability := "NORMAL"
	if pageCacheSurvives() {
		durability = "OFF"
	}
	source := fmt.Sprintf("file:%s?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)&_pragma=synchronous(%s)&_txlock=immediate", file, durability)
	// Writers queue here and not at the file's lock, where they would poll.
	pool := generic.ConnectionPoolConfig{MaxOpen: 4, MaxIdle: 4}
	dialect, err := generic.Open(ctx, &sync.WaitGroup{}, "sqlite", source, pool, "?", false, nil)
	if err != nil {
		return err
	}
	dialect.LastInsertID = true
	dialect.GetSizeSQL = `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	dialect.CompactSQL = kineCompact
	dialect.PostCompactSQL = `PRAGMA wal_checkpoint(PASSIVE)`
	dialect.TranslateErr = func(err error) error {
		if wrong, ok := err.(*sqlite.Error); ok && wrong.Code() == sqliteresult.SQLITE_CONSTRAINT_UNIQUE {
			return kine.ErrKeyExists
		}
		return err
	}
	dialect.ErrCode = func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if err := prepareTables(dialect.DB); err != nil {
		return fmt.Errorf("setup db: %w", err)
	}
	backend := logstructured.New(sqllog.New(dialect, 5*time.Minute, 5, 5*time.Second, 1000, 1000, 500))
	if err := backend.Start(ctx); err != nil {
		return err
	}
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	service := grpc.NewServer(grpc.MaxRecvMsgSize(4<<20), grpc.MaxSendMsgSize(1<<30))
	kine.New(backend, "unix", 5*time.Second, "3.5.13").Register(service)
	go func() {
		<-ctx.Done()
		service.Stop()
	}()
	go func() { _ = service.Serve(listener) }()
	return os.Chmod(socket, 0o600)
}

func prepareTables(database *sql.DB) error {
	for _, statement := range kineSchema {
		if _, err := database.Exec(statement); err != nil {
			return err
		}
	}
	return nil
}

// pageCacheSurvives says whether this machine is a container: then a power cut of the lab kills processes and no kernel,
// what was written is there afterwards, and waiting for the disk would only cost time. A machine with a kernel of its
// own waits.
func pageCacheSurvives() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}
