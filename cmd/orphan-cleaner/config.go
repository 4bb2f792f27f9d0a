package main

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/jedib0t/go-pretty/v6/table"
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
	From        string `json:"from"`  // flag, environment, file or default
	Environment string `json:"environment"`
}

// Run prints the settings of all commands.
func (cmd *ConfigCmd) Run(kctx *kong.Context, s *streams) error {
	settings, err := cmd.settings(kctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(s.out, settings)
	}
	t := newTable("", "setting", "value", "from")
	t.SetAllowedRowLength(0) // a value that is cut is not shown
	for _, e := range settings {
		from := e.From
		switch from {
		case "flag":
			from += " --" + e.Name
		case "environment":
			from += " " + e.Environment
		case "file":
			from += " " + map[string]string{"DATABASE_URL": cmd.DatabaseURLFile, "AUTH_SERVICE_URL": cmd.AuthServiceURLFile}[e.Environment]
		}
		t.AppendRow(table.Row{e.Name, e.Value, from})
	}
	return printTable(s.out, t)
}

// settings are those of this command, which has those of run and serve, and then
// those that only another command has.
func (cmd *ConfigCmd) settings(kctx *kong.Context) ([]effective, error) {
	own := kctx.Selected()
	var settings []effective
	for _, node := range append([]*kong.Node{own}, kctx.Model.Leaves(false)...) {
		for _, flag := range node.Flags {
			if len(flag.Envs) == 0 || slices.ContainsFunc(settings, func(e effective) bool { return e.Environment == flag.Envs[0] }) {
				continue
			}
			if node != own { // a wrong value of another command's flag is passed over so far
				if err := flag.Reset(); err != nil {
					return nil, fmt.Errorf("%w: %w", errUsage, err)
				}
			}
			settings = append(settings, effectiveOf(kctx, flag))
		}
	}
	fromFile := func(environment, value string) {
		i := slices.IndexFunc(settings, func(e effective) bool { return e.Environment == environment })
		settings[i].Value, settings[i].From = withoutSecrets(value), "file"
	}
	if cmd.AuthServiceURLFile != "" {
		if _, err := cmd.endpoint(); err != nil {
			return nil, err
		}
		fromFile("AUTH_SERVICE_URL", cmd.AuthServiceURL)
	}
	if cmd.DatabaseURL == "" && cmd.DatabaseURLFile == "" {
		return settings, nil
	}
	value, err := cmd.url()
	if err != nil {
		return nil, err
	}
	if cmd.DatabaseURLFile != "" {
		fromFile("DATABASE_URL", value)
	}
	return settings, nil
}

func effectiveOf(kctx *kong.Context, flag *kong.Flag) effective {
	environment := flag.Envs[0]
	e := effective{
		Name: strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(environment, settingPrefix)), "_", "-"),
		From: "default", Environment: environment,
	}
	if _, set := os.LookupEnv(environment); set {
		e.From = "environment"
	}
	if slices.ContainsFunc(kctx.Path, func(p *kong.Path) bool { return p.Flag == flag }) {
		e.From = "flag"
	}
	switch value := flag.Target.Interface().(type) {
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
