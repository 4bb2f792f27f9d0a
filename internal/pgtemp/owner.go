package pgtemp

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner is the user that the server runs as. The zero value is the user that
// this program runs as.
type owner struct {
	credential *syscall.Credential
}

// serverOwner returns whom the server is to run as: as root postgres or else
// nobody, since initdb and postgres refuse root; otherwise whoever we are.
func serverOwner() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return owner{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return owner{}, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres " +
		"nor a user nobody to run it as: run as an ordinary user, or `useradd --system postgres`")
}

// attr puts a process in a session of its own, away from the terminal's
// signals, as this user. The session's id, and its process group's, is the pid.
func (o owner) attr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: o.credential}
}

// give hands path to this user.
func (o owner) give(path string) error {
	if o.credential == nil {
		return nil
	}
	return os.Chown(path, int(o.credential.Uid), int(o.credential.Gid))
}

// reaches returns nil when this user may enter dir: every directory above a
// temporary directory must be open to it, which is not so below /root.
func (o owner) reaches(dir string) error {
	if o.credential == nil {
		return nil
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		search := os.FileMode(0o001)
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			switch {
			case stat.Uid == o.credential.Uid:
				search = 0o100
			case stat.Gid == o.credential.Gid:
				search = 0o010
			}
		}
		if info.Mode()&search == 0 {
			return fmt.Errorf("user %d, which runs the server, may not enter %s (%s)", o.credential.Uid, dir, info.Mode())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
