package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/events"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func streams() events.Streams {
	return events.Streams{Prefix: "stream:conversation:", Fanout: "stream:fanout:all-conversations"}
}

// server is a Redis of the test's own.
type server struct {
	t      *testing.T
	args   []string
	port   int
	cmd    *exec.Cmd
	client *redis.Client
}

const limit = 3 * time.Minute

func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, args: args, port: testdb.FreePort(t)}
	// Without a sync of its own: what was written survives the server, if not the machine.
	s.args = append([]string{"--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--dir", t.TempDir()}, args...)
	s.client = redis.NewClient(&redis.Options{Addr: s.address(), DisableIdentity: true})
	s.start()
	t.Cleanup(func() {
		s.stop()
		if err := s.client.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newNode is one of a cluster: its last argument is its port for the others.
func newNode(t *testing.T) *server {
	t.Helper()
	return newServer(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(testdb.FreePort(t)))
}

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }
func (s *server) url() string     { return "redis://" + s.address() }

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(testdb.Needed(s.t, "make fault-tools", "redis-server"), s.args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	testdb.Eventually(s.t, limit, "Redis answers", func() bool { return s.client.Ping(context.Background()).Err() == nil })
}

func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error means that it has ended
	_ = s.cmd.Wait()         // by the signal
	s.cmd = nil
}

func (s *server) do(args ...any) {
	s.t.Helper()
	if err := s.client.Do(context.Background(), args...).Err(); err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
}

func (s *server) sink() events.Sink { s.t.Helper(); return newSink(s.t, s.url(), streams()) }

func newSink(t *testing.T, url string, streams events.Streams) events.Sink {
	t.Helper()
	sink, err := events.NewRedis(url, streams)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	})
	return sink
}

// told reads the streams as messaging-service does: each entry of the fanout stream
// names one of a conversation's. It fails on what is not as messaging-service has it.
func told(t *testing.T, client redis.UniversalClient) (got []events.Event) {
	t.Helper()
	ctx := context.Background()
	fanout, err := client.XRange(ctx, "stream:fanout:all-conversations", "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]map[string]any{}
	for _, entry := range fanout {
		key := fmt.Sprint(entry.Values["stream_key"])
		if entries[key] == nil {
			entries[key] = map[string]any{}
			all, err := client.XRange(ctx, key, "-", "+").Result()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				entries[key][e.ID] = e.Values
			}
		}
		values, is := entries[key][fmt.Sprint(entry.Values["entry_id"])].(map[string]any)
		if !is {
			t.Fatalf("the fanout stream names an entry that is not there: %v", entry)
		}
		var e events.Event
		if err := json.Unmarshal([]byte(fmt.Sprint(values["payload"])), &e); err != nil {
			t.Fatal(err)
		}
		conversation := e.ConversationID.String()
		if values["conversation_id"] != conversation || entry.Values["conversation_id"] != conversation || key != "stream:conversation:"+conversation ||
			values["timestamp"] != fmt.Sprint(e.At.UnixMilli()) || len(values) != 3 || len(entry.Values) != 3 {
			t.Fatalf("fanout %v, entry %v", entry.Values, values)
		}
		got = append(got, e)
	}
	return got
}

// whole fails unless each event of these runs was told, at least once, and in each conversation for
// the first time in the order of the events.
func whole(t *testing.T, got []events.Event, want int) {
	t.Helper()
	seen := map[uuid.UUID]bool{}
	last := map[uuid.UUID]string{}
	for _, e := range got {
		if seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		place := fmt.Sprintf("%020d %s %s", e.RunID, e.Type, e.UserID)
		if place < last[e.ConversationID] {
			t.Errorf("conversation %s: %s after %s", e.ConversationID, place, last[e.ConversationID])
		}
		last[e.ConversationID] = place
	}
	if len(seen) != want {
		t.Errorf("%d different events, not %d, in %d entries", len(seen), want, len(got))
	}
}

