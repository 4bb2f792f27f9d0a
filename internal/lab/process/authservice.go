package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// AuthService is a running `lab auth-service`.
type AuthService struct {
	URL string

	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// StartAuthService starts `lab auth-service` with more arguments; users writes the
// ids of the living, one a line. It is in a session of its own: a Ctrl-C on the
// terminal does not reach it.
func StartAuthService(ctx context.Context, lab string, args []string, users func(io.Writer) error) (a *AuthService, err error) {
	a = &AuthService{cmd: Command(context.WithoutCancel(ctx), nil, lab, append([]string{"auth-service"}, args...)...)}
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	a.cmd.Stderr = &a.stderr
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.stdout = bufio.NewReader(stdout)
	if err := a.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting auth-service: %w", err)
	}
	err = users(a.stdin)
	if err == nil {
		a.URL, err = a.say("") // an empty line ends the list
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("telling auth-service its users: %w", err), a.Stop())
	}
	return a, nil
}

// say writes a line and reads the one that comes back.
func (a *AuthService) say(line string) (string, error) {
	if _, err := io.WriteString(a.stdin, line+"\n"); err != nil {
		return "", err
	}
	text, err := a.stdout.ReadString('\n')
	return strings.TrimSpace(text), err
}

// Calls is how many calls of GetUsersByIds came since the last time.
func (a *AuthService) Calls() (int, error) {
	text, err := a.say("calls")
	if err != nil {
		return 0, fmt.Errorf("counting the calls: %w", err)
	}
	return strconv.Atoi(text)
}

// Stop ends it.
func (a *AuthService) Stop() error {
	err := errors.Join(a.stdin.Close(), a.cmd.Process.Signal(syscall.SIGTERM), a.cmd.Wait())
	if err != nil {
		return fmt.Errorf("ending auth-service: %w\n%s", err, bytes.TrimSpace(a.stderr.Bytes()))
	}
	return nil
}

// Detach leaves it running, if it was started with --stay, and returns the shell
// command that ends it.
func (a *AuthService) Detach() (stopCommand string, err error) {
	stopCommand = "kill " + strconv.Itoa(a.cmd.Process.Pid)
	return stopCommand, errors.Join(a.stdin.Close(), a.cmd.Process.Release())
}
