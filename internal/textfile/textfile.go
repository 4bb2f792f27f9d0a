// Package textfile reads the files that settings name.
package textfile

import (
	"errors"
	"io/fs"
	"os"
)

// Read is os.ReadFile, but of files alone: a pipe that nobody writes into, or a device
// without an end, would be read for ever.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() { // what is wrong with a directory, the system says
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is a pipe or a device, not a file: write its content into a file")}
	}
	return os.ReadFile(path)
}
