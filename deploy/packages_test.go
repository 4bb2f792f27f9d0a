package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The .deb and the .rpm hold the program, the units that start it, its user, manual and
// completion; made twice they are the same.
func TestPackages(t *testing.T) {
	t.Parallel()
	nfpm := os.Getenv("ORPHAN_CLEANER_TEST_NFPM")
	if nfpm == "" {
		t.Skip("ORPHAN_CLEANER_TEST_NFPM is not set; make test does")
	}
	do := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1750000000", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	work := t.TempDir()
	program, manual := filepath.Join(work, "orphan-cleaner"), filepath.Join(work, "manual")
	if err := os.MkdirAll(filepath.Join(manual, "completion"), 0o755); err != nil {
		t.Fatal(err)
	}
	do("go", "build", "-trimpath", "-ldflags", "-X main.version=v1.2.3", "-o", program, "./cmd/orphan-cleaner")
	for path, args := range map[string][]string{
		"orphan-cleaner.1": {"help", "--man"}, "completion/bash": {"completion", "bash"}, "completion/zsh": {"completion", "zsh"}, "completion/fish": {"completion", "fish"},
	} {
		if err := os.WriteFile(filepath.Join(manual, path), []byte(do(program, args...)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made := map[string][]byte{}
	for _, out := range []string{"one", "two"} {
		dir := filepath.Join(work, out)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		do("tools/scripts/package.sh", "v1.2.3", "amd64", program, manual, dir, nfpm)
		packages, err := filepath.Glob(dir + "/*")
		if err != nil || len(packages) != 2 {
			t.Fatalf("made %v, %v", packages, err)
		}
		for _, path := range packages {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if before, again := made[filepath.Base(path)]; again && !bytes.Equal(before, text) {
				t.Errorf("%s is not the same the second time", filepath.Base(path))
			}
			made[filepath.Base(path)] = text
		}
	}
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("there is no dpkg-deb here")
	}
	// In a clone without tags the version is a commit, and no version of dpkg.
	untagged := filepath.Join(work, "untagged")
	if err := os.Mkdir(untagged, 0o755); err != nil {
		t.Fatal(err)
	}
	do("tools/scripts/package.sh", "dd0803f-dirty", "amd64", program, manual, untagged, nfpm)
	debs, err := filepath.Glob(untagged + "/*.deb")
	if err != nil || len(debs) != 1 {
		t.Fatalf("made %v, %v", debs, err)
	}
	do("dpkg", "--validate-version", strings.TrimSpace(do("dpkg-deb", "--field", debs[0], "Version")))

	deb, root := filepath.Join(work, "one", "orphan-cleaner_1.2.3_amd64.deb"), filepath.Join(work, "root")
	do("dpkg-deb", "--extract", deb, root)
	list := do("dpkg-deb", "--contents", deb)
	for _, path := range []string{
		"/usr/bin/orphan-cleaner", "/usr/lib/sysusers.d/orphan-cleaner.conf", "/etc/orphan-cleaner/env", "/usr/share/man/man1/orphan-cleaner.1.gz",
		"/usr/share/bash-completion/completions/orphan-cleaner", "/usr/share/zsh/vendor-completions/_orphan-cleaner",
		"/usr/share/fish/vendor_completions.d/orphan-cleaner.fish", "/usr/share/orphan-cleaner/roles.sql", "/usr/share/orphan-cleaner/runbook/connections.sql",
		"/usr/lib/systemd/system/orphan-cleaner-.service.d/confined.conf",
	} {
		if !strings.Contains(list, "root/root") || !strings.Contains(list, " ."+path+"\n") {
			t.Errorf("the package has no %s of root's:\n%s", path, list)
		}
	}
	for _, unit := range []string{"orphan-cleaner", "orphan-cleaner-prune", "orphan-cleaner-check", "orphan-cleaner-connections", "orphan-cleaner-report"} {
		text := read(t, filepath.Join(root, "usr/lib/systemd/system", unit+".service"))
		if !strings.Contains(text, "\nExecStart=/usr/bin/orphan-cleaner ") || strings.Contains(text, "/usr/local") {
			t.Errorf("%s does not start the package's program:\n%s", unit, text)
		}
		read(t, filepath.Join(root, "usr/lib/systemd/system", unit+".timer"))
	}
	if said := do(filepath.Join(root, "usr/bin/orphan-cleaner"), "version"); said != "v1.2.3\n" {
		t.Errorf("the program says %q", said)
	}
	if config := do("dpkg-deb", "--info", deb, "conffiles"); !strings.Contains(config, "/etc/orphan-cleaner/env") {
		t.Errorf("an upgrade would write over the settings: %s", config)
	}
}
