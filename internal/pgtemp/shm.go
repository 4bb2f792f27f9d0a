package pgtemp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// removeSharedMemory removes the System V segment by which a server keeps a
// second one off its data directory. A server that was killed leaves it behind;
// it is tiny, but a machine has only 4,096 of them (macOS: 32).
func removeSharedMemory(dataDir string) error {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // shut down in order
	}
	if err != nil {
		return err
	}
	// Line 7 is the segment's key and its id; a server that was killed while it
	// started may not have come to write it.
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return nil
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return nil
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return fmt.Errorf("reading postmaster.pid: %w", err)
	}
	_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIDRM) {
		return fmt.Errorf("removing shared memory segment %d: %w", id, err)
	}
	return nil
}
