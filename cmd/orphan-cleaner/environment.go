package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/nova-social/orphan-cleaner/internal/suggest"
)

// Every variable with the first prefix is a setting, except those of the tests,
// which the program does not read.
const (
	settingPrefix = "ORPHAN_CLEANER_"
	testPrefix    = settingPrefix + "TEST_"
)

// serviceLink matches what Kubernetes adds to each pod for a Service that is named
// orphan-cleaner or orphan-cleaner-something.
var serviceLink = regexp.MustCompile(`^[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|_PORT=(tcp|udp|sctp)://`)

// checkEnvironment refuses variables that look like a setting and are none, in whatever
// case: a misspelt limit must not leave the default in force.
func checkEnvironment(kctx *kong.Context, environ []string) error {
	if needsNoSettings(kctx.Selected().Name) {
		return nil
	}
	known := settingNames(kctx.Model)
	var wrong []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		meant := strings.ToUpper(name)
		if !strings.HasPrefix(meant, settingPrefix) || strings.HasPrefix(name, testPrefix) || slices.Contains(known, name) || serviceLink.MatchString(entry) {
			continue
		}
		if near := suggest.Nearest(meant, known); near != "" {
			name += " (did you mean " + near + "?)"
		}
		wrong = append(wrong, name)
	}
	if len(wrong) == 0 {
		return checkNames(kctx)
	}
	slices.Sort(wrong)
	return fmt.Errorf("%w: the environment has settings that do not exist and would have no effect: %s; correct or unset them, see: orphan-cleaner help config",
		errUsage, strings.Join(wrong, ", "))
}

// checkNames refuses one setting with two values, under its name and an older one: only the
// first would count.
func checkNames(kctx *kong.Context) error {
	for _, flag := range kctx.Selected().Flags {
		if len(flag.Envs) < 2 {
			continue
		}
		value, is := os.LookupEnv(flag.Envs[0])
		if older, too := os.LookupEnv(flag.Envs[1]); is && too && value != older {
			return fmt.Errorf("%w: %s and %s are one setting with two values: unset %s", errUsage, flag.Envs[0], flag.Envs[1], flag.Envs[1])
		}
	}
	return nil
}

// needsNoSettings says that a command works whatever the settings are.
func needsNoSettings(command string) bool {
	return command == "help" || command == "version" || command == "completion"
}

// settingNames are the names in the environment of every command's flags, sorted.
func settingNames(model *kong.Application) []string {
	names := map[string]bool{}
	for _, leaf := range append(model.Leaves(false), model.Node) {
		for _, flag := range leaf.Flags {
			for _, name := range flag.Envs {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
