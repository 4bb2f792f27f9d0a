package pgtemp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultMaxConnections is the max_connections of a cluster that asks for
// nothing else: PostgreSQL's own default.
const DefaultMaxConnections = 100

// Options describe a cluster. The zero value is the cluster for tests: in a
// temporary directory, on a free port, fast and not durable.
type Options struct {
	// Settings go to postgresql.conf last, so they win over everything this
	// package sets there. Addresses, port and socket are not settings.
	Settings map[string]string

	// Env is added to the environment of the server, last: VAR=value.
	Env []string

	// Durable keeps fsync, synchronous_commit and full_page_writes on, as in
	// production. Without it they are off: several times faster, still safe
	// against a crash of the server, not against one of the machine.
	Durable bool

	// Dir is the cluster's directory; it must be absent or empty. Default: a
	// new one in the temporary directory.
	Dir string

	// Keep leaves the directory in place when the cluster stops.
	Keep bool

	// BinDir is the directory with initdb and postgres. Default: looked for,
	// see [FindBinDir].
	BinDir string

	// MaxConnections is max_connections. Default: [DefaultMaxConnections].
	MaxConnections int

	// Port is the TCP port on 127.0.0.1. Default: a free one, below the range
	// that the kernel hands to outgoing connections.
	Port int

	// StartTimeout bounds each start of the server, crash recovery included.
	// Default: one minute.
	StartTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = time.Minute
	}
	return o
}

// config is what is appended to the postgresql.conf that initdb wrote.
func (o Options) config() string {
	var b strings.Builder
	set := func(name, value string) {
		fmt.Fprintf(&b, "%s = %s\n", name, quoteSetting(value))
	}
	b.WriteString("\n# pgtemp\n")
	set("max_connections", strconv.Itoa(o.MaxConnections))
	set("logging_collector", "off")
	set("log_line_prefix", "%m [%p] %q%a %u@%d ")
	if !o.Durable {
		set("fsync", "off")
		set("synchronous_commit", "off")
		set("full_page_writes", "off")
		// Segments in /dev/shm would be left behind by Crash followed by Stop.
		set("dynamic_shared_memory_type", "mmap")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		set(name, o.Settings[name])
	}
	return b.String()
}

// quoteSetting quotes a value for postgresql.conf, where a backslash escapes.
func quoteSetting(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value) + "'"
}
