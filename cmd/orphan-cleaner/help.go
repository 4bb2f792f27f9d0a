package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// HelpCmd is `help`.
type HelpCmd struct {
	Command []string `arg:"" optional:"" help:"The command, such as: hold add."`
	Man     bool     `help:"Print the manual page, orphan-cleaner(1), of all commands."`
}

// Run prints what COMMAND --help prints.
func (cmd *HelpCmd) Run(kctx *kong.Context, s *streams) error {
	if cmd.Man {
		return printManual(s.out, kctx.Model)
	}
	of, err := kong.Trace(kctx.Kong, cmd.Command)
	if err == nil {
		err = of.Error
	}
	if err != nil {
		return fmt.Errorf("%w: %w; see: orphan-cleaner --help", errUsage, err)
	}
	return of.PrintUsage(false)
}

// exampleOf is keyed by the words of a command.
func exampleOf(command string) string {
	return map[string]string{
		"":                     "orphan-cleaner check\n  orphan-cleaner run --dry-run",
		"check":                "export DATABASE_URL=postgres://runner@db/messaging\n  export AUTH_SERVICE_URL=http://auth-service:9080\n  orphan-cleaner check",
		"migrate":              "orphan-cleaner migrate status",
		"migrate up":           "orphan-cleaner migrate up --show-sql > pending.sql\n  DATABASE_URL=postgres://owner@db/messaging orphan-cleaner migrate up",
		"migrate down":         "orphan-cleaner migrate down --show-sql\n  orphan-cleaner migrate down",
		"migrate status":       "orphan-cleaner migrate status",
		"migrate settle-clock": "orphan-cleaner migrate settle-clock",
		"migrate drift":        "orphan-cleaner migrate drift\n  orphan-cleaner migrate drift --print \\\n    > drift/20260131120000_follow_conversation_members.sql",
		"run":                  "orphan-cleaner run --dry-run\n  0 * * * * /usr/local/bin/orphan-cleaner run 2>&1 | logger -t orphan-cleaner",
		"report":               "orphan-cleaner report\n  orphan-cleaner report --month 2026-01 --csv > 2026-01.csv",
		"prune":                "orphan-cleaner prune\n  @daily /usr/bin/orphan-cleaner prune --execute 2>&1 | logger -t orphan-cleaner",
		"serve":                "orphan-cleaner serve --interval 1h --metrics-addr :9091",
		"pause":                "orphan-cleaner pause --reason 'auth-service is being restored'",
		"resume":               "orphan-cleaner resume",
		"effects":              "orphan-cleaner effects\n  orphan-cleaner effects set counter=on owners=promote",
		"effects list":         "orphan-cleaner effects list --json",
		"effects set":          "orphan-cleaner effects set counter=on owners=promote",
		"limits":               "orphan-cleaner limits\n  orphan-cleaner limits pin --defaults",
		"limits list":          "orphan-cleaner limits list --json",
		"limits pin":           "orphan-cleaner limits pin --defaults\n  orphan-cleaner limits pin retention=60d delete-share=0.02",
		"limits unpin":         "orphan-cleaner limits unpin delete-share",
		"approve":              "orphan-cleaner approve 17 --yes\n  orphan-cleaner approve 17 --revoke",
		"restore":              "orphan-cleaner restore --run 17\n  orphan-cleaner restore --run 17 --execute\n  orphan-cleaner restore --since '2026-01-31 10:00' --until '2026-01-31 11:00'\n  orphan-cleaner restore --revert 18 --execute",
		"hold":                 "orphan-cleaner hold list",
		"hold add":             "orphan-cleaner hold add --reason 'legal hold 17' --until 90d \\\n    --user 6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10",
		"hold list":            "orphan-cleaner hold list --json",
		"hold remove":          "orphan-cleaner hold remove 3\n  orphan-cleaner hold remove --restore 18",
		"status":               "orphan-cleaner status --runs 20",
		"target":               "orphan-cleaner target check targets.yaml",
		"target apply":         "orphan-cleaner target apply --dir targets --show-sql\n  orphan-cleaner target apply --dir targets",
		"target check":         "orphan-cleaner target check\n  orphan-cleaner target check targets.yaml --json",
		"target list":          "orphan-cleaner target list",
		"target print":         "orphan-cleaner target print targets.yaml --dir targets",
		"bench":                "orphan-cleaner bench --read-only",
		"fleet":                "orphan-cleaner fleet check --fleet fleet.yaml\n  orphan-cleaner fleet run --fleet fleet.yaml",
		"fleet check":          "orphan-cleaner fleet check --fleet fleet.yaml",
		"fleet run":            "orphan-cleaner fleet run --fleet fleet.yaml --json",
		"fleet status":         "orphan-cleaner fleet status --fleet fleet.yaml",
		"fleet serve":          "orphan-cleaner fleet serve --fleet fleet.yaml --interval 1h",
		"fleet approve":        "orphan-cleaner fleet approve 17 --fleet fleet.yaml --yes",
		"fleet pause":          "orphan-cleaner fleet pause --fleet fleet.yaml --reason 'auth-service is down'",
		"fleet resume":         "orphan-cleaner fleet resume --fleet fleet.yaml",
		"fleet migrate":        "orphan-cleaner fleet migrate --fleet fleet.yaml",
		"config":               "orphan-cleaner config\n  orphan-cleaner config --json",
		"version":              "orphan-cleaner version",
		"help":                 "orphan-cleaner help hold add\n  orphan-cleaner help --man > orphan-cleaner.1",
		"completion":           "source <(orphan-cleaner completion bash)\n  orphan-cleaner completion zsh > \"${fpath[1]}/_orphan-cleaner\"\n  cd ~/.config/fish/completions\n  orphan-cleaner completion fish > orphan-cleaner.fish",
	}[command]
}

// helpOfFlag names the variable of a flag where its name does not tell.
func helpOfFlag(flag *kong.Value) string {
	envs := flag.Tag.Envs
	if len(envs) == 0 || strings.TrimPrefix(envs[0], settingPrefix) == strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_")) {
		return flag.Help
	}
	return strings.TrimSuffix(flag.Help, ".") + " ($" + envs[0] + ")."
}

// environmentRule stands once in a help, in place of a name beside each flag.
const environmentRule = "In the environment: DATABASE_… and AUTH_SERVICE_… as the flag, any other as\n" +
	"ORPHAN_CLEANER_RETENTION=30d for --retention=30d. See: orphan-cleaner config"

// helpWithExample is kong's help and, at its end, how to set a flag in the environment
// and an example of the command.
func helpWithExample(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	if command := ctx.Selected(); command != nil && slices.ContainsFunc(command.Flags, func(f *kong.Flag) bool { return len(f.Envs) > 0 }) {
		fmt.Fprintf(ctx.Stdout, "\n%s\n", environmentRule)
	}
	var words []string
	for _, path := range ctx.Path {
		if path.Command != nil {
			words = append(words, path.Command.Name)
		}
	}
	if example := exampleOf(strings.Join(words, " ")); example != "" {
		fmt.Fprintf(ctx.Stdout, "\nExample:\n  %s\n", example)
	}
	return nil
}
