package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Results keeps what came of each history in a file, a line of JSON each, so that a
// simulation that was interrupted goes on. The zero value keeps nothing.
type Results struct {
	path  string
	mu    sync.Mutex
	known map[string]Outcome
}

// OpenResults reads a file, if it is there. An outcome says nothing of the code that
// played it: begin with no file after a change of the breakers.
func OpenResults(path string) (*Results, error) {
	r := &Results{path: path, known: map[string]Outcome{}}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading results: %w", err)
	}
	defer file.Close()
	for lines := json.NewDecoder(file); ; {
		var o Outcome
		if err := lines.Decode(&o); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading results in %s: %w; delete the line, or the file", path, err)
		}
		r.known[o.key()] = o
	}
}

// key tells histories apart.
func (h History) key() string { return fmt.Sprintf("%s: %s: %d", h.Group, h.Name, h.Rows) }

// of is what came of a history, if it was played.
func (r *Results) of(h History) (o Outcome, played bool) {
	o, played = r.known[h.key()]
	return o, played
}

// add appends what came of one.
func (r *Results) add(o Outcome) error {
	if r.path == "" {
		return nil
	}
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	file, err := os.OpenFile(r.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // for everybody to read
	if err != nil {
		return fmt.Errorf("writing results: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}
