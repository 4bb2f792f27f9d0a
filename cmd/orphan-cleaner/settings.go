package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// Duration is a time.Duration that also reads and writes days: 30d, 1d12h, 90s.
type Duration time.Duration

const day = 24 * time.Hour

var daysPattern = regexp.MustCompile(`^(\d+)d(.*)$`)

// UnmarshalText refuses a number without a unit and anything not positive.
func (d *Duration) UnmarshalText(text []byte) error {
	value := string(text)
	wrong := fmt.Errorf("%q is not a duration: write a number with its unit, such as 30d, 12h or 90s", value)
	var days time.Duration
	rest := value
	if parts := daysPattern.FindStringSubmatch(value); parts != nil {
		n, err := strconv.Atoi(parts[1])
		if err != nil || n > 36_500 {
			return wrong
		}
		days, rest = time.Duration(n)*day, parts[2]
	}
	var other time.Duration
	if rest != "" {
		var err error
		if other, err = time.ParseDuration(rest); err != nil || other < 0 {
			return wrong
		}
	}
	if days+other <= 0 {
		return wrong
	}
	*d = Duration(days + other)
	return nil
}

// String is the shortest form that UnmarshalText reads back: 1h, not 1h0m0s.
func (d Duration) String() string {
	days, rest := time.Duration(d)/day, time.Duration(d)%day
	text := rest.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	switch {
	case days == 0:
		return text
	case rest == 0:
		return fmt.Sprintf("%dd", days)
	default:
		return fmt.Sprintf("%dd%s", days, text)
	}
}

// DatabaseFlags say where messaging-service's database is.
type DatabaseFlags struct {
	DatabaseURL     string `help:"messaging-service's database: postgres://user@host:5432/messaging. A password belongs in the environment or a file." env:"DATABASE_URL" placeholder:"URL"`
	DatabaseURLFile string `help:"File that holds the database URL." env:"DATABASE_URL_FILE" placeholder:"FILE"`
	MaxConnections  int32  `name:"database-max-connections" help:"Most connections to open." env:"DATABASE_MAX_CONNECTIONS" default:"8"`
	MinConnections  int32  `name:"database-min-connections" help:"Connections kept open." env:"DATABASE_MIN_CONNECTIONS" default:"0"`
}

func (f *DatabaseFlags) url() (string, error) {
	value := f.DatabaseURL
	// What ps shows, whether or not the environment says the same.
	shown := value != "" && slices.ContainsFunc(os.Args[1:], func(arg string) bool { return strings.HasSuffix(arg, value) })
	if parsed, err := url.Parse(value); err == nil && shown {
		if _, has := parsed.User.Password(); has || parsed.Query().Has("password") || parsed.Query().Has("sslpassword") {
			return "", fmt.Errorf("%w: a password on the command line is seen by everybody in ps: give it by the environment DATABASE_URL or by --database-url-file", errUsage)
		}
	}
	if f.DatabaseURLFile != "" {
		if urlPattern.MatchString(f.DatabaseURLFile) {
			return "", fmt.Errorf("%w: DATABASE_URL_FILE is the name of a file that holds the URL, not the URL itself: that is DATABASE_URL", errUsage)
		}
		text, err := os.ReadFile(f.DatabaseURLFile)
		if err != nil {
			return "", fmt.Errorf("%w: DATABASE_URL_FILE: %w", errUsage, err)
		}
		if value = strings.TrimSpace(string(text)); value == "" {
			return "", fmt.Errorf("%w: DATABASE_URL_FILE: %s is empty: it holds the URL, such as postgres://user@host:5432/messaging", errUsage, f.DatabaseURLFile)
		}
		if _, err := database.ParseConfig(value); err != nil {
			return "", fmt.Errorf("%w: DATABASE_URL_FILE: %s: %w", errUsage, f.DatabaseURLFile, err)
		}
	}
	if value == "" {
		return "", fmt.Errorf("%w: DATABASE_URL is not set: export DATABASE_URL=postgres://user@host:5432/messaging", errUsage)
	}
	if _, err := database.ParseConfig(value); err != nil {
		return "", fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.MaxConnections < 2 || f.MinConnections < 0 || f.MinConnections > f.MaxConnections {
		return "", fmt.Errorf("%w: DATABASE_MAX_CONNECTIONS must be at least 2 and DATABASE_MIN_CONNECTIONS between 0 and it", errUsage)
	}
	return value, nil
}

const databaseMend = "check DATABASE_URL and that the server is up"

func (f *DatabaseFlags) open(ctx context.Context) (*pgxpool.Pool, error) {
	value, err := f.url()
	if err != nil {
		return nil, err
	}
	pool, err := database.Open(ctx, value, f.MinConnections, f.MaxConnections)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, databaseMend)
	}
	return pool, nil
}

