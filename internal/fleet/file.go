// Package fleet runs over many databases that share one auth-service: every shard is
// verified and changes nothing, the sums are judged by the breakers of one database, and
// then the shards are swept in waves. Each shard keeps its own ledger, evidence and
// limits; what is added here can only stop it.
package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/textfile"
)

// File is a fleet.yaml.
type File struct {
	Path       string
	ControlURL string // empty: there is no control database
	Shards     []Shard
	Waves      []int           // shards in each wave; the rest is the last one
	Limits     settings.Limits // over the sums; all of them are there
	Outlier    float64         // a shard may find this many times the share of the others; 0: no limit
	MaxQPS     float64         // calls a second of all workers; 0: no limit
	Once       bool            // each user is checked once, however many shards have them
	Workers    int             // shards at once in one process
	JobTimeout time.Duration   // of one pass over one shard
}

// Shard is one database.
type Shard struct{ Name, URL string }

// A job that takes longer is stuck; one that gets less is never done.
const (
	maxShards = 10_000 // a directory with more holds something else
	minJob    = 10 * time.Second
	maxJob    = 7 * 24 * time.Hour
)

// OutlierLimit is the name of the one limit that a single database does not have.
const OutlierLimit = "shard-outlier"

// content is the file as it is written.
type content struct {
	ControlURL     *string            `yaml:"control_url"` // nil: it is not there
	ControlURLFile *string            `yaml:"control_url_file"`
	Shards         shards             `yaml:"shards"`
	Waves          []int              `yaml:"waves"`
	Limits         map[string]float64 `yaml:"limits"`
	MaxQPS         float64            `yaml:"max_qps"`
	Once           bool               `yaml:"check_users_once"`
	Workers        int                `yaml:"workers"`
	JobTimeout     settings.Duration  `yaml:"job_timeout"`
}

// shards are a directory or a list.
type shards struct {
	Directory string
	List      []shardEntry
}

type shardEntry struct {
	Name    string `yaml:"name"`
	URLFile string `yaml:"url_file"`
}

func (s *shards) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Load(&s.List, yaml.WithKnownFields())
	}
	var of struct {
		Directory string `yaml:"directory"`
	}
	err := n.Load(&of, yaml.WithKnownFields())
	s.Directory = of.Directory
	return err
}

var shardName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// Load reads a file, and the files with URLs that it names; relative names are in its
// directory. Its error is a *[target.Error] and shows no URL.
func Load(path string) (File, error) {
	f := File{Path: path, Limits: settings.DefaultLimits(), Outlier: 10}
	text, err := textfile.Read(path)
	if err != nil {
		return f, at(path, 1, 1, "it cannot be read: %v", err)
	}
	var root yaml.Node
	c := content{Workers: 4, JobTimeout: settings.Duration(15 * time.Minute)}
	if err := errors.Join(yaml.Load(text, &root), yaml.Load(text, &c, yaml.WithKnownFields())); err != nil {
		return f, located(path, err)
	}
	// wrong is an error at a key of the file.
	wrong := func(key, format string, args ...any) (File, error) {
		line, column := 1, 1
		for i, n := range root.Content[0].Content {
			if i%2 == 0 && n.Value == key {
				line, column = n.Line, n.Column
			}
		}
		return f, at(path, line, column, format, args...)
	}
	for i, n := range root.Content[0].Content {
		if i%2 == 1 && n.Tag == "!!null" { // which would be as if the key were not there
			return wrong(root.Content[0].Content[i-1].Value, "%s is empty: remove it, or write what belongs there", root.Content[0].Content[i-1].Value)
		}
	}
	switch {
	case c.ControlURL != nil && c.ControlURLFile != nil:
		return wrong("control_url_file", "control_url is there, too: remove one")
	case c.ControlURLFile != nil:
		if f.ControlURL, err = f.urlIn(*c.ControlURLFile); err != nil {
			return wrong("control_url_file", "%v", err)
		}
	case c.ControlURL != nil:
		if f.ControlURL = *c.ControlURL; f.ControlURL == "" {
			return wrong("control_url", "control_url is empty: remove it, or write the URL of the control database")
		}
		if err := checkURL(f.ControlURL, "the URL"); err != nil {
			return wrong("control_url", "%v", err)
		}
	}
	if err := f.addShards(c.Shards); err != nil {
		return wrong("shards", "%v", err)
	}
	for i, n := range c.Waves {
		if n < 1 {
			return wrong("waves", "wave %d has %d shards: write how many each wave has, such as [1, 10]; the rest is the last one", i+1, n)
		}
	}
	f.Waves, f.Once = c.Waves, c.Once
	if f.Waves == nil {
		f.Waves = []int{1, max(2, len(f.Shards)/10)}
	}
	for name, limit := range c.Limits {
		if _, known := f.Limits[name]; !known && name != OutlierLimit {
			return wrong("limits", "%q is no limit: there are %s and %s", name, strings.Join(limitNames(), ", "), OutlierLimit)
		}
		if err := settings.CheckLimit(name, limit); err != nil {
			return wrong("limits", "%s is %v: %v", name, limit, err)
		}
		if name == OutlierLimit && limit > 0 && limit < 1 {
			return wrong("limits", "%s is %v: it must be 1 or more, or 0, which switches the breaker off", name, limit)
		}
		if name == OutlierLimit {
			f.Outlier = limit
		} else {
			f.Limits[name] = limit
		}
	}
	if f.MaxQPS = c.MaxQPS; f.MaxQPS != 0 && !(f.MaxQPS >= 0.01 && f.MaxQPS <= 1e6) {
		return wrong("max_qps", "max_qps is %v: it must be 0.01 to 1000000 calls a second, or 0 for no limit", c.MaxQPS)
	}
	if f.Workers = c.Workers; c.Workers < 1 || c.Workers > 256 {
		return wrong("workers", "workers is %d: it must be 1 to 256 shards at once", c.Workers)
	}
	if f.JobTimeout = time.Duration(c.JobTimeout); f.JobTimeout < minJob || f.JobTimeout > maxJob {
		return wrong("job_timeout", "job_timeout is %s: it must be 10s to 7d", c.JobTimeout)
	}
	if calls := f.MaxQPS * f.JobTimeout.Seconds(); f.MaxQPS > 0 && calls < float64(f.Workers) {
		return wrong("max_qps", "max_qps is %v: in a job_timeout of %s that is less than a call for each of %d workers, and no run would end; raise it or job_timeout", f.MaxQPS, c.JobTimeout, f.Workers)
	}
	return f, nil
}

