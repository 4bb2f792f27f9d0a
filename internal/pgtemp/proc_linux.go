package pgtemp

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// children returns the pids of the processes whose parent is pid. It reads
// /proc, for ps is not installed everywhere.
func children(pid int) ([]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, path := range paths {
		child, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		if _, parent, ok := readStat(child); ok && parent == pid {
			found = append(found, child)
		}
	}
	return found, nil
}

// alive reports whether the process is there and not a zombie: one that nobody
// waits for holds no memory and no file any more.
func alive(pid int) bool {
	state, _, ok := readStat(pid)
	return ok && state != "Z" && state != "X"
}

// readStat returns state and parent from /proc/PID/stat, `PID (name) S PPID …`;
// the name may itself hold spaces and parentheses.
func readStat(pid int) (state string, parent int, ok bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0, false
	}
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return "", 0, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}
