package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/lab/process"
)

// Cost is that of whole processes, of each repetition, in seconds.
type Cost struct {
	Wall   []float64
	CPU    []float64 // of the processes, user and system
	Server []float64 // of PostgreSQL; 0: this system does not tell
}

// cost adds what processes take, and what PostgreSQL takes for them.
func (b *bench) cost(cost *Cost, do func() (process.Ended, error)) error {
	from, err := b.serverCPU()
	if err != nil {
		return err
	}
	e, err := do()
	if err != nil {
		return err
	}
	to, err := b.serverCPU()
	cost.Wall, cost.CPU, cost.Server = append(cost.Wall, e.Seconds), append(cost.CPU, e.CPU), append(cost.Server, to-from)
	return err
}

// ticks is USER_HZ: what /proc counts a second in.
const ticks = 100

// serverCPU is what all of PostgreSQL's processes have taken so far, those that have ended
// too, in seconds; 0 where there is no /proc.
func (b *bench) serverCPU() (float64, error) {
	file, err := os.ReadFile(filepath.Join(b.cluster.DataDir(), "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	postmaster, _, _ := strings.Cut(string(file), "\n")
	for {
		ended := cpuOf(postmaster, "", 4) // its children's, once they have ended, is its own
		sum := ended
		processes, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return 0, err
		}
		for _, process := range processes {
			sum += cpuOf(filepath.Base(process), postmaster, 2)
		}
		if ended == cpuOf(postmaster, "", 4) { // or one ended meanwhile, and was counted twice or not at all
			return sum / ticks, nil
		}
	}
}

// cpuOf is a process's user and system time, and with 4 fields that of its children, too, in
// ticks; 0 if it is not there, or another's child.
func cpuOf(pid, parent string, times int) (sum float64) {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat")) //nolint:gosec // a number
	if err != nil {
		return 0
	}
	// PID (name) state ppid …: the times are fields 14 to 17.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if parent != "" && fields[1] != parent {
		return 0
	}
	for _, field := range fields[11 : 11+times] {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0
		}
		sum += n
	}
	return sum
}
