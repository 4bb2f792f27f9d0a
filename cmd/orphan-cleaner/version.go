package main

import (
	"fmt"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "dev"

// VersionFlag is --version. kong's own is done even where it could not write.
type VersionFlag bool

// BeforeReset prints the version, and nothing more is done.
func (VersionFlag) BeforeReset(app *kong.Kong) error {
	_, err := fmt.Fprintln(app.Stdout, version)
	if err == nil {
		app.Exit(exitDone)
	}
	return err
}

// VersionCmd is `version`.
type VersionCmd struct{ JSONFlag }

// Run prints the version alone on a line.
func (cmd VersionCmd) Run(s *streams) error {
	return cmd.say(s, map[string]any{"version": version}, "%s", version)
}