// 30,000 events, each once, in the shape of messaging-service's own.
func TestThirtyThousand(t *testing.T) {
	p := newPlace(t)
	s := newServer(t)
	relay := p.relay(s.sink())
	p.run("succeeded", 300, 100)
	// A run waits for 5 seconds at most; on a slow machine the next one goes on.
	flushes := 0
	testdb.Eventually(t, limit, "all is relayed", func() bool {
		flushes++
		relay.Flush(t.Context())
		return p.isEmpty()
	})
	got := told(t, s.client)
	whole(t, got, 30_000)
	// A flush that its time ended may have told a hundred events that the cursor does not know of yet.
	if len(got) > 30_000+100*(flushes-1) {
		t.Errorf("%d entries in %d flushes", len(got), flushes)
	}
	// A hundred in one transaction: Redis refuses all of them or none, and no event comes before one that is told later.
	stats, err := s.client.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	var calls int
	if _, after, is := strings.Cut(stats, "cmdstat_exec:calls="); is {
		_, err = fmt.Sscanf(after, "%d,", &calls)
	}
	// Each further flush tries both streams again, and one that its time ended may have begun a transaction.
	if err != nil || calls < 601 || calls > 601+3*(flushes-1) {
		t.Errorf("not in 600 transactions, with the fanout stream, and one that tries both, of each of %d flushes: %v\n%s", flushes, err, stats)
	}
}

// The runner is killed when Redis has a page and the cursor does not know: the page is
// told again, with the same ids.
func TestKilledBetween(t *testing.T) {
	p := newPlace(t)
	s := newServer(t)
	relay := p.relay(s.sink())
	p.run("succeeded", 10, 30)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asRelay+"=1", "DATABASE_URL="+p.URL, "REDIS_URL="+s.url())
	out, err := cmd.CombinedOutput()
	if ended, is := errors.AsType[*exec.ExitError](err); !is || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the relay was to be killed: %v\n%s", err, out)
	}
	if got := told(t, s.client); len(got) != 300 {
		t.Fatalf("Redis has %d events", len(got))
	}
	if n := testdb.One[int64](p.DB, "SELECT events FROM orphan_cleaner.event_cursors"); n != 0 {
		t.Fatalf("the cursor moved to %d", n)
	}
	relay.Flush(t.Context())
	if got := told(t, s.client); len(got) != 300 {
		t.Errorf("%d events while the dead relay's lease lasts", len(got))
	}
	p.lapse()
	relay.Flush(t.Context())
	got := told(t, s.client)
	whole(t, got, 300)
	if len(got) != 600 {
		t.Errorf("%d entries of 300 events that are told twice", len(got))
	}
}

// Redis is full in the middle of a page, and later it is not.
func TestFull(t *testing.T) {
	p := newPlace(t)
	s := newServer(t)
	relay := p.relay(s.sink())
	p.run("succeeded", 5, 2)
	relay.Flush(t.Context())
	before := len(told(t, s.client))
	used := testdb.One[int64](p.DB, "SELECT 0::bigint")
	if info, err := s.client.InfoMap(t.Context(), "memory").Result(); err != nil {
		t.Fatal(err)
	} else if _, err := fmt.Sscan(info["Memory"]["used_memory"], &used); err != nil {
		t.Fatal(err)
	}
	s.do("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", fmt.Sprint(used+200_000))
	p.run("succeeded", 20, 200)
	relay.Flush(t.Context())
	if said := testdb.One[string](p.DB, "SELECT coalesce(error, '') FROM orphan_cleaner.event_cursors"); !strings.Contains(said, "OOM") {
		t.Fatalf("Redis is not full: %q\n%s", said, &p.log)
	}
	if n := len(told(t, s.client)); n < before || n >= 4010 {
		t.Errorf("%d entries in a full Redis, %d before", n, before)
	}
	s.do("CONFIG", "SET", "maxmemory", "0")
	relay.Flush(t.Context())
	whole(t, told(t, s.client), 4010)
}

