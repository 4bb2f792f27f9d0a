package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// FleetServeCmd is `fleet serve`.
type FleetServeCmd struct {
	FleetRunFlags
	ServeFlags `group:"Serve"`
}

// Run works until it is told to end.
func (cmd *FleetServeCmd) Run(ctx context.Context, s *streams) error {
	limitMemory()
	of, c, closed, err := cmd.fleet(ctx, s)
	if err != nil {
		return err
	}
	defer closed()
	if c == nil {
		return fmt.Errorf("%w: %s has no control_url, and workers share a run by a control database: see docs/scale.md", errUsage, cmd.Fleet)
	}
	worker, err := queue.NewWorker(of, c, queue.Options{Every: time.Duration(cmd.Interval)})
	if err != nil {
		return err
	}
	listener, err := cmd.listen(ctx)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	if err := errors.Join(registry.Register(worker.Collector()), registry.Register(collectors.NewGoCollector()), registry.Register(telemetry.BuildInfo(version))); err != nil {
		return errors.Join(fmt.Errorf("registering the metrics: %w", err), listener.Close())
	}
	server := &http.Server{Handler: fleetHandler(registry, c), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(of.Log.Handler(), slog.LevelDebug)}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- cmd.serveHTTP(listener, server)
		stop()
	}()
	of.Log.Info("Working on the fleet", "shards", len(of.Shards), "at_once", of.Workers, "interval", cmd.Interval.String(), "address", listener.Addr().String())
	err = worker.Serve(ctx)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastScrape)
	defer cancel()
	return errors.Join(err, server.Shutdown(ending), <-served)
}

// fleetHandler serves the metrics, the probes, and a page with the last run of the fleet.
// All of it is read from the control database: no shard is asked.
func fleetHandler(registry *prometheus.Registry, c *queue.Control) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writePage(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithTimeout(request.Context(), 900*time.Millisecond)
		defer cancel()
		if _, err := c.State(ctx, 1); err != nil {
			writePage(w, http.StatusServiceUnavailable, "FAIL  control database: "+oneLine(err)+"\n")
			return
		}
		writePage(w, http.StatusOK, "ok    control database\n")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithTimeout(request.Context(), probeLimit)
		defer cancel()
		text, err := fleetPage(ctx, c)
		if err != nil {
			writePage(w, http.StatusServiceUnavailable, "orphan-cleaner: the control database is away: "+oneLine(err)+"\n")
			return
		}
		writePage(w, http.StatusOK, text)
	})
	return mux
}

func fleetPage(ctx context.Context, c *queue.Control) (string, error) {
	var page bytes.Buffer
	page.WriteString("orphan-cleaner: /metrics /healthz /readyz\n\n")
	st, err := c.State(ctx, 10)
	if err == nil {
		err = printControl(&page, &st, time.Now())
	}
	if err == nil && len(st.Runs) > 0 {
		r, readErr := c.Result(ctx, st.Runs[0].FleetRun)
		if err = readErr; err == nil {
			err = printFleet(&page, r)
		}
	}
	return page.String(), err
}

func writePage(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // an error means that the reader has gone
}
