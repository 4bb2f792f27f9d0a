package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
	dto "github.com/prometheus/client_model/go"
)

// Outlets are where the result of a run is told. An empty one is none.
type Outlets struct {
	// Textfile is a file for node_exporter's textfile collector.
	Textfile string
	// Pushgateway is the URL of a Prometheus Pushgateway, basic
	// authentication in it if need be.
	Pushgateway string
	// Healthcheck is a URL in the manner of healthchecks.io.
	Healthcheck string
}

// Check refuses what is not a URL. Its errors never repeat the value: it is a
// secret, or holds one.
func (o Outlets) Check() error {
	if o.Textfile != "" && !strings.HasSuffix(o.Textfile, ".prom") {
		return errors.New("ORPHAN_CLEANER_METRICS_TEXTFILE names a file that node_exporter does not read: write a name that ends in .prom")
	}
	for _, u := range []struct{ name, value string }{
		{"ORPHAN_CLEANER_PUSHGATEWAY_URL", o.Pushgateway}, {"ORPHAN_CLEANER_HEALTHCHECK_URL", o.Healthcheck},
	} {
		if u.value == "" {
			continue
		}
		parsed, err := url.Parse(u.value)
		if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
			return fmt.Errorf("%s is not a URL; write it as http://host:9091 or https://host/path", u.name)
		}
	}
	return nil
}

// Reporter tells how runs go. Nothing that it does can fail a run or keep it
// for longer than reportLimit: whatever goes wrong is a line in the log.
type Reporter struct {
	outlets  Outlets
	gatherer prometheus.Gatherer
	instance string
	log      *slog.Logger
	client   httpDoer

	started sync.WaitGroup
}

// reportLimit bounds telling the end of a run, after it, and pingLimit each call,
// the one at the start beside the run. Reading the metrics of one run takes up to
// oneRunLimit three times of the former.
const (
	reportLimit = 3 * time.Second
	pingLimit   = 2 * time.Second
)

// pushJob is the job that the Pushgateway shows.
const pushJob = "orphan_cleaner"

// NewReporter returns one for outlets that were checked. The instance is how the
// Pushgateway tells hosts apart.
func NewReporter(outlets Outlets, gatherer prometheus.Gatherer, instance string, log *slog.Logger) *Reporter {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	return &Reporter{outlets: outlets, gatherer: gatherer, instance: instance, log: log, client: httpDoer{&http.Client{Transport: transport}}}
}

// Began tells that a run has begun, and does not wait for it.
func (r *Reporter) Began(ctx context.Context) {
	if r.outlets.Healthcheck == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingLimit)
	r.started.Go(func() {
		defer cancel()
		r.warn("healthcheck", r.ping(ctx, "start", ""))
	})
}

// Ended tells how the run ended: its exit status and one line. It is told also
// when the context has ended.
func (r *Reporter) Ended(ctx context.Context, status int, line string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportLimit)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		if r.outlets.Healthcheck == "" {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, pingLimit)
		defer cancel()
		// In order: an end that arrives before its start would be taken for the
		// end of the run before. The start has given up by the time that this one does.
		r.started.Wait()
		path := ""
		if status != 0 {
			path = strconv.Itoa(status)
		}
		r.warn("healthcheck", r.ping(ctx, path, line))
	})
	all.Go(func() { r.metrics(ctx) })
	all.Wait()
}

// metrics writes the file and pushes, both from one reading.
func (r *Reporter) metrics(ctx context.Context) {
	if r.outlets.Textfile == "" && r.outlets.Pushgateway == "" {
		return
	}
	families, err := r.gatherer.Gather()
	if err != nil {
		r.warn("metrics", err)
		return
	}
	gathered := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
	if r.outlets.Textfile != "" {
		r.warn("textfile", prometheus.WriteToTextfile(r.outlets.Textfile, gathered))
	}
	if r.outlets.Pushgateway != "" {
		r.warn("pushgateway", r.push(ctx, gathered))
	}
}

// push replaces what the run before pushed.
func (r *Reporter) push(ctx context.Context, gathered prometheus.Gatherer) error {
	to, err := url.Parse(r.outlets.Pushgateway)
	if err != nil {
		return errors.New("not a URL")
	}
	user := to.User
	to.User = nil
	pusher := push.New(to.String(), pushJob).Grouping("instance", r.instance).Gatherer(gathered).Client(r.client)
	if user != nil {
		password, _ := user.Password()
		pusher.BasicAuth(user.Username(), password)
	}
	return pusher.PushContext(ctx)
}

func (r *Reporter) ping(ctx context.Context, path, line string) error {
	to, err := url.Parse(r.outlets.Healthcheck)
	if err != nil {
		return errors.New("not a URL")
	}
	if path != "" {
		to = to.JoinPath(path)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(line))
	if err != nil {
		return errors.New("not a URL")
	}
	request.Header.Set("Content-Type", "text/plain; charset=utf-8")
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func (r *Reporter) warn(to string, err error) {
	if err != nil {
		r.log.Warn("Telling how the run went failed; the run itself is not touched by it", "to", to, "error", err)
	}
}

// httpDoer leaves the URL out of errors, which may be secret, and takes any
// status but 2xx for one. What the server says is read in part only.
type httpDoer struct{ client *http.Client }

// maxReply bounds what is read of an answer, in bytes.
const maxReply = 4 << 10

func (d httpDoer) Do(request *http.Request) (*http.Response, error) {
	response, err := d.client.Do(request) //nolint:gosec // where to is what the user has set
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return nil, failed.Err
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		_ = response.Body.Close()
		return nil, fmt.Errorf("the server answers %s", response.Status)
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxReply), response.Body}
	return response, nil
}
