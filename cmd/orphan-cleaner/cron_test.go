package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The lines of the cron file, and those that the help and the page about deployment
// show, run in the environment that cron gives them, as a user who owns no directory:
// a run is made, a prune is made, and each leaves its log with logger.
func TestCronLines(t *testing.T) {
	t.Parallel()
	file := readFile(t, "../../deploy/cron/orphan-cleaner")
	settings := regexp.MustCompile(`(?m)^([A-Z_]+)=(.*)$`).FindAllStringSubmatch(file, -1)
	entry := regexp.MustCompile(`(?m)^\s*(?:@daily|(?:\S+ +){4}\S+) +(?:orphan-cleaner(?:-migrator)? +)?(\S.*orphan-cleaner .*\| logger .*)$`)
	entries := entry.FindAllStringSubmatch(file, -1)
	if len(entries) != 2 || len(settings) < 3 {
		t.Fatalf("read %d lines and %d settings of the cron file", len(entries), len(settings))
	}
	for _, shown := range entries {
		if !strings.Contains(page(t, "docs/deployment.md"), shown[1]) {
			t.Errorf("docs/deployment.md does not show: %s", shown[1])
		}
	}
	for _, command := range []string{"run", "prune"} {
		entries = append(entries, entry.FindAllStringSubmatch(program(t, nil, command, "--help").stdout, -1)...)
	}
	if len(entries) != 4 {
		t.Fatalf("the help shows %d lines for cron", len(entries)-2)
	}
	w := newWorld(t, 300, 15)
	bin, log := installed(t), filepath.Join(t.TempDir(), "journal")
	logger := "#!/bin/sh\necho \"$*\" >> " + log + "\nexec cat >> " + log + "\n"
	if err := os.WriteFile(filepath.Join(bin, "logger"), []byte(logger), 0o755); err != nil {
		t.Fatal(err)
	}
	url := configuration(t, w.URL+"\n")
	here := strings.NewReplacer("/usr/local/bin", bin, "/usr/bin/orphan-cleaner", bin+"/orphan-cleaner", "/etc/orphan-cleaner/database-url", url, "/etc/orphan-cleaner/migrator-url", url,
		"http://auth-service:9080", w.auth.URL(), "/var/lib/orphan-cleaner/", t.TempDir()+"/", "| logger", "| "+bin+"/logger")
	for i, one := range entries {
		cmd := exec.Command("env", "-i", "PATH=/usr/bin:/bin", "HOME=/", "LOGNAME=orphan-cleaner", "SHELL=/bin/sh")
		if i < 2 { // the settings at the head of the file are for its lines
			for _, s := range settings {
				cmd.Args = append(cmd.Args, s[1]+"="+here.Replace(s[2]))
			}
		} else { // a crontab's own head, as the page about settings has it
			cmd.Args = append(cmd.Args, w.env...)
		}
		cmd.Args = append(cmd.Args, "sh", "-c", here.Replace(one[1]))
		cmd.Dir = "/"
		before := w.Count("orphan_cleaner.runs")
		if err := os.RemoveAll(log); err != nil {
			t.Fatal(err)
		}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", one[1], err, out)
		}
		journal := readFile(t, log)
		ran := strings.Contains(one[1], "cleaner run")
		if made := w.Count("orphan_cleaner.runs") - before; ran && made != 1 || !strings.HasPrefix(journal, "-t orphan-cleaner\n") ||
			ran && !strings.Contains(journal, "INFO orphan_cleaner: Cleaned ") || !ran && !strings.Contains(journal, "freed ") {
			t.Errorf("%s: %d runs\n%s", one[1], made, journal)
		}
	}
}
