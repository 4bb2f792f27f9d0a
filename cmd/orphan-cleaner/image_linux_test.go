package main

import (
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// The image's last stage is the program and a file of certificates. In a root
// directory with just these, as the image's user, the program works: against the
// database over TCP, and against auth-service over TLS, which takes the certificates.
func TestImage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	build, last, ok := strings.Cut(string(text), "\nFROM scratch\n")
	if !ok {
		t.Fatal("the image is not from scratch")
	}
	part := func(where, pattern string) []string {
		t.Helper()
		found := regexp.MustCompile(`(?m)` + pattern).FindStringSubmatch(where)
		if found == nil {
			t.Fatalf("the Dockerfile has no %s", pattern)
		}
		return found[1:]
	}
	user := part(last, `^USER (\d+):(\d+)$`)
	uid, err := strconv.ParseUint(user[0], 10, 32)
	if err != nil || uid == 0 {
		t.Fatalf("the image's user is %v", user)
	}
	certificates := part(last, `^COPY --from=build /etc/ssl/certs/ca-certificates.crt (\S+)$`)[0]
	program := part(last, `^COPY --from=build /out/orphan-cleaner (\S+)$`)[0]
	if entry := part(last, `^ENTRYPOINT \["(\S+)"\]$`)[0]; entry != program {
		t.Errorf("the image starts %s, the program is %s", entry, program)
	}
	if n := strings.Count(last, "\nCOPY "); n != 2 {
		t.Errorf("%d files are copied, want 2", n)
	}
	flags := part(build, `CGO_ENABLED=0 GOOS=\$TARGETOS GOARCH=\$TARGETARCH \\\n\s+go build (.*) -ldflags "(.*) -X main.version=\$VERSION" -o /out/orphan-cleaner ./cmd/orphan-cleaner$`)

	root := openTemp(t)
	for _, path := range []string{program, certificates} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"build"}, strings.Fields(flags[0])...)
	args = append(args, "-ldflags", flags[1]+" -X main.version=v1.2.3", "-o", filepath.Join(root, program), ".")
	compile := exec.Command("go", args...)
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}

	ca, err := authfake.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue("127.0.0.1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := cert.TLS()
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authfake.Start(authfake.Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(auth.Stop)
	w := newWorld(t, 100, 3)
	auth.Add(w.users(t, "deleted_at IS NULL")...)

	inside := func(args ...string) (string, error) {
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = "/", []string{"DATABASE_URL=" + w.URL, "AUTH_SERVICE_URL=" + auth.URL()}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		if os.Getuid() == 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
		} else {
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(uid), HostID: os.Getuid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	version, err := inside("version")
	if err != nil && os.Getuid() != 0 {
		t.Skipf("this needs root, or a machine that lets users have namespaces: %v", err)
	}
	if err != nil || version != "v1.2.3\n" {
		t.Fatalf("version: %v\n%s", err, version)
	}
	if out, err := inside("check"); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("check without certificates: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(root, certificates), ca.PEM, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := inside("check"); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	if out, err := inside("run"); err != nil {
		t.Errorf("run: %v\n%s", err, out)
	}
	if n := w.Count("conversation_members WHERE user_id = ANY ($1)", w.dead); n != 0 {
		t.Errorf("%d members of dead users are left", n)
	}
	left := 0
	if err := filepath.WalkDir(root, func(_ string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			left++
		}
		return err
	}); err != nil || left != 2 {
		t.Errorf("%d files are in the image, %v", left, err)
	}
}
