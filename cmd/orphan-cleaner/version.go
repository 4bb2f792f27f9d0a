package main

// version is set by the build.
var version = "dev"

// VersionCmd is `version`.
type VersionCmd struct{ JSONFlag }

// Run prints the version alone on a line.
func (cmd VersionCmd) Run(s *streams) error {
	return cmd.say(s, map[string]any{"version": version}, "%s", version)
}
