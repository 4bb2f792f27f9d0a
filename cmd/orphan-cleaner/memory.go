package main

import (
	"os"
	"runtime/debug"
)

// softMemory is what the Go runtime of a runner tries to stay below, in bytes. What
// a run keeps is a third of it even where a million members are due; by default the
// runtime lets as much garbage pile up again.
const softMemory = 40 << 20

// limitMemory makes it so, unless GOMEMLIMIT says otherwise.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
}
