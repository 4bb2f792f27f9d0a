package pgtemp

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

func (c *Cluster) logPath() string { return filepath.Join(c.dir, "postgres.log") }

// LogTail returns the last n lines of the server's log, or why they cannot be
// read.
func (c *Cluster) LogTail(n int) string {
	lines := strings.Split(strings.TrimRight(c.logFrom(0), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// logSize is how much the server has logged; 0 where there is no log yet.
func (c *Cluster) logSize() int64 {
	info, err := os.Stat(c.logPath())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logWindow is how much of the end of the log is read at most.
const logWindow = 1 << 20

// logFrom returns the log from an offset on, at most its last megabyte.
func (c *Cluster) logFrom(offset int64) string {
	file, err := os.Open(c.logPath())
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	offset = max(offset, c.logSize()-logWindow)
	text, err := io.ReadAll(io.NewSectionReader(file, offset, 2*logWindow))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
