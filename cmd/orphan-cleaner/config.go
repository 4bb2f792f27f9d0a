package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// ConfigCmd is `config`.
type ConfigCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service"`
	CleanerFlags  `group:"Run"`
	ServeFlags    `group:"Serve"`
	PublishFlags  `group:"Report"`
	EventFlags    `group:"Events"`
	LogFlags      `group:"Log"`
	JSON          bool `name:"json" help:"Print a JSON array."`
}

// effective is a setting as a command would see it.
type effective struct {
	Name        string `json:"name"`
	Value       string `json:"value"` // as it would be written, without secrets
	From        string `json:"from"`  // flag, environment, file, default, or pin where that is stricter
	At          string `json:"at"`    // the file, and the line of a configuration file
	Environment string `json:"environment"`
	Pin         string `json:"pin"` // empty: not pinned, or not known
}

// Run prints the settings of all commands, and the pins where the database tells them.
func (cmd *ConfigCmd) Run(ctx context.Context, kctx *kong.Context, file *configFile, s *streams) error {
	all, err := cmd.settings(kctx, file)
	if err != nil {
		return err
	}
	if err := cmd.addPins(ctx, all); err != nil {
		if _, err := fmt.Fprintln(s.err, "orphan-cleaner: the pins are not known:", oneLine(err)); err != nil {
			return err
		}
	}
	if cmd.JSON {
		return printJSON(s.out, all)
	}
	t := newTable("", "setting", "value", "from", "pin")
	for _, e := range all {
		from := e.From
		switch from {
		case "flag":
			from += " --" + e.Name
		case "environment":
			from += " " + e.Environment
		case "file":
			from += " " + e.At
		}
		value := any(e.Value)
		if strings.HasSuffix(e.Name, "-url") {
			value = bareURL(e.Value)
		}
		t.AppendRow(table.Row{e.Name, value, from, e.Pin})
	}
	return printTable(s.out, t)
}

// settings are those of this command, which has those of run and serve, and then
// those that only another command has.
func (cmd *ConfigCmd) settings(kctx *kong.Context, file *configFile) ([]effective, error) {
	own := kctx.Selected()
	var all []effective
	for _, node := range append([]*kong.Node{own}, kctx.Model.Leaves(false)...) {
		for _, flag := range node.Flags {
			if len(flag.Envs) == 0 || slices.ContainsFunc(all, func(e effective) bool { return e.Environment == flag.Envs[0] }) {
				continue
			}
			value, at, inFile := file.lookup(kctx, flag)
			if node != own { // a wrong value of another command's flag is passed over so far
				if err := flag.Reset(); err != nil {
					return nil, fmt.Errorf("%w: %w", errUsage, err)
				}
				if inFile {
					if err := decode(flag, value, flag.Target); err != nil {
						return nil, fmt.Errorf("%w: %s: %w", errUsage, at, err)
					}
				}
			}
			all = append(all, effectiveOf(kctx, flag, at))
		}
	}
	fromFile := func(environment, value, file string) {
		i := slices.IndexFunc(all, func(e effective) bool { return e.Environment == environment })
		all[i].Value, all[i].From, all[i].At = withoutSecrets(value), "file", file
	}
	if cmd.AuthServiceURLFile != "" {
		if _, err := cmd.endpoint(); err != nil {
			return nil, err
		}
		fromFile("AUTH_SERVICE_URL", cmd.AuthServiceURL, cmd.AuthServiceURLFile)
	}
	if cmd.DatabaseURL == "" && cmd.DatabaseURLFile == "" {
		return all, nil
	}
	value, err := cmd.url()
	if err != nil {
		return nil, err
	}
	if cmd.DatabaseURLFile != "" {
		fromFile("DATABASE_URL", value, cmd.DatabaseURLFile)
	}
	return all, nil
}

// pinsLimit is how long config waits for the database.
const pinsLimit = 3 * time.Second

// addPins has a pin win over a value that is less strict.
func (cmd *ConfigCmd) addPins(ctx context.Context, all []effective) error {
	if cmd.DatabaseURL == "" && cmd.DatabaseURLFile == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pinsLimit)
	defer cancel()
	lines, err := readLimits(ctx, &cmd.DatabaseFlags, &cmd.LimitFlags, cmd.Retention, cmd.MaxGap)
	if err != nil {
		return err
	}
	for _, line := range lines {
		name := "max-" + line.Name
		if settings.IsTime(line.Name) {
			name = line.Name
		}
		i := slices.IndexFunc(all, func(e effective) bool { return e.Name == name })
		if line.Pin == nil || i < 0 {
			continue
		}
		if all[i].Pin = settings.BoundText(line.Name, *line.Pin); line.Effective != line.Value {
			all[i].Value, all[i].From, all[i].At = all[i].Pin, "pin", ""
		}
	}
	return nil
}

// effectiveOf takes where a configuration file has it, or nothing.
func effectiveOf(kctx *kong.Context, flag *kong.Flag, at string) effective {
	environment := flag.Envs[0]
	e := effective{
		Name: strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(environment, settingPrefix)), "_", "-"),
		From: "default", Environment: environment,
	}
	if at != "" {
		e.From, e.At = "file", at
	}
	if slices.ContainsFunc(flag.Envs, func(name string) bool { _, set := os.LookupEnv(name); return set }) {
		e.From = "environment"
	}
	if slices.ContainsFunc(kctx.Path, func(p *kong.Path) bool { return p.Flag == flag && !p.Resolved }) {
		e.From, e.At = "flag", ""
	}
	target := flag.Target
	if target.Kind() == reflect.Pointer {
		if target.IsNil() {
			return e
		}
		target = target.Elem()
	}
	switch value := target.Interface().(type) {
	case []string:
		e.Value = strings.Join(value, ",")
	case Duration:
		if value != 0 {
			e.Value = value.String()
		}
	default:
		e.Value = fmt.Sprint(value)
	}
	if strings.HasSuffix(e.Name, "-url") {
		e.Value = withoutSecrets(e.Value)
	}
	return e
}

// withoutSecrets is a URL without its password. Of a URL that is not a database's
// only the scheme and the host are shown: a name or a path may be a token. A password
// with an unescaped / or ? moves the @ out of the host; such a URL is not shown.
func withoutSecrets(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		return "[not shown]"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host}
	if !strings.HasPrefix(u.Scheme, "postgres") {
		if u.Path != "" && u.Path != "/" {
			return shown.String() + "/…"
		}
		return shown.String()
	}
	if name := u.User.Username(); name != "" {
		shown.User = url.User(name)
	}
	shown.Path = u.Path
	parameters := url.Values{}
	for name, values := range u.Query() {
		if !strings.HasPrefix(name, "ssl") && name != "host" && name != "port" && name != "target_session_attrs" || name == "sslpassword" {
			continue
		}
		parameters[name] = values
	}
	shown.RawQuery = parameters.Encode()
	return shown.String()
}
