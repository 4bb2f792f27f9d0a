package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// memoryEvery bounds what the last reading may have missed.
const memoryEvery = 2 * time.Millisecond

// watchMemory reads the peak of a process from /proc until it has ended. Not
// getrusage: its Maxrss begins with the memory of the process that forked.
func watchMemory(pid int) func(*os.ProcessState) int64 {
	done := make(chan struct{})
	var ended sync.WaitGroup
	var peak int64
	ended.Go(func() {
		ticker := time.NewTicker(memoryEvery)
		defer ticker.Stop()
		for {
			peak = max(peak, highWater(pid))
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	})
	return func(*os.ProcessState) int64 {
		close(done)
		ended.Wait()
		return peak
	}
}

// highWater is VmHWM, which only grows, in bytes; 0 of a process that has ended.
func highWater(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, found := bytes.Cut(status, []byte("VmHWM:"))
	if !found {
		return 0
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kibibytes, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kibibytes << 10
}
