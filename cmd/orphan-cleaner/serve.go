package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/events"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	pages "github.com/nova-social/orphan-cleaner/internal/page"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/serve"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/status"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// ServeCmd is `serve`.
type ServeCmd struct {
	DatabaseFlags    `group:"Database"`
	AuthFlags        `group:"auth-service"`
	CleanerFlags     `group:"Run"`
	ServeFlags       `group:"Serve"`
	HealthcheckFlags `group:"Report"`
	EventFlags       `group:"Events"`
	LogFlags         `group:"Log"`
}

// ServeFlags say where the status page and the metrics are served.
type ServeFlags struct {
	MetricsAddr      string `help:"Where the status page, /metrics, /healthz and /readyz are served." env:"ORPHAN_CLEANER_METRICS_ADDR" default:":9091"`
	MetricsWebConfig string `help:"TLS and basic authentication of that address: a web configuration file of Prometheus's exporter-toolkit." env:"ORPHAN_CLEANER_METRICS_WEB_CONFIG" placeholder:"FILE"`
}

// listen takes the port, and reads the web configuration file.
func (f *ServeFlags) listen(ctx context.Context) (net.Listener, error) {
	if f.MetricsWebConfig != "" {
		if err := web.Validate(f.MetricsWebConfig); err != nil {
			return nil, fmt.Errorf("%w: ORPHAN_CLEANER_METRICS_WEB_CONFIG %s: %w", errUsage, f.MetricsWebConfig, err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.MetricsAddr)
	if err != nil {
		return nil, fmt.Errorf("%w: ORPHAN_CLEANER_METRICS_ADDR: %w; choose another with --metrics-addr, such as :9091", errUsage, err)
	}
	return listener, nil
}

// serveHTTP answers requests until the server is shut down.
func (f *ServeFlags) serveHTTP(listener net.Listener, server *http.Server) error {
	addresses, socket := []string{listener.Addr().String()}, false
	// The toolkit's own lines say what "Starting" says, in other words.
	err := web.Serve(listener, server, &web.FlagConfig{WebListenAddresses: &addresses, WebSystemdSocket: &socket, WebConfigFile: &f.MetricsWebConfig}, slog.New(slog.DiscardHandler))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

const (
	// endLimit is how long after SIGTERM the program ends at the latest, whatever
	// the database does.
	endLimit = 9500 * time.Millisecond
	// lastScrape is what a scrape in flight gets of it.
	lastScrape = 500 * time.Millisecond
	// pageRuns and pageDays are how much the status page shows of runs and of the backlog.
	pageRuns, pageDays = 20, 31
)

// Run serves until it is told to end.
func (cmd *ServeCmd) Run(ctx context.Context, s *streams) error {
	limitMemory()
	cfg, err := cmd.config()
	if err != nil {
		return err
	}
	url, err := cmd.url()
	if err != nil {
		return err
	}
	outlets, err := cmd.outlets()
	if err != nil {
		return err
	}
	log := cmd.logger(s)
	sinks, err := cmd.sinks(s.out, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	end, err := cmd.endpoint()
	if err != nil {
		return err
	}
	settings := telemetry.Settings{Source: end.Kind, Version: version, Interval: time.Duration(cmd.Interval), CheckEvery: cfg.CheckEvery, Concurrency: cfg.Concurrency, Window: cfg.Window}
	metrics, err := telemetry.NewMetrics(registry, settings)
	if err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}
	client, err := cmd.dialAs(ctx, source.Config{Logger: log, Observer: metrics, Concurrency: cfg.Concurrency, Known: cfg.CanaryAlive})
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	listener, err := cmd.listen(ctx)
	if err != nil {
		return err
	}
	// It connects when it is used: the database may come later.
	pool, err := database.New(ctx, url, cmd.MinConnections, cmd.MaxConnections)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := errors.Join(
		telemetry.NewState(registry, metrics, pool, cfg.Retention, log, settings),
		registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	); err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}

	reporter := telemetry.NewReporter(outlets, registry, instance(), log)
	cfg.Every = time.Duration(cmd.Interval)
	runner, err := newRunner(pool, client, cmd.AuthServiceURL, log, cfg, cmd.targetsProbes(pool)...)
	if err != nil {
		return err
	}
	runner.Observe(served{metrics, func() { reporter.Began(ctx) }})
	latest, err := migrate.Latest()
	if err != nil {
		return err
	}
	service := &serve.Service{
		Schedule: func(ctx context.Context) (serve.Schedule, error) { return readSchedule(ctx, pool, cfg.Every) },
		Ready:    func(ctx context.Context) serve.Conditions { return ready(ctx, pool, client, latest) },
		Make: func(ctx context.Context) (result.Run, error) {
			stop := watch(s.err, log, runner)
			ended, err := runner.Run(ctx)
			stop()
			logScheduled(ctx, log, ended, s.explain(err))
			if ended.RunID != 0 {
				reporter.Ended(ctx, exitStatus(err), resultLine(ended))
			}
			return ended, err
		},
		Progress: runner.Progress, Interval: cfg.Every, Log: log,
	}
	logf(ctx, log, "Starting orphan cleaner (interval: %s, batch: %d, retention: %s)", cmd.Interval, cmd.BatchSize, cmd.Retention)
	overview := &pages.Page{
		Pool: pool, Version: version, Log: log,
		Ask: status.Ask{Retention: cfg.Retention, Interval: cfg.Every, Runs: pageRuns, Days: pageDays, Window: cfg.Window},
	}
	browsed, err := overview.Handler()
	if err != nil {
		return err
	}
	handler := service.Handler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}), browsed)
	return cmd.serve(ctx, log, service, events.New(pool, log, cmd.EventsFrom, sinks...), handler, listener, pool)
}

