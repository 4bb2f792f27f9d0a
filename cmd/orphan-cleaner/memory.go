package main

import (
	"os"
	"runtime/debug"
)

// softMemory is what the Go runtime of a runner tries to stay below, in bytes. What
// a run keeps is a third of it even where a million members are due.
const softMemory = 40 << 20

// garbage is how much may pile up before it is collected, in percent of what is
// kept. The limit bounds it; at the default of 100 a run over a million members
// collects a few megabytes 55 times, and spends a fifth of its time on that.
const garbage = 400

// limitMemory makes it so, unless GOMEMLIMIT or GOGC say otherwise.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}