// AuthFlags say where auth-service is and how it is asked.
type AuthFlags struct {
	AuthServiceURL        string   `help:"auth-service: http://host:9080, or https:// for TLS." env:"AUTH_SERVICE_URL" placeholder:"URL"`
	AuthServiceMethod     string   `help:"Full name of the gRPC method." env:"AUTH_SERVICE_METHOD" default:"nova.auth_service.v1.AuthService/GetUsersByIds"`
	AuthServiceTimeout    Duration `help:"Limit of one call." env:"AUTH_SERVICE_TIMEOUT" default:"5s"`
	AuthServiceTargetP99  Duration `name:"auth-service-target-p99" help:"P99 of a call that is still good; while it is over, fewer calls are in flight." env:"AUTH_SERVICE_TARGET_P99" default:"100ms"`
	AuthServiceCAFile     string   `name:"auth-service-ca-file" help:"CA certificates (PEM) in place of the system's." env:"AUTH_SERVICE_CA_FILE" placeholder:"FILE"`
	AuthServiceCertFile   string   `help:"Client certificate (PEM)." env:"AUTH_SERVICE_CERT_FILE" placeholder:"FILE"`
	AuthServiceKeyFile    string   `help:"Key of the client certificate (PEM)." env:"AUTH_SERVICE_KEY_FILE" placeholder:"FILE"`
	AuthServiceServerName string   `help:"Name that the server's certificate must carry." env:"AUTH_SERVICE_SERVER_NAME" placeholder:"NAME"`
	AuthServiceTokenFile  string   `help:"File with the authorization token of each call." env:"AUTH_SERVICE_TOKEN_FILE" placeholder:"FILE"`
	MaxQPS                float64  `name:"max-qps" help:"Most calls a second; 0: no limit." env:"ORPHAN_CLEANER_MAX_QPS" default:"0"`
}

func (f *AuthFlags) dial(log *slog.Logger) (*authclient.Client, error) {
	return f.dialObserved(log, nil, 0)
}