// A key that is no stream holds up what is behind it, and each attempt meanwhile repeats at most that one event.
func TestWrongType(t *testing.T) {
	p := newPlace(t)
	s := newServer(t)
	relay := p.relay(s.sink())
	events := 0
	for what, key := range map[string]string{
		"conversation": "stream:conversation:" + testdb.One[string](p.DB, "SELECT md5('conversation 2')::uuid::text"), "fanout": "stream:fanout:all-conversations",
	} {
		s.do("COPY", key, "away") // where a case before has made it
		s.do("SET", key, "no stream")
		p.run("succeeded", 5, 30)
		events += 150
		for range 6 {
			relay.Flush(t.Context())
		}
		if said := testdb.One[string](p.DB, "SELECT coalesce(error, '') FROM orphan_cleaner.event_cursors"); !strings.Contains(said, "WRONGTYPE") {
			t.Errorf("%s: %q", what, said)
		}
		s.do("DEL", key)
		s.do("COPY", "away", key)
		s.do("DEL", "away")
		relay.Flush(t.Context())
		whole(t, told(t, s.client), events)
	}
	entries := int64(0)
	keys, err := s.client.Keys(t.Context(), "stream:conversation:*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		entries += s.client.XLen(t.Context(), key).Val()
	}
	// The first attempt of each case has a hundred in one transaction, the later five one.
	if most := int64(events + 2*(100+5)); entries > most {
		t.Errorf("%d entries of %d events, more than %d", entries, events, most)
	}
}

// Redis is gone, comes back, stands still, and goes on: `serve` tells every event.
func TestGoneSlowRestarted(t *testing.T) {
	p := newPlace(t)
	s := newServer(t)
	relay := p.relay(s.sink())
	p.run("succeeded", 5, 20)
	s.stop()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		relay.Run(ctx)
	}()
	defer func() {
		end()
		<-ended
	}()
	failed := func() bool {
		return testdb.One[bool](p.DB, "SELECT error IS NOT NULL FROM orphan_cleaner.event_cursors")
	}
	testdb.Eventually(t, limit, "Redis is gone", failed)
	s.start()
	testdb.Eventually(t, limit, "all is relayed", p.isEmpty)
	whole(t, told(t, s.client), 100)

	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.run("succeeded", 5, 40)
	testdb.Eventually(t, limit, "Redis does not answer", failed)
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testdb.Eventually(t, limit, "all is relayed", p.isEmpty)
	whole(t, told(t, s.client), 300)

	s.stop()
	s.start()
	p.run("succeeded", 5, 10)
	testdb.Eventually(t, limit, "all is relayed", p.isEmpty)
	whole(t, told(t, s.client), 350)
	for _, said := range []string{"Events wait, will try again", "Events relayed"} {
		if !strings.Contains(p.log.String(), said) {
			t.Errorf("the log does not say %q:\n%s", said, &p.log)
		}
	}
}

// A user of Redis who may do what docs/events.md says, over TLS, with streams that are
// trimmed and have other names.
func TestAccess(t *testing.T) {
	p := newPlace(t)
	dir := certificates(t)
	tlsPort := testdb.FreePort(t)
	s := newServer(t, "--tls-port", fmt.Sprint(tlsPort), "--tls-cert-file", dir+"/cert.pem", "--tls-key-file", dir+"/key.pem", "--tls-ca-cert-file", dir+"/ca.pem", "--tls-auth-clients", "no")
	s.do("ACL", "SETUSER", "cleaner", "on", ">s3cret", "resetkeys", "~my:*", "-@all", "+ping", "+info", "+xadd", "+multi", "+exec")
	url := fmt.Sprintf("rediss://cleaner:s3cret@127.0.0.1:%d", tlsPort)
	mine := events.Streams{Prefix: "my:", MaxLen: 10, Fanout: "my:fanout", FanoutMaxLen: 10}
	if err := deliver(p, newSink(t, url, mine)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("a certificate of nobody: %v", err)
	}
	if err := deliver(p, newSink(t, url+"?skip_verify=true", events.Streams{Prefix: "other:", Fanout: "my:fanout"})); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Fatalf("a stream that it may not write: %v", err)
	}
	if err := deliver(p, newSink(t, url+"?skip_verify=true", events.Streams{Prefix: "my:", Fanout: "other:fanout"})); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Fatalf("a fanout stream that it may not write: %v", err)
	}
	if n := s.client.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("each attempt leaves entries that the fanout stream does not name: %d streams", n)
	}
	if err := deliver(p, newSink(t, url+"?skip_verify=true", mine)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.client.XLen(t.Context(), "my:fanout").Result(); err != nil || n == 0 || n >= 2000 {
		t.Errorf("%d entries in a stream that is trimmed to about 10: %v", n, err)
	}
}

