package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lineSink writes a JSON object a line.
type lineSink struct {
	name  string
	write func(lines []byte) error
	idle  chan struct{} // has an element while nothing is being written
}

// NewFile appends events to a file, which is made where it is not there: also where it
// was moved or deleted since the last events.
func NewFile(path string) Sink {
	return newLines("file:"+path, func(lines []byte) error { return appendTo(path, lines) })
}

// NewStdout writes events to the program's standard output.
func NewStdout(to io.Writer) Sink {
	return newLines("stdout", func(lines []byte) error {
		_, err := to.Write(lines)
		return err
	})
}

func newLines(name string, write func([]byte) error) Sink {
	s := &lineSink{name: name, write: write, idle: make(chan struct{}, 1)}
	s.idle <- struct{}{}
	return s
}

func (s *lineSink) Name() string { return s.name }
func (*lineSink) Close() error   { return nil }

// Deliver returns when the lines of a file are on disk, or when time is up: a pipe that
// nobody reads, or a disk that hangs, keeps the last write to itself.
func (s *lineSink) Deliver(ctx context.Context, events []Event) (int, error) {
	var text bytes.Buffer
	for _, event := range events {
		if err := json.NewEncoder(&text).Encode(event); err != nil {
			return 0, fmt.Errorf("writing events to %s: %w", s.name, err)
		}
	}
	written := make(chan error, 1)
	select {
	case <-s.idle:
		go func() {
			written <- s.write(text.Bytes())
			s.idle <- struct{}{}
		}()
	case <-ctx.Done():
	}
	select {
	case err := <-written:
		if err != nil {
			return 0, fmt.Errorf("writing events to %s: %w", s.name, err)
		}
		return len(events), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("writing events to %s: nobody takes what was written: %w", s.name, context.Cause(ctx))
	}
}

var errIrregular = errors.New("it is no regular file, so nobody can tell when it has them")

// Appendable says why events could not be appended to a file, and does not make it.
func Appendable(path string) error {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		const writeAndSearch = 3
		directory := filepath.Dir(path)
		if err := syscall.Access(directory, writeAndSearch); err != nil {
			return fmt.Errorf("no file can be made in %s: %w", directory, err)
		}
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: %w", path, errIrregular)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	return file.Close()
}

// appendTo ends a line that a full disk or a crash cut: it is no JSON, and its event is
// written once more.
func appendTo(path string, lines []byte) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640) //nolint:gosec // others read it, by its group
	if err != nil {
		return err
	}
	last := make([]byte, 1)
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errIrregular
	case info.Size() > 0:
		if _, err = file.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			lines = append([]byte("\n"), lines...)
		}
	}
	if err == nil {
		_, err = file.Write(lines)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
