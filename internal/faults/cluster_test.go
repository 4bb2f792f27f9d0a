package faults

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// ownCluster moves the world to a cluster of its own, for faults of the server.
func (w *world) ownCluster(options pgtemp.Options) *pgtemp.Cluster {
	w.t.Helper()
	cluster := startCluster(w.t, options)
	ctx := context.Background()
	if err := dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), "messaging", ""); err != nil {
		w.t.Fatal(err)
	}
	w.url = cluster.URL("messaging")
	if err := dbsetup.Schema(ctx, w.url); err != nil {
		w.t.Fatal(err)
	}
	if err := dbsetup.Migrate(ctx, w.url); err != nil {
		w.t.Fatal(err)
	}
	w.pool = open(w.t, w.url)
	w.env = []string{"DATABASE_URL=" + w.url}
	w.populate()
	return cluster
}

func startCluster(t *testing.T, options pgtemp.Options) *pgtemp.Cluster {
	t.Helper()
	cluster, err := pgtemp.Start(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of its server:\n%s", cluster.LogTail(200))
		}
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

func open(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// serverUser is whom a cluster's server runs as: not root, where that is who we are.
func serverUser(t *testing.T, cluster *pgtemp.Cluster) *syscall.Credential {
	t.Helper()
	info, err := os.Stat(cluster.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	return &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
}

// standby makes a standby of a cluster, which takes no writes.
func standby(t *testing.T, primary *pgtemp.Cluster) *pgtemp.Cluster {
	t.Helper()
	copies := testdb.Program(t, primary, "pg_basebackup")
	cluster := startCluster(t, pgtemp.Options{})
	if err := cluster.Crash(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(cluster.DataDir()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copies,
		"--dbname", primary.URL("postgres"), "--pgdata", cluster.DataDir(), "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	cmd.Dir = cluster.Dir()
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: serverUser(t, primary)}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	if err := cluster.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	return cluster
}

// bouncer is a PgBouncer in transaction mode.
type bouncer struct {
	t      *testing.T
	path   string
	config string
	port   int
	now    *process
}

// bounced puts a PgBouncer between the program and the database of the world:
// three sessions of the server for the eight connections of the program.
func (w *world) bounced() *bouncer {
	w.t.Helper()
	b := &bouncer{t: w.t, path: testdb.Needed(w.t, "make fault-tools", "pgbouncer", "/usr/sbin/pgbouncer"), port: testdb.FreePort(w.t)}
	server, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	root := ""
	if os.Geteuid() == 0 {
		root = "user = postgres\n"
	}
	b.config = w.file("pgbouncer.ini", fmt.Appendf(nil, `[databases]
* = host=127.0.0.1 port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
%s`, server.Port(), b.port, root))
	b.start()
	server.Host = fmt.Sprintf("127.0.0.1:%d", b.port)
	w.env = []string{"DATABASE_URL=" + server.String()}
	return b
}

func (b *bouncer) start() {
	b.t.Helper()
	b.now = spawn(b.t, nil, b.path, b.config)
	b.now.says("process up")
}

// restart kills PgBouncer, and with it every connection, and starts it again.
func (b *bouncer) restart() {
	b.t.Helper()
	b.now.signal(syscall.SIGKILL)
	b.now.wait()
	b.start()
}

// cutOff lets nothing more arrive at a standby.
func (w *world) cutOff(standby *pgxpool.Pool) {
	w.t.Helper()
	ctx := context.Background()
	for _, statement := range []string{`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`} {
		if _, err := standby.Exec(ctx, statement); err != nil {
			w.t.Fatal(err)
		}
	}
	eventually(w.t, "nothing arrives at the standby any more", func() bool {
		var receivers int
		return standby.QueryRow(ctx, `SELECT count(*) FROM pg_stat_wal_receiver`).Scan(&receivers) == nil && receivers == 0
	})
}
