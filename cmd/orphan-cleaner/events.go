package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/events"
)

// EventFlags say who is told of deleted and restored members.
type EventFlags struct {
	Events             []string `help:"Where to tell who left a conversation and who is back: redis, file:PATH, stdout, or several; not set: nowhere." env:"ORPHAN_CLEANER_EVENTS" placeholder:"SINK"`
	EventsFrom         *int64   `help:"The run with whose events a new sink begins; not set: the next one to finish." env:"ORPHAN_CLEANER_EVENTS_FROM" placeholder:"RUN"`
	EventsStreamPrefix string   `help:"Redis: a conversation's stream; its id follows." env:"ORPHAN_CLEANER_EVENTS_STREAM_PREFIX" default:"stream:conversation:"`
	EventsStreamMaxlen int64    `help:"Redis: trim that stream to about so many entries; 0: do not." env:"ORPHAN_CLEANER_EVENTS_STREAM_MAXLEN" default:"0"`
	EventsFanoutStream string   `help:"Redis: the stream that names each new entry." env:"ORPHAN_CLEANER_EVENTS_FANOUT_STREAM" default:"stream:fanout:all-conversations"`
	EventsFanoutMaxlen int64    `help:"Redis: trim that stream to about so many entries; 0: do not." env:"ORPHAN_CLEANER_EVENTS_FANOUT_MAXLEN" default:"0"`
	RedisURL           string   `help:"messaging-service's Redis, for --events redis; check looks at it. A password belongs in the environment or a file." env:"REDIS_URL" placeholder:"URL"`
	RedisURLFile       string   `help:"File that holds the Redis URL." env:"REDIS_URL_FILE" placeholder:"FILE"`
}

func (f *EventFlags) streams() events.Streams {
	return events.Streams{
		Prefix: f.EventsStreamPrefix, MaxLen: f.EventsStreamMaxlen, Fanout: f.EventsFanoutStream, FanoutMaxLen: f.EventsFanoutMaxlen,
	}
}

// sinks are those that are set; none of them is connected yet.
func (f *EventFlags) sinks(out io.Writer, log *slog.Logger) (sinks []events.Sink, err error) {
	switch {
	case f.EventsStreamMaxlen < 0 || f.EventsFanoutMaxlen < 0:
		return nil, fmt.Errorf("%w: EVENTS_STREAM_MAXLEN and EVENTS_FANOUT_MAXLEN must be 0 or more", errUsage)
	case f.EventsStreamPrefix == "" || f.EventsFanoutStream == "":
		return nil, fmt.Errorf("%w: EVENTS_STREAM_PREFIX and EVENTS_FANOUT_STREAM must not be empty", errUsage)
	case f.EventsFrom != nil && *f.EventsFrom < 0:
		return nil, fmt.Errorf("%w: EVENTS_FROM is the number of a run", errUsage)
	}
	if f.RedisURL, err = secretURL("REDIS_URL", f.RedisURL, f.RedisURLFile); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, name := range f.Events {
		var sink events.Sink
		path, isFile := strings.CutPrefix(name, "file:")
		switch {
		case name == "redis" && f.RedisURL == "":
			return nil, fmt.Errorf("%w: EVENTS is redis and REDIS_URL is not set: export REDIS_URL=redis://host:6379/0, or name its file by REDIS_URL_FILE", errUsage)
		case name == "redis":
			events.LogRedis(log)
			if sink, err = events.NewRedis(f.RedisURL, f.streams()); err != nil {
				return nil, fmt.Errorf("%w: %w", errUsage, err)
			}
		case name == "stdout":
			signal.Ignore(syscall.SIGPIPE) // whoever reads it may be gone: then events wait, and no run ends
			sink = events.NewStdout(out)
		case isFile && path != "":
			sink = events.NewFile(path)
		default:
			return nil, fmt.Errorf("%w: EVENTS: %q is no sink: redis, stdout or file:PATH", errUsage, name)
		}
		if seen[sink.Name()] {
			return nil, fmt.Errorf("%w: EVENTS has %s twice: it would be told twice", errUsage, sink.Name())
		}
		seen[sink.Name()] = true
		sinks = append(sinks, sink)
	}
	return sinks, nil
}

// redisProbe looks at messaging-service's Redis, and names what is wrong first. It
// writes nothing, and is no more than a warning: no run waits for events.
func (f *EventFlags) redisProbe(log *slog.Logger) check.Probe {
	const name = "redis"
	isUsed := slices.Contains(f.Events, name)
	return func(ctx context.Context) check.Finding {
		client, address, err := events.Redis(f.RedisURL)
		if err != nil {
			return warning(name, err.Error(), "write it as redis://host:6379/0")
		}
		defer func() { _ = client.Close() }() // the connection is of no use any more
		events.LogRedis(log)
		ctx, cancel := context.WithTimeout(ctx, probeLimit)
		defer cancel()
		if err := client.Ping(ctx).Err(); err != nil {
			hint := "this program does not need it; messaging-service does: check REDIS_URL and that Redis is up"
			if isUsed {
				hint = "events wait until it is back: check REDIS_URL and that Redis is up"
			}
			return warning(name, "no answer from "+address+": "+oneLine(err), hint)
		}
		version, policy, most := info(ctx, client, "redis_version"), info(ctx, client, "maxmemory_policy"), info(ctx, client, "maxmemory")
		message := "answers at " + address + ", version " + shown(version) + ", maxmemory-policy " + shown(policy)
		if !isUsed {
			return fine(name, message)
		}
		if major, _, _ := strings.Cut(version, "."); len(major) == 1 && major < "5" {
			return warning(name, message+": it has no streams", "events need Redis 5 or newer")
		}
		if err := events.Writable(ctx, client, f.streams()); err != nil {
			return warning(name, message+"; "+oneLine(err), "for rights: ACL SETUSER NAME +ping +info +multi +exec +xadd ~"+f.EventsStreamPrefix+"* ~"+f.EventsFanoutStream+"; for OOM: raise maxmemory; for MOVED or CROSSSLOT: redis+cluster:// in REDIS_URL")
		}
		if most != "0" && strings.HasPrefix(policy, "allkeys-") {
			return warning(name, message+": when it is full it drops whole streams and says nothing", "CONFIG SET maxmemory-policy noeviction, or one of volatile-*")
		}
		return fine(name, message+"; events may be added")
	}
}

// filesProbe looks whether events could be appended to their files; it makes none.
func (f *EventFlags) filesProbe(context.Context) check.Finding {
	const name = "events-file"
	var paths []string
	for _, sink := range f.Events {
		path, isFile := strings.CutPrefix(sink, "file:")
		if !isFile {
			continue
		}
		if err := events.Appendable(path); err != nil {
			return warning(name, oneLine(err), "events wait until the file can be written: make its directory, let this program's user write there, or correct ORPHAN_CLEANER_EVENTS")
		}
		paths = append(paths, path)
	}
	return fine(name, "events may be added to "+strings.Join(paths, ", "))
}

// info is a field of INFO, or says that it may not be read.
func info(ctx context.Context, client redis.UniversalClient, field string) string {
	text, err := client.Info(ctx).Result()
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(text) {
		if value, is := strings.CutPrefix(strings.TrimSpace(line), field+":"); is {
			return value
		}
	}
	return "unknown"
}
