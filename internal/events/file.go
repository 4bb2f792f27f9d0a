package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// fileSink writes a JSON object a line.
type fileSink struct {
	name, path string
	to         io.Writer // nil: the file is not open
	file       *os.File
}

// NewFile appends events to a file, which is made where it is not there.
func NewFile(path string) Sink { return &fileSink{name: "file:" + path, path: path} }

// NewStdout writes events to the program's standard output.
func NewStdout(to io.Writer) Sink { return &fileSink{name: "stdout", to: to} }

func (s *fileSink) Name() string { return s.name }

// Deliver returns when the lines of a file are on disk.
func (s *fileSink) Deliver(_ context.Context, events []Event) (int, error) {
	var text bytes.Buffer
	var err error
	for _, event := range events {
		err = errors.Join(err, json.NewEncoder(&text).Encode(event))
	}
	if err == nil && s.to == nil {
		err = s.open()
	}
	if err == nil {
		_, err = s.to.Write(text.Bytes())
	}
	if err == nil && s.file != nil {
		err = s.file.Sync()
	}
	if err != nil {
		// Opened anew the next time, which ends a line that was cut.
		return 0, fmt.Errorf("writing events to %s: %w", s.name, errors.Join(err, s.Close()))
	}
	return len(events), nil
}

// open ends a line that a full disk or a crash cut: it is no JSON, and its event is
// written once more.
func (s *fileSink) open() error {
	file, err := os.OpenFile(s.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640) //nolint:gosec // others read it, by its group
	if err != nil {
		return err
	}
	last := make([]byte, 1)
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		if _, err = file.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, err = file.WriteString("\n")
		}
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	s.file, s.to = file, file
	return nil
}

func (s *fileSink) Close() error {
	file := s.file
	if file == nil {
		return nil
	}
	s.file, s.to = nil, nil
	return file.Close()
}
