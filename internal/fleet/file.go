// Package fleet runs over many databases that share one auth-service: every shard is
// verified and changes nothing, the sums are judged by the breakers of one database, and
// then the shards are swept in waves. Each shard keeps its own ledger, evidence and
// limits; what is added here can only stop it.
package fleet

import (
	"cmp"
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
	"github.com/nova-social/orphan-cleaner/internal/target"
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

// maxShards is against a directory that holds something else.
const maxShards = 10_000

// outlierLimit is the name of the one limit that a single database does not have.
const outlierLimit = "shard-outlier"

// content is the file as it is written.
type content struct {
	ControlURL     string             `yaml:"control_url"`
	ControlURLFile string             `yaml:"control_url_file"`
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
	f := File{
		Path: path, Limits: settings.DefaultLimits(), Outlier: 10, Workers: 4, JobTimeout: 15 * time.Minute,
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return f, at(path, 1, 1, "it cannot be read: %v", err)
	}
	var root yaml.Node
	var c content
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
	f.ControlURL = c.ControlURL
	if c.ControlURLFile != "" {
		if f.ControlURL != "" {
			return wrong("control_url_file", "control_url is there, too: remove one")
		}
		if f.ControlURL, err = f.urlIn(c.ControlURLFile); err != nil {
			return wrong("control_url_file", "%v", err)
		}
	}
	if f.ControlURL != "" {
		if _, err := database.ParseConfig(f.ControlURL); err != nil {
			return wrong(cmp.Or(map[bool]string{true: "control_url_file"}[c.ControlURLFile != ""], "control_url"), "%v", err)
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
	f.Waves = c.Waves
	if f.Waves == nil {
		f.Waves = []int{1, max(2, len(f.Shards)/10)}
	}
	for name, limit := range c.Limits {
		if _, known := f.Limits[name]; !known && name != outlierLimit {
			return wrong("limits", "%q is no limit: there are %s and %s", name, strings.Join(limitNames(), ", "), outlierLimit)
		}
		if err := settings.CheckLimit(name, limit); err != nil {
			return wrong("limits", "%s is %v: %v", name, limit, err)
		}
		if name == outlierLimit {
			f.Outlier = limit
		} else {
			f.Limits[name] = limit
		}
	}
	if f.MaxQPS = c.MaxQPS; !(f.MaxQPS >= 0 && f.MaxQPS <= 1e6) {
		return wrong("max_qps", "max_qps is %v: it must be 0, for no limit, to 1000000 calls a second", c.MaxQPS)
	}
	if f.Once = c.Once; f.Once && f.ControlURL != "" {
		return wrong("check_users_once", "it works in one process only: remove it, or control_url")
	}
	if c.Workers < 0 || c.Workers > 256 {
		return wrong("workers", "workers is %d: it must be 1 to 256 shards at once", c.Workers)
	}
	f.Workers = cmp.Or(c.Workers, f.Workers)
	f.JobTimeout = cmp.Or(time.Duration(c.JobTimeout), f.JobTimeout)
	return f, nil
}

func limitNames() []string {
	return slices.DeleteFunc(settings.BoundNames(), func(name string) bool { return name == "retention" || name == "max-gap" })
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

func (f *File) urlIn(name string) (string, error) {
	if name == "" || strings.Contains(name, "://") {
		return "", errors.New("url_file is the name of a file that holds the URL, not the URL itself")
	}
	text, err := os.ReadFile(f.beside(name))
	if err != nil {
		return "", fmt.Errorf("its URL cannot be read: %w", err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(text), "\ufeff")), nil
}

// Shard is the one of this name.
func (f *File) Shard(name string) (Shard, error) {
	i := slices.IndexFunc(f.Shards, func(s Shard) bool { return s.Name == name })
	if i < 0 {
		return Shard{}, fmt.Errorf("there is no shard %s in %s: all workers need the same file", name, f.Path)
	}
	return f.Shards[i], nil
}

func at(path string, line, column int, format string, args ...any) error {
	return &target.Error{Path: path, Line: line, Column: column, Message: fmt.Sprintf(format, args...)}
}

// located is the first place that the reader of YAML complains about.
func located(path string, err error) error {
	of, is := errors.AsType[*yaml.LoadError](err)
	if many, are := errors.AsType[*yaml.LoadErrors](err); are && len(many.Errors) > 0 {
		of, is = many.Errors[0], true
	}
	if !is {
		return at(path, 1, 1, "%v: see docs/scale.md", err)
	}
	return at(path, max(of.Mark.Line, 1), max(of.Mark.Column, 1), "%s: see docs/scale.md", notType.ReplaceAllString(of.Message, "is no key of a fleet file"))
}

// notType hides our types from who writes the file.
var notType = regexp.MustCompile(`not found in type \S+( \{.*)?`)