// dialObserved tells the observer, which may be nil, about every call. The client
// lowers the concurrency while auth-service is slow; 0 is none, and no limit.
func (f *AuthFlags) dialObserved(log *slog.Logger, observer authclient.Observer, concurrency int) (*authclient.Client, error) {
	if f.AuthServiceURL == "" {
		return nil, fmt.Errorf("%w: AUTH_SERVICE_URL is not set: export AUTH_SERVICE_URL=http://auth-service:9080", errUsage)
	}
	if f.MaxQPS < 0 || math.IsNaN(f.MaxQPS) || math.IsInf(f.MaxQPS, 0) {
		return nil, fmt.Errorf("%w: MAX_QPS must be 0 or more", errUsage)
	}
	client, err := authclient.Dial(authclient.Config{
		URL: f.AuthServiceURL, Method: f.AuthServiceMethod, Timeout: time.Duration(f.AuthServiceTimeout), MaxQPS: f.MaxQPS,
		Concurrency: concurrency, TargetP99: time.Duration(f.AuthServiceTargetP99),
		CAFile: f.AuthServiceCAFile, CertFile: f.AuthServiceCertFile, KeyFile: f.AuthServiceKeyFile,
		ServerName: f.AuthServiceServerName, TokenFile: f.AuthServiceTokenFile, Logger: log, Observer: observer,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return client, nil
}

// closeClient breaks off the calls in flight; there is nobody left to miss them.
func closeClient(client *authclient.Client, log *slog.Logger) {
	if err := client.Close(); err != nil {
		log.Debug("Closing the connection to auth-service failed", "error", err)
	}
}

// LogFlags say how the log, on stderr, is written.
type LogFlags struct {
	LogFormat string `help:"text or json." env:"ORPHAN_CLEANER_LOG_FORMAT" enum:"text,json" default:"text"`
	LogLevel  string `help:"debug, info, warn or error." env:"ORPHAN_CLEANER_LOG_LEVEL" enum:"debug,info,warn,error" default:"info"`
}

func (f *LogFlags) logger(s *streams) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	return telemetry.NewLogger(s.err, f.LogFormat, level)
}

// CanaryFlags name users whose fate is known.
type CanaryFlags struct {
	CanaryAlive []string `help:"Users known to be living, asked about in every run: one missing refuses it." env:"ORPHAN_CLEANER_CANARY_ALIVE" placeholder:"UUID,..."`
	CanaryDead  []string `help:"Users known to be deleted: one present refuses the run." env:"ORPHAN_CLEANER_CANARY_DEAD" placeholder:"UUID,..."`
}

// canaries refuses what is no UUID, and a user who is in both lists.
func (f *CanaryFlags) canaries() (alive, dead []uuid.UUID, err error) {
	for _, list := range []struct {
		name string
		from []string
		to   *[]uuid.UUID
	}{{"CANARY_ALIVE", f.CanaryAlive, &alive}, {"CANARY_DEAD", f.CanaryDead, &dead}} {
		for _, text := range list.from {
			id, err := uuid.Parse(strings.TrimSpace(text))
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %s: %q is not a UUID", errUsage, list.name, text)
			}
			*list.to = append(*list.to, id)
		}
	}
	for _, id := range alive {
		if slices.Contains(dead, id) {
			return nil, nil, fmt.Errorf("%w: %s is both in CANARY_ALIVE and in CANARY_DEAD", errUsage, id)
		}
	}
	return alive, dead, nil
}

