package main

import (
	"io"
	"log"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// LogFlags say how the log, on stderr, is written.
type LogFlags struct {
	LogFormat string `help:"text or json." env:"ORPHAN_CLEANER_LOG_FORMAT" enum:"text,json" default:"text"`
	LogLevel  string `help:"debug, info, warn or error." env:"ORPHAN_CLEANER_LOG_LEVEL" enum:"debug,info,warn,error" default:"info"`
}

// timed puts the time, UTC, before each line: each is one Write.
type timed struct{ io.Writer }

func (t timed) Write(line []byte) (int, error) {
	n, err := t.Writer.Write(append([]byte(time.Now().UTC().Format(time.RFC3339)+" "), line...))
	return min(n, len(line)), err
}

func (f *LogFlags) logger(s *streams) *slog.Logger {
	w := s.err
	if journal, err := journal.StderrIsJournalStream(); f.LogFormat == "text" && (err != nil || !journal) {
		w = timed{w} // the journal adds it
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	logger := telemetry.NewLogger(w, f.LogFormat, level)
	slog.SetLogLoggerLevel(slog.LevelDebug)
	slog.SetDefault(logger) // also of package log: net/http writes there, past every ErrorLog
	return logger
}

// packageLog is where gRPC's own lines go: a call's error says what the runner needs.
type packageLog struct{}

func (packageLog) Write(line []byte) (int, error) {
	log.Print(string(line))
	return len(line), nil
}
