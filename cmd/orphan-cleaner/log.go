package main

import (
	"log/slog"

	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

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