// certificates are those of a server on loopback, in a folder.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	ca, err := authfake.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue("127.0.0.1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for name, text := range map[string][]byte{"ca.pem": ca.PEM, "cert.pem": issued.CertPEM, "key.pem": issued.KeyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// deliver has a sink deliver 2,000 events of one conversation.
func deliver(p *place, sink events.Sink) error {
	list := make([]events.Event, 2000)
	for i := range list {
		list[i] = events.Event{ID: uuid.New(), Type: "member.left", ConversationID: uuid.Max, UserID: uuid.New(), RunID: 1, At: time.Now()}
	}
	_, err := sink.Deliver(p.t.Context(), list)
	return err
}

// Each conversation's stream and the fanout stream lie on whatever node of a cluster.
func TestCluster(t *testing.T) {
	p := newPlace(t)
	one, two := newNode(t), newNode(t)
	one.do("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
	two.do("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
	one.do("CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(two.port), two.args[len(two.args)-1])
	for _, s := range []*server{one, two} {
		testdb.Eventually(t, limit, "the cluster is whole", func() bool {
			info := s.client.ClusterInfo(context.Background()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:2")
		})
	}
	// By a URL of one server all events would wait, wherever the streams lie.
	lone := newNode(t)
	lone.do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
	testdb.Eventually(t, limit, "the cluster of one is up", func() bool {
		return strings.Contains(lone.client.ClusterInfo(context.Background()).Val(), "cluster_state:ok")
	})
	for _, s := range []*server{one, lone} {
		if err := events.Writable(t.Context(), s.client, streams()); err == nil || !strings.Contains(err.Error(), "CROSSSLOT") && !strings.Contains(err.Error(), "MOVED") {
			t.Errorf("a node of a cluster takes events as one server: %v", err)
		}
	}
	relay := p.relay(newSink(t, "redis+cluster://"+one.address(), streams()))
	p.run("succeeded", 40, 10)
	testdb.Eventually(t, limit, "all is relayed", func() bool { relay.Flush(t.Context()); return p.isEmpty() })
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{two.address()}})
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	whole(t, told(t, client), 400)
	for _, s := range []*server{one, two} {
		if n := s.client.DBSize(t.Context()).Val(); n < 5 {
			t.Errorf("a node has %d streams\n%s", n, &p.log)
		}
	}
}

// A sentinel says where Redis is.
func TestSentinel(t *testing.T) {
	p := newPlace(t)
	s := newServer(t)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	port := testdb.FreePort(t)
	if err := os.WriteFile(config, fmt.Appendf(nil, "port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor nova 127.0.0.1 %d 1\n", port, t.TempDir(), s.port), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testdb.Needed(t, "make fault-tools", "redis-server"), config, "--sentinel")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()         // by the signal
	})
	sentinel := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", port), DisableIdentity: true})
	t.Cleanup(func() {
		if err := sentinel.Close(); err != nil {
			t.Error(err)
		}
	})
	testdb.Eventually(t, limit, "the sentinel answers", func() bool { return sentinel.Ping(context.Background()).Err() == nil })
	relay := p.relay(newSink(t, fmt.Sprintf("redis+sentinel://127.0.0.1:%d/0?master_name=nova", port), streams()))
	p.run("succeeded", 4, 10)
	testdb.Eventually(t, limit, "all is relayed", func() bool { relay.Flush(t.Context()); return p.isEmpty() })
	whole(t, told(t, s.client), 40)
}

// What is no URL is refused, and nothing of it is shown.
func TestURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "redis", "redis://", "http://u:s3cret@host", "redis://u:s3cret@host/nonsense", "redis+other://u:s3cret@host",
		"redis+sentinel://u:s3cret@host", "redis://u:s3cret@host?nonsense=1", "redis+cluster://u:s3cret@host?nonsense=1", "redis://u:s3cret@host:port",
	} {
		if _, err := events.NewRedis(url, streams()); !errors.Is(err, events.ErrURL) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
