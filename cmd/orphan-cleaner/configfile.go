package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/suggest"
	"github.com/nova-social/orphan-cleaner/internal/textfile"
)

// ConfigFile is the name of a YAML file of settings, by the names of their flags. The
// environment and flags win over it.
type ConfigFile string

// BeforeResolve reads the file, whether a flag or the environment names it.
func (ConfigFile) BeforeResolve(kctx *kong.Context, trace *kong.Path) error {
	if command := kctx.Selected(); command != nil && needsNoSettings(command.Name) {
		return nil
	}
	path, _ := kctx.FlagValue(trace.Flag).(ConfigFile)
	read, err := readConfigFile(string(path), kctx.Model)
	if err != nil {
		return err
	}
	kctx.AddResolver(read)
	kctx.Bind(read)
	return nil
}

// configFile holds what a file sets, by the names in it.
type configFile struct {
	path   string
	values map[string]yaml.Node
}

// readConfigFile refuses a name that is no setting of any command, a name that is
// there twice, and a value that its setting does not take.
func readConfigFile(path string, model *kong.Application) (*configFile, error) {
	text, err := textfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	file := &configFile{path: path}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&file.values); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("--config %s: want lines such as `retention: 30d`: %w", path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("--config %s: it holds more than one YAML document", path)
	}
	flags := map[string]*kong.Flag{}
	for _, leaf := range model.Leaves(false) {
		for _, flag := range leaf.Flags {
			if len(flag.Envs) > 0 {
				for _, name := range append(flag.Aliases, flag.Name) {
					flags[name] = flag
				}
			}
		}
	}
	var wrong []error
	for name, node := range file.values {
		err := checkValue(flags, name, node)
		if flag := flags[name]; err == nil && flag.Name != name {
			if _, twice := file.values[flag.Name]; twice {
				err = fmt.Errorf("%s is %s by another name: remove one", name, flag.Name)
			}
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%d: %w", path, node.Line, err))
		}
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return file, errors.Join(wrong...)
}

func checkValue(flags map[string]*kong.Flag, name string, node yaml.Node) error {
	flag, known := flags[name]
	if !known {
		names := slices.Sorted(maps.Keys(flags))
		if node.Kind == yaml.MappingNode {
			return fmt.Errorf("there is no setting %q that others stand under: begin each line with a setting, such as `retention: 30d`", name)
		}
		as := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, settingPrefix), "_", "-"))
		if near := suggest.Nearest(as, names); near != "" {
			return fmt.Errorf("there is no setting %q, did you mean %s?", name, near)
		}
		return fmt.Errorf("there is no setting %q", name)
	}
	value, ok := valueOf(flag, node)
	if !ok {
		return fmt.Errorf("%s wants one value, such as `%s: %s`", name, name, flag.FormatPlaceHolder())
	}
	if err := decode(flag, value, reflect.New(flag.Target.Type()).Elem()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if flag.Enum != "" && !slices.Contains(flag.EnumSlice(), value) {
		return fmt.Errorf("%s is %q, it must be one of: %s", name, value, strings.Join(flag.EnumSlice(), ", "))
	}
	return nil
}

func decode(flag *kong.Flag, value string, target reflect.Value) error {
	scan := kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: value})
	return flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, target)
}

// valueOf is the value as a flag would be given it: the words of a list with commas.
func valueOf(flag *kong.Flag, node yaml.Node) (value string, ok bool) {
	switch {
	case node.Kind == yaml.ScalarNode:
		return node.Value, node.Tag != "!!null"
	case node.Kind != yaml.SequenceNode || !flag.IsSlice():
		return "", false
	}
	var words []string
	err := node.Decode(&words)
	return strings.Join(words, ","), err == nil
}

// Validate has nothing to add: the file was checked when it was read.
func (*configFile) Validate(*kong.Application) error { return nil }

// Resolve returns the value of a flag where the environment does not say more.
func (f *configFile) Resolve(kctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if value, _, set := f.lookup(kctx, flag); set {
		return value, nil
	}
	return nil, nil //nolint:nilnil // kong's word for nothing
}

// lookup is the file's value of a flag and where it is, as "path:line".
func (f *configFile) lookup(kctx *kong.Context, flag *kong.Flag) (value, at string, set bool) {
	if f == nil || len(flag.Envs) == 0 {
		return "", "", false
	}
	outranked := flag.Envs
	if flag.Name == "database-url-file" { // it wins over a URL, but not over one from a stronger source
		outranked = append([]string{"DATABASE_URL"}, outranked...)
		if slices.ContainsFunc(kctx.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == "database-url" && !p.Resolved }) {
			return "", "", false
		}
	}
	for _, name := range outranked {
		if _, set := os.LookupEnv(name); set {
			return "", "", false
		}
	}
	for _, name := range append([]string{flag.Name}, flag.Aliases...) {
		if node, is := f.values[name]; is {
			value, set = valueOf(flag, node)
			return value, fmt.Sprintf("%s:%d", f.path, node.Line), set
		}
	}
	return "", "", false
}
