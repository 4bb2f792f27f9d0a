package main

import (
	"time"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// Duration also reads and writes days: 30d, 1d12h, 90s.
type Duration = settings.Duration

const day = 24 * time.Hour
