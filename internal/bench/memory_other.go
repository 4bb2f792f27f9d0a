//go:build !linux

package bench

import (
	"os"
	"runtime"
	"syscall"
)

// watchMemory reads the peak of a process when it has ended.
func watchMemory(int) func(*os.ProcessState) int64 {
	return func(state *os.ProcessState) int64 {
		usage, ok := state.SysUsage().(*syscall.Rusage)
		switch {
		case !ok:
			return 0
		case runtime.GOOS == "darwin":
			return usage.Maxrss // bytes
		default:
			return usage.Maxrss << 10
		}
	}
}
