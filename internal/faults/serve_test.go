package faults

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// serve starts `serve` with its metrics at an address.
func (w *world) serving(address string) *process {
	w.t.Helper()
	return spawn(w.t, w.settings(), w.program, "serve", "--metrics-addr="+address, "--batch-size=20", fmt.Sprintf("--chunk-rows=%d", chunkRows))
}

// portTaken: a runner that nobody could watch does not run. With the port free it
// does, and its metrics say so.
func portTaken(w *world) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	address := other.Addr().String()
	e := w.serving(address).wait()
	w.note.exit, w.note.state, w.note.shows = "2", "no run", "choose another with --metrics-addr"
	if e.status != 2 || !strings.Contains(e.stderr, w.note.shows) || !strings.Contains(e.stderr, "address already in use") {
		w.t.Errorf("want exit status 2 and why: %s", e)
	}
	if runs := w.count(`orphan_cleaner.runs`); runs != 1 {
		w.t.Errorf("%d runs on record, want the one of before", runs)
	}
	w.sound()
	w.over()
	w.amount(nothing)
	w.holds("I7")

	if err := other.Close(); err != nil {
		w.t.Fatal(err)
	}
	p := w.serving(address)
	p.says("Cleaned 21 orphaned members")
	eventually(w.t, "the metrics count the run", func() bool {
		return strings.Contains(scrape(w, address), `orphan_cleaner_runs_total{kind="clean",state="succeeded"} 1`)
	})
	p.signal(syscall.SIGTERM)
	if e := p.wait(); e.status != 0 {
		w.t.Errorf("serve ended: %s", e)
	}
	w.sound()
	w.over()
	w.amount(all)
	w.converges()
}

// scrape is what a Prometheus would read; nothing while nobody answers.
func scrape(w *world, address string) string {
	w.t.Helper()
	return get(w, "http://"+address+"/metrics")
}

// get is what a browser would read; nothing while nobody answers.
func get(w *world, url string) string {
	w.t.Helper()
	reply, err := http.Get(url)
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := reply.Body.Close(); err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// pushgatewayDown: nobody there, and one that takes the connection and is silent.
// The run is what counts.
func pushgatewayDown(w *world) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	e := w.run("--pushgateway-url=http://" + silent.Addr().String())
	w.expect(e, want{exit: 0, state: "succeeded", shows: "to=pushgateway", gone: all})
	w.bounded()

	if err := silent.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.die(w.living[5:8]...)
	e = w.run("--pushgateway-url=http://" + silent.Addr().String())
	w.expect(e, want{exit: 0, state: "succeeded", shows: "to=pushgateway", gone: all})
	w.converges()
}
