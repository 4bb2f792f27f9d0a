package events

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const (
	// redisLimit bounds one round trip, and connecting.
	redisLimit = 2 * time.Second
	// atomicEvents is how many events go into one MULTI: Redis serves nobody else
	// meanwhile, for about a millisecond.
	atomicEvents = 100
	// atOnce bounds the conversations of a cluster that are written at the same time.
	atOnce = 16
)

// Streams names the streams of messaging-service.
type Streams struct {
	Prefix       string // of a conversation's stream; its id follows
	MaxLen       int64  // XADD MAXLEN ~ of a conversation's stream; 0: not trimmed here
	Fanout       string // the stream that names each new entry
	FanoutMaxLen int64
}

// ErrURL is returned for what is no Redis URL. It shows no part of it: there may be
// a password in it.
var ErrURL = errors.New("REDIS_URL is not a Redis URL: write it as redis://user@host:6379/0, rediss:// for TLS, " +
	"redis+sentinel://host:26379/0?master_name=NAME or redis+cluster://host:6379")

// Redis is a client for a URL: redis:// or rediss://, with +sentinel or +cluster
// for those. Its address is fit to be shown.
func Redis(raw string) (client redis.UniversalClient, address string, err error) {
	parsed, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || parsed.Hostname() == "" {
		return nil, "", ErrURL
	}
	var kind string
	parsed.Scheme, kind, _ = strings.Cut(parsed.Scheme, "+")
	more := parsed.Query()
	master, addresses := more.Get("master_name"), more["addr"]
	sentinelUser, sentinelPassword := more.Get("sentinel_username"), more.Get("sentinel_password")
	for _, ours := range []string{"master_name", "addr", "sentinel_username", "sentinel_password"} {
		more.Del(ours)
	}
	parsed.RawQuery = more.Encode()
	o, err := redis.ParseURL(parsed.String())
	known := kind == "sentinel" && master != "" || master == "" && (kind == "cluster" || kind == "" && len(addresses) == 0)
	if err != nil || !known || o.Network != "tcp" {
		return nil, "", ErrURL
	}
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: append([]string{o.Addr}, addresses...), DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		MasterName: master, SentinelUsername: sentinelUser, SentinelPassword: sentinelPassword, IsClusterMode: kind == "cluster",
		DialTimeout: redisLimit, ReadTimeout: redisLimit, WriteTimeout: redisLimit, ContextTimeoutEnabled: true,
		// Whoever calls tries again, as it sees fit. CLIENT SETINFO an ACL may refuse.
		MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
	}), o.Addr, nil
}

// LogRedis sends what the Redis client says by itself to our log.
func LogRedis(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "Redis client", "says", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

type redisSink struct {
	client  redis.UniversalClient
	streams Streams
	isSure  bool // the last attempt went well
	isWrong bool // it met a key that is no stream, which a transaction does not undo the rest for
}

// NewRedis adds events to the streams of messaging-service: an entry in the
// conversation's, and one in the fanout stream that names it. It connects when it
// is used.
func NewRedis(raw string, streams Streams) (Sink, error) {
	client, _, err := Redis(raw)
	if err != nil {
		return nil, err
	}
	return &redisSink{client: client, streams: streams}, nil
}

func (*redisSink) Name() string   { return "redis" }
func (s *redisSink) Close() error { return s.client.Close() }

func (s *redisSink) Deliver(ctx context.Context, events []Event) (n int, err error) {
	if !s.isSure { // or each attempt would leave entries that the fanout stream does not name
		if err := Writable(ctx, s.client, s.streams); err != nil {
			return 0, err
		}
	}
	defer func() { s.isSure, s.isWrong = err == nil, redis.HasErrorPrefix(err, "WRONGTYPE") }()
	for from := 0; from < len(events); {
		some := events[from:min(from+atomicEvents, len(events))]
		if s.isWrong && from < atomicEvents { // or each attempt would repeat them all
			some = some[:1]
		}
		if err := s.deliver(ctx, some); err != nil {
			return from, fmt.Errorf("adding to the streams of Redis: %w", err)
		}
		from += len(some)
	}
	return len(events), nil
}

// deliver adds entries to the conversations' streams, all or none of each stream, so
// that a Redis that fills up in between leaves no gap; then it names them in the
// fanout stream, which takes their ids.
func (s *redisSink) deliver(ctx context.Context, events []Event) error {
	entries := make([]*redis.StringCmd, len(events))
	groups := map[uuid.UUID][]int{}
	for i, event := range events {
		group := uuid.Nil // one server, one transaction
		if _, is := s.client.(*redis.ClusterClient); is {
			group = event.ConversationID
		}
		groups[group] = append(groups[group], i)
	}
	var all errgroup.Group
	all.SetLimit(atOnce)
	for _, group := range groups {
		all.Go(func() error {
			return transact(ctx, s.client, func(p redis.Pipeliner) error {
				for _, i := range group {
					payload, err := json.Marshal(events[i])
					if err != nil {
						return err
					}
					conversation := events[i].ConversationID
					entries[i] = p.XAdd(ctx, &redis.XAddArgs{Stream: s.key(conversation), MaxLen: s.streams.MaxLen, Approx: true, Values: []any{
						"conversation_id", conversation.String(), "payload", payload, "timestamp", events[i].At.UnixMilli(),
					}})
				}
				return nil
			})
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return transact(ctx, s.client, func(p redis.Pipeliner) error {
		for i, event := range events {
			p.XAdd(ctx, &redis.XAddArgs{Stream: s.streams.Fanout, MaxLen: s.streams.FanoutMaxLen, Approx: true, Values: []any{
				"conversation_id", event.ConversationID.String(), "stream_key", s.key(event.ConversationID), "entry_id", entries[i].Val(),
			}})
		}
		return nil
	})
}

// transact sends commands in one MULTI. Its error is that of the command that was
// refused, and not that the others were for its sake.
func transact(ctx context.Context, client redis.UniversalClient, fill func(redis.Pipeliner) error) error {
	commands, err := client.TxPipelined(ctx, fill)
	for _, command := range commands {
		if said := command.Err(); said != nil && !redis.IsExecAbortError(said) {
			return said
		}
	}
	return err
}

// Writable says whether events could be added now: rights, memory and the kind of server
// are looked at, and nothing is written, since no entry has the id 0-0. It is one MULTI,
// as that of events: a node of a cluster refuses it where its URL is that of one server.
func Writable(ctx context.Context, client redis.UniversalClient, streams Streams) error {
	names := []string{streams.Prefix + uuid.Nil.String(), streams.Fanout}
	together := len(names)
	if _, is := client.(*redis.ClusterClient); is {
		together = 1
	}
	for group := range slices.Chunk(names, together) {
		commands, aborted := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for _, stream := range group {
				p.XAdd(ctx, &redis.XAddArgs{Stream: stream, MaxLen: 1, Approx: true, ID: "0-0", Values: []any{"check", ""}})
			}
			return nil
		})
		for i, command := range commands {
			switch said := command.Err(); {
			case redis.IsExecAbortError(said): // for the sake of another one
			case said != nil && strings.Contains(said.Error(), "must be greater than 0-0"):
				aborted = nil
			default:
				return fmt.Errorf("adding to %s…: %w", group[i][:min(len(group[i]), len(streams.Prefix)+1)], cmp.Or(said, errors.New("an entry 0-0 was accepted")))
			}
		}
		if aborted != nil {
			return fmt.Errorf("adding to streams: %w", aborted)
		}
	}
	return nil
}

func (s *redisSink) key(conversation uuid.UUID) string {
	return s.streams.Prefix + conversation.String()
}