// serve makes runs and answers requests until the context ends. The pool is
// closed and the listener too.
func (cmd *ServeCmd) serve(ctx context.Context, log *slog.Logger, service *serve.Service, relay *events.Relay, handler http.Handler, listener net.Listener, pool *pgxpool.Pool) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, 1)
	go func() {
		if err := cmd.serveHTTP(listener, server); err != nil {
			failed <- err
			stop()
		}
	}()
	log.Info("Serving the status page, /metrics, /healthz and /readyz", "address", listener.Addr().String())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var both sync.WaitGroup
		both.Go(func() { relay.Run(running) })
		service.Run(running)
		both.Wait()
		relay.Close()
	}()

	<-running.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	log.Info("Ending, the chunk in flight comes first")
	select {
	case <-ended:
	case <-ctx.Done():
		// The server rolls back what is open; the run's row lapses by its lease.
		log.Warn("The run did not end in time and is left")
		return nil
	}
	last, cancelLast := context.WithTimeout(ctx, lastScrape)
	defer cancelLast()
	if err := server.Shutdown(last); err != nil {
		log.Debug("A request was broken off", "error", err)
		_ = server.Close() // says the same
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	select {
	case <-closed:
	case <-ctx.Done():
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serving %s: %w", listener.Addr(), err)
	default:
		return nil
	}
}

// served tells the reporter of those runs that this replica was let to begin.
type served struct {
	*telemetry.Metrics
	began func()
}

func (s served) RunBegan() { s.began() }

// logScheduled is logResult, but for what is nothing to a schedule.
func logScheduled(ctx context.Context, log *slog.Logger, ended result.Run, err error) {
	if errors.Is(err, run.ErrNotDue) || errors.Is(err, run.ErrAnotherRun) {
		log.Debug("Another replica was faster", "error", err)
		return
	}
	logResult(ctx, log, ended, err)
}

func readSchedule(ctx context.Context, pool *pgxpool.Pool, every time.Duration) (serve.Schedule, error) {
	row, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) (db.RunScheduleRow, error) { return q.RunSchedule(ctx, every) })
	if err != nil {
		return serve.Schedule{}, fmt.Errorf("reading the schedule: %w", err)
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	return serve.Schedule{DueIn: seconds(row.DueIn), RunOpen: row.RunOpen, LapsesIn: seconds(row.LapsesIn), Paused: row.Paused}, nil
}

// ready is what /readyz says, and what a run waits for. A pause is no failure:
// somebody wants it, and a roll-out in the meantime must not hang.
func ready(ctx context.Context, pool *pgxpool.Pool, client users, want int64) serve.Conditions {
	reached := serve.Condition{Name: "database"}
	schema := serve.Condition{Name: "schema"}
	auth := serve.Condition{Name: "auth-service"}
	runs := serve.Condition{Name: "runs", Note: "not paused"}

	if reached.Err = pool.Ping(ctx); reached.Err != nil {
		schema.Err = errors.New("not known without the database")
		runs.Note = schema.Err.Error()
	} else {
		version, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) (int64, error) { return q.PreflightVersion(ctx) })
		switch {
		case err != nil:
			schema.Err = fmt.Errorf("%w; see: orphan-cleaner check", err)
		case version != want:
			schema.Err = fmt.Errorf("at migration %d, this program needs %d; see: orphan-cleaner check", version, want)
		default:
			schema.Note = fmt.Sprintf("at migration %d", version)
		}
		pauses, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.PauseInForceRow, error) { return q.PauseInForce(ctx) })
		if err == nil && len(pauses) > 0 {
			runs.Note = "paused by " + pauses[0].PausedBy + " since " + pauses[0].PausedAt.UTC().Format(time.RFC3339) + ": " + pauses[0].Reason
		}
	}
	health, err := client.Health(ctx)
	auth.Err, auth.Note = err, health.String()
	return serve.Conditions{reached, schema, auth, runs}
}
