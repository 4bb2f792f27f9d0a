package testdb

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
)

// setupTimeout bounds the start of the cluster and each template, DDL each.
const setupTimeout = 2 * time.Minute

// maxConnections leaves room for parallel tests with a pool or two each.
const maxConnections = 300

// template is a database that tests' databases are cloned from. The empty name
// is PostgreSQL's own template: nothing in it.
type template string

const (
	templateEmpty    template = ""
	templateBare     template = "template_bare"     // the tables of messaging-service
	templateMigrated template = "template_migrated" // and all migrations
)

// shared is the cluster of this test binary: tests of one package share it, and
// a package's TestMain is the one place that knows when they are done.
var shared sharedCluster //nolint:gochecknoglobals // see above

// sharedCluster is started, and its templates are made, at first use; whatever
// goes wrong then is told to every test that asks.
type sharedCluster struct {
	mu        sync.Mutex
	started   bool
	cluster   *pgtemp.Cluster
	startErr  error
	templates map[template]error // made, and with what result
	databases int                // created so far, for unique names
	kept      int                // left by failed tests

	roles sync.Mutex // held while roles, which belong to the cluster, change
}

// create creates a database from a template and returns its cluster and name.
func (s *sharedCluster) create(tmpl template, label string) (*pgtemp.Cluster, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	cluster, number, err := s.prepare(ctx, tmpl)
	if err != nil {
		return nil, "", err
	}
	name := fmt.Sprintf("t%d_%s", number, label)
	return cluster, name, dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), name, string(tmpl))
}

// prepare makes sure that cluster and template are there, and counts.
func (s *sharedCluster) prepare(ctx context.Context, tmpl template) (*pgtemp.Cluster, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.started = true
		s.templates = map[template]error{templateEmpty: nil}
		s.cluster, s.startErr = pgtemp.Start(ctx, pgtemp.Options{MaxConnections: maxConnections, Dir: inMemory()})
	}
	if s.startErr != nil {
		return nil, 0, s.startErr
	}
	if err := s.makeTemplate(ctx, tmpl); err != nil {
		return nil, 0, fmt.Errorf("making %s: %w", tmpl, err)
	}
	s.databases++
	return s.cluster, s.databases, nil
}

// room is the memory that must be free for a cluster in it, bytes: a write-ahead log of 1 GiB
// and some hundred MiB of databases, for a few packages at once, many times over.
const room = 8 << 30

// inMemory is a directory in memory, where a test's database is made and dropped in half the
// time, for a cluster that is not durable anyway. It is empty, for pgtemp's own choice, where
// there is not the room or TMPDIR says where to be.
func inMemory() string {
	const shm = "/dev/shm"
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(shm, &fs) != nil || float64(fs.Bavail)*float64(fs.Bsize) < room {
		return ""
	}
	return filepath.Join(shm, "orphan-cleaner-pg-"+rand.Text())
}

// makeTemplate makes a template, once, and those that it is itself made from.
func (s *sharedCluster) makeTemplate(ctx context.Context, tmpl template) error {
	if err, made := s.templates[tmpl]; made {
		return err
	}
	parent, fill := templateEmpty, dbsetup.Schema
	if tmpl == templateMigrated {
		parent, fill = templateBare, dbsetup.Migrate
	}
	err := s.makeTemplate(ctx, parent)
	if err == nil {
		err = s.fillTemplate(ctx, tmpl, parent, fill)
	}
	s.templates[tmpl] = err
	return err
}

func (s *sharedCluster) fillTemplate(ctx context.Context, tmpl, parent template, fill func(context.Context, string) error) error {
	admin := s.cluster.URL("postgres")
	if err := dbsetup.CreateDatabase(ctx, admin, string(tmpl), string(parent)); err != nil {
		return err
	}
	if err := fill(ctx, s.cluster.URL(string(tmpl))); err != nil {
		return err
	}
	// A template cannot be cloned while somebody is connected to it.
	return execute(ctx, admin, "ALTER DATABASE "+pgx.Identifier{string(tmpl)}.Sanitize()+" ALLOW_CONNECTIONS false")
}

// drop drops a database, whoever may still be connected to it.
func (s *sharedCluster) drop(cluster *pgtemp.Cluster, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	return execute(ctx, cluster.URL("postgres"), "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

// keep counts a database that a failed test leaves.
func (s *sharedCluster) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept++
}

// close stops the cluster where one was started, or leaves it running where
// that is wanted and a test failed.
func (s *sharedCluster) close(keep bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		return nil
	}
	if !keep || s.kept == 0 {
		return s.cluster.Stop()
	}
	stop, err := s.cluster.Detach()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "testdb: the cluster with %d databases of failed tests stays up; stop it with: %s\n", s.kept, stop)
	return nil
}

// execute runs one statement on a connection of its own.
func execute(ctx context.Context, url, statement string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	if closeErr := conn.Close(ctx); err == nil {
		err = closeErr
	}
	return err
}