// CleanerFlags are the settings of a run.
type CleanerFlags struct {
	Interval            Duration `help:"Time between the runs of serve." env:"ORPHAN_CLEANER_INTERVAL" default:"1h"`
	CheckEvery          Duration `help:"Ask about each user once in this time, a share of them in each run and all candidates, 1m to 30d; not set: each run asks about everybody." env:"ORPHAN_CLEANER_CHECK_EVERY" placeholder:"24h"`
	BatchSize           int      `help:"Users per call, 1 to 100." env:"ORPHAN_CLEANER_BATCH_SIZE" default:"100"`
	Retention           Duration `help:"How long a user must have been missing without a break." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	AllowShortRetention bool     `help:"Accept a retention under one day." env:"ORPHAN_CLEANER_ALLOW_SHORT_RETENTION"`
	Concurrency         int      `help:"Calls in flight, 1 to 64." env:"ORPHAN_CLEANER_CONCURRENCY" default:"8"`
	MaxGap              Duration `help:"A longer gap between sightings starts a user's clock anew." env:"ORPHAN_CLEANER_MAX_GAP" default:"7d"`
	MaxNewMissingShare  float64  `help:"Breaker: newly missing users as a share of those checked; 1 switches it off." env:"ORPHAN_CLEANER_MAX_NEW_MISSING_SHARE" default:"0.1"`
	MaxDeleteShare      float64  `help:"Breaker: members due as a share of the table; 1 switches it off." env:"ORPHAN_CLEANER_MAX_DELETE_SHARE" default:"0.05"`
	MaxDeleteMembers    int64    `help:"Breaker: members due." env:"ORPHAN_CLEANER_MAX_DELETE_MEMBERS" default:"100000"`
	MaxRecentlyActive   int64    `help:"Breaker: missing users who read a message within a day, once they are over 0.1 % of those checked." env:"ORPHAN_CLEANER_MAX_RECENTLY_ACTIVE" default:"5"`
	JudgeLate           bool     `help:"Ask about everybody even when the run is sure to be refused, so that approve is about all of them." env:"ORPHAN_CLEANER_JUDGE_LATE"`
	CanaryFlags
	Lease            Duration `help:"A run silent for longer is taken over." env:"ORPHAN_CLEANER_LEASE" default:"1m"`
	ChunkTarget      Duration `help:"How long a deleting transaction should last: chunks grow and shrink to it." env:"ORPHAN_CLEANER_CHUNK_TARGET" default:"100ms"`
	ChunkRows        int      `help:"Members per transaction at most, 1 to 100000." env:"ORPHAN_CLEANER_CHUNK_ROWS" default:"10000"`
	SweepConnections int      `help:"Connections that delete at the same time, 1 to 16." env:"ORPHAN_CLEANER_SWEEP_CONNECTIONS" default:"2"`
}

// maxCheckEvery is against a 24d that was meant to be 24h. MAX_GAP is no limit:
// each run asks about all candidates, so that no clock has a gap of this length.
const maxCheckEvery = 30 * day

func (f *CleanerFlags) config() (cleaner.Config, error) {
	wrong := func(format string, args ...any) (cleaner.Config, error) {
		return cleaner.Config{}, fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
	}
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case f.BatchSize < 1 || f.BatchSize > authclient.MaxBatch:
		return wrong("BATCH_SIZE is %d, it must be 1 to %d: auth-service takes no more", f.BatchSize, authclient.MaxBatch)
	case time.Duration(f.Retention) < day && !f.AllowShortRetention:
		return wrong("RETENTION is %s, under one day: members would go before anybody notices a mistake; add --allow-short-retention if you mean it", f.Retention)
	case f.Concurrency < 1 || f.Concurrency > 64:
		return wrong("CONCURRENCY is %d, it must be 1 to 64", f.Concurrency)
	case time.Duration(f.Interval) < time.Second:
		return wrong("INTERVAL is %s, it must be 1s or more", f.Interval)
	case f.CheckEvery != 0 && (time.Duration(f.CheckEvery) < time.Minute || time.Duration(f.CheckEvery) > maxCheckEvery):
		return wrong("CHECK_EVERY is %s, it must be 1m to 30d: that late a deleted user may be noticed; without it each run asks about everybody", f.CheckEvery)
	case time.Duration(f.Lease) < time.Second:
		return wrong("LEASE is %s, it must be 1s or more", f.Lease)
	case !share(f.MaxNewMissingShare), !share(f.MaxDeleteShare):
		return wrong("MAX_NEW_MISSING_SHARE and MAX_DELETE_SHARE are shares: 0 to 1, where 1 switches the breaker off")
	case f.MaxDeleteMembers < 0:
		return wrong("MAX_DELETE_MEMBERS is %d, it must be 0 or more", f.MaxDeleteMembers)
	case f.MaxRecentlyActive < 0:
		return wrong("MAX_RECENTLY_ACTIVE is %d, it must be 0 or more", f.MaxRecentlyActive)
	case f.ChunkRows < 1 || f.ChunkRows > 100_000:
		return wrong("CHUNK_ROWS is %d, it must be 1 to 100000", f.ChunkRows)
	case time.Duration(f.ChunkTarget) < time.Millisecond || time.Duration(f.ChunkTarget) > 10*time.Second:
		return wrong("CHUNK_TARGET is %s, it must be 1ms to 10s: for so long a chunk keeps its locks", f.ChunkTarget)
	case f.SweepConnections < 1 || f.SweepConnections > 16:
		return wrong("SWEEP_CONNECTIONS is %d, it must be 1 to 16", f.SweepConnections)
	}
	cfg := cleaner.DefaultConfig()
	cfg.BatchSize, cfg.Concurrency = f.BatchSize, f.Concurrency
	cfg.ChunkTarget, cfg.ChunkRows, cfg.SweepConnections = time.Duration(f.ChunkTarget), f.ChunkRows, f.SweepConnections
	cfg.Retention, cfg.MaxGap, cfg.Lease = time.Duration(f.Retention), time.Duration(f.MaxGap), time.Duration(f.Lease)
	cfg.CheckEvery = time.Duration(f.CheckEvery)
	cfg.Limits = cleaner.Limits{NewMissingShare: f.MaxNewMissingShare, DeleteShare: f.MaxDeleteShare, DeleteMembers: f.MaxDeleteMembers, RecentlyActive: f.MaxRecentlyActive}
	cfg.JudgeLate = f.JudgeLate
	var err error
	if cfg.CanaryAlive, cfg.CanaryDead, err = f.canaries(); err != nil {
		return cfg, err
	}
	return finishConfig(cfg)
}

// finishConfig adds what this program and this machine know.
func finishConfig(cfg cleaner.Config) (cleaner.Config, error) {
	latest, err := migrate.Latest()
	if err != nil {
		return cfg, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	kept := map[string]any{
		"batch_size": cfg.BatchSize, "concurrency": cfg.Concurrency, "retention": Duration(cfg.Retention).String(),
		"max_gap": Duration(cfg.MaxGap).String(), "lease": Duration(cfg.Lease).String(), "chunk_rows": cfg.ChunkRows,
		"chunk_target": Duration(cfg.ChunkTarget).String(), "sweep_connections": cfg.SweepConnections,
		"max_new_missing_share": cfg.Limits.NewMissingShare, "max_delete_share": cfg.Limits.DeleteShare,
		"max_delete_members": cfg.Limits.DeleteMembers, "max_recently_active": cfg.Limits.RecentlyActive,
	}
	if cfg.CheckEvery > 0 {
		kept["check_every"] = Duration(cfg.CheckEvery).String()
	}
	settings, err := json.Marshal(kept)
	cfg.SchemaVersion, cfg.Version, cfg.Settings = latest, version, settings
	cfg.Host = fmt.Sprintf("%s:%d", host, os.Getpid())
	return cfg, err
}

// authProbe is the preflight's check of auth-service.
func authProbe(client *authclient.Client, address string) cleaner.Probe {
	const mend = "check AUTH_SERVICE_URL and auth-service: grpcurl -plaintext HOST:9080 grpc.health.v1.Health/Check"
	return func(ctx context.Context) cleaner.Finding {
		health, err := client.Health(ctx)
		switch {
		case err != nil:
			return cleaner.Finding{Name: "auth-service", Status: cleaner.Fail, Message: err.Error(), Mend: mend}
		case health == authclient.HealthUnimplemented:
			return probeCall(ctx, client)
		default:
			return cleaner.Finding{Name: "auth-service", Status: cleaner.OK, Message: "SERVING at " + address}
		}
	}
}

// probeCall stands in for the health service where there is none: one call about
// a user that nobody is.
func probeCall(ctx context.Context, client *authclient.Client) cleaner.Finding {
	if _, err := client.Missing(ctx, []uuid.UUID{uuid.Nil}); err != nil {
		return cleaner.Finding{
			Name: "auth-service", Status: cleaner.Fail, Message: err.Error(),
			Mend: "auth-service has no grpc.health.v1 and answers GetUsersByIds wrongly: check AUTH_SERVICE_URL and AUTH_SERVICE_METHOD",
		}
	}
	return cleaner.Finding{
		Name: "auth-service", Status: cleaner.Warn, Message: "has no grpc.health.v1.Health; a probe call was answered",
		Mend: "register the health service in auth-service",
	}
}
