// Package textfile reads the files that settings name.
package textfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Limit is how many bytes a file may have, so that a device without an end is not read for ever.
const Limit = 4 << 20

// Read is os.ReadFile with that limit. A pipe may take its place, as in a shell's <(command), but
// must have somebody who writes into it.
func Read(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(file, Limit+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > Limit:
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is longer than 4 MiB")}
	case len(text) == 0 && isPipe(file):
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is a pipe that nobody writes into")}
	}
	return text, nil
}

func isPipe(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}
