package main

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// columns is how wide a terminal is, or what COLUMNS says; 0: no limit, as in a pipe.
func columns(w io.Writer) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if file, is := w.(*os.File); is {
		if n, _, err := term.GetSize(int(file.Fd())); err == nil {
			return n
		}
	}
	return 0
}

// isTerminal says that somebody looks at what is written.
func isTerminal(w io.Writer) bool {
	file, is := w.(*os.File)
	return is && term.IsTerminal(int(file.Fd()))
}

// paint colours a word on a terminal, unless NO_COLOR is set; CLICOLOR_FORCE colours pipes, too.
func paint(w io.Writer, color text.Color, word string) string {
	forced := os.Getenv("CLICOLOR_FORCE") != "" && os.Getenv("CLICOLOR_FORCE") != "0"
	if os.Getenv("NO_COLOR") != "" || !forced && (!isTerminal(w) || os.Getenv("TERM") == "dumb") {
		return word
	}
	return text.Escape(word, color.EscapeSeq())
}

// screen is a terminal whose last line may be a progress line: what else is written
// goes above it. The zero width cuts nothing.
type screen struct {
	w     io.Writer
	width func() int

	mu   sync.Mutex
	line string
}

const clearLine = "\r\x1b[K"

// Write takes whole lines.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(lines)
	}
	if _, err := s.w.Write(bytes.Join([][]byte{[]byte(clearLine), lines, []byte(s.line)}, nil)); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// show replaces the progress line, cut to one line of the terminal; empty: there is none.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if width := s.width(); width > 1 {
		line = text.Trim(line, width-1)
	}
	s.line = line
	_, _ = io.WriteString(s.w, clearLine+line) // whoever looks is gone
}
