package main

import (
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/status"
)

func verdictColor(v status.Verdict) text.Color {
	switch v.State {
	case "healthy", "running":
		return text.FgGreen
	case "new", "paused", "late":
		return text.FgYellow
	default:
		return text.FgRed
	}
}