// addShards reads the URLs. Two names for one database would count it twice.
func (f *File) addShards(from shards) error {
	list := from.List
	if from.Directory != "" {
		entries, err := os.ReadDir(f.beside(from.Directory))
		if err != nil {
			return fmt.Errorf("the directory cannot be read: %w", err)
		}
		for _, entry := range entries { // sorted
			// Kubernetes mounts a secret with ..data beside its keys.
			if !strings.HasPrefix(entry.Name(), ".") {
				list = append(list, shardEntry{entry.Name(), filepath.Join(from.Directory, entry.Name())})
			}
		}
	}
	if len(list) == 0 || len(list) > maxShards {
		return fmt.Errorf("there are %d shards: name 1 to %d in a list of {name, url_file}, or as files of {directory: DIR}", len(list), maxShards)
	}
	names, places := map[string]bool{}, map[string]string{}
	for _, one := range list {
		if !shardName.MatchString(one.Name) {
			return fmt.Errorf("%q is no name of a shard: letters, digits, dot, - and _, at most 63", one.Name)
		}
		if names[one.Name] {
			return fmt.Errorf("there are two shards %s: choose another name", one.Name)
		}
		url, err := f.urlIn(one.URLFile)
		if err != nil {
			return fmt.Errorf("shard %s: %w", one.Name, err)
		}
		cfg, err := database.ParseConfig(url)
		if err != nil {
			return fmt.Errorf("shard %s: %w", one.Name, err)
		}
		place := fmt.Sprintf("%s:%d/%s", cfg.ConnConfig.Host, cfg.ConnConfig.Port, cfg.ConnConfig.Database)
		if other := places[place]; other != "" {
			return fmt.Errorf("shards %s and %s are the same database: it would be counted twice; remove one", other, one.Name)
		}
		names[one.Name], places[place] = true, one.Name
		f.Shards = append(f.Shards, Shard{one.Name, url})
	}
	return nil
}

// beside is a name in the directory of the file.
func (f *File) beside(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(f.Path), name)
}

// urlIn is a URL that can be used, from a file of this name.
func (f *File) urlIn(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("url_file is missing: name a file that holds the URL")
	case strings.Contains(name, "://"):
		return "", errors.New("url_file is the name of a file that holds the URL, not the URL itself")
	}
	text, err := textfile.Read(f.beside(name))
	if err != nil {
		return "", fmt.Errorf("its URL cannot be read: %w", err)
	}
	url := strings.TrimSpace(strings.TrimPrefix(string(text), "\ufeff"))
	if url == "" {
		return "", fmt.Errorf("%s is empty: write a database URL into it", name)
	}
	return url, checkURL(url, "the URL in "+name)
}

// checkURL says what is wrong with a URL that is no setting.
func checkURL(url, what string) error {
	if _, err := database.ParseConfig(url); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "DATABASE_URL", what))
	}
	return nil
}

// Shard is the one of this name.
func (f *File) Shard(name string) (Shard, error) {
	i := slices.IndexFunc(f.Shards, func(s Shard) bool { return s.Name == name })
	if i < 0 {
		return Shard{}, fmt.Errorf("there is no shard %s in %s: all workers need the same file", name, f.Path)
	}
	return f.Shards[i], nil
}
