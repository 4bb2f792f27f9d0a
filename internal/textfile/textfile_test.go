package textfile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/textfile"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, []byte("text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		dir:                           "is a directory",
		filepath.Join(dir, "nowhere"): "no such file",
		"/dev/zero":                   "read /dev/zero: is longer than 4 MiB",
		fifo:                          "is a pipe that nobody writes into",
	} {
		if text, err := textfile.Read(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %d bytes, error %v", path, len(text), err)
		}
	}
	if text, err := textfile.Read(file); err != nil || string(text) != "text\n" {
		t.Errorf("a file: %q, error %v", text, err)
	}
	// What a shell's <(command) is.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	go func() {
		_, _ = write.WriteString("late\n") // what was not written is missing below
		_ = write.Close()
	}()
	if text, err := textfile.Read(fmt.Sprintf("/dev/fd/%d", read.Fd())); err != nil || string(text) != "late\n" {
		t.Errorf("a pipe: %q, error %v", text, err)
	}
}
