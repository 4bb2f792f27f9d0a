// Package pgtemp runs a throw-away PostgreSQL cluster from the server programs
// found on this machine, for the demo, the benchmark and the tests.
//
// A cluster lives in one directory, listens on 127.0.0.1 and on a socket in
// that directory, trusts whoever connects, and has one superuser, postgres. It
// never touches a cluster that is installed on the machine.
//
// # It does not outlive the program
//
// [Cluster.Stop] stops the server and removes the directory. A program that is
// killed cannot call Stop, so a small shell process, the reaper, is started
// before anything else. It reads from a pipe whose only writing end is held by
// this program; when the program dies, of whatever, kill -9 included, the
// kernel closes that end, and the reaper stops the server and removes the
// directory. Linux has Pdeathsig for this, but it fires when the thread that
// started the child ends, and the Go runtime ends threads as it likes.
//
// The server and the reaper run in sessions of their own, so that a Ctrl-C on
// the terminal reaches only the program, which then stops the server in order.
//
// # Root
//
// initdb and postgres refuse to run as root. As root, Start runs both as the
// user postgres where there is one, else as nobody, and gives that user the
// directory. Linux and macOS are supported, with PostgreSQL 15 or newer.
package pgtemp
