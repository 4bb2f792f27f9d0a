package page_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/page"
	"github.com/nova-social/orphan-cleaner/internal/status"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

const (
	// axeEnv names the file axe.min.js, which tools/scripts/browser.sh brings.
	axeEnv = "ORPHAN_CLEANER_TEST_AXE"
	// shotsEnv is the folder to which pictures are written, for docs/.
	shotsEnv = "ORPHAN_CLEANER_TEST_SCREENSHOTS"
)

// browser is a headless Chromium, which ends with the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	program := testdb.Needed(t, "run: make browser", "chromium-headless-shell", "chromium")
	// It must be the same page on each machine, and no sandbox works as root in a container.
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.WSURLReadTimeout(2*time.Minute), chromedp.UserDataDir(t.TempDir()), chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("lang", "en"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancelAllocator)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	t.Cleanup(cancelBrowser)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	return ctx
}

// screen is what the page is looked at with.
type screen struct {
	name          string
	width, height int64
	dark          bool
	lang          string
}

// Each page opens on each of its screens, in light and dark, without a word on the
// console and without a request to elsewhere; axe-core finds nothing in it; nothing is
// wider than a phone; and what can be scrolled or followed is reached by the tab key.
func TestInBrowser(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile(axeFile(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx := browser(t)
	d := newHistory(t)
	id := testdb.One[string](d, "SELECT max(run_id)::text FROM orphan_cleaner.runs WHERE members_deleted > 0")
	desktop, phone := screen{"desktop", 1280, 900, false, "en"}, screen{"phone", 390, 844, false, "en"}
	dark, mandarin := screen{"dark", 1280, 900, true, "en"}, screen{"zh", 390, 844, true, "zh"}
	on := func(name, url string, screens ...screen) {
		t.Helper()
		for _, s := range screens {
			look(ctx, t, string(axe), name, url, s)
		}
	}
	healthy := site(t, d)
	on("", healthy.URL+"/", desktop, phone, dark, mandarin)
	on("-run", healthy.URL+"/runs/"+id, desktop, phone, dark)
	on("-report", reportFile(t, d), desktop, dark)
	on("-missing", healthy.URL+"/runs/0", phone)
	d.Psql("-f", "testdata/refused.sql")
	d.Exec("INSERT INTO orphan_cleaner.pauses (reason, paused_by) VALUES ('an incident', 'alice')")
	refused := site(t, d)
	on("-refused", refused.URL+"/", desktop, mandarin)
	on("-refused-run", refused.URL+"/runs/"+last(d), phone)
}

func look(ctx context.Context, t *testing.T, axe, name, url string, s screen) {
	t.Helper()
	if strings.HasPrefix(url, "http") && s.lang != "en" {
		url += "?lang=" + s.lang
	}
	ctx, cancel := chromedp.NewContext(ctx)
	defer cancel()
	heard := listen(ctx, t)
	scheme := map[bool]string{false: "light", true: "dark"}[s.dark]
	if err := chromedp.Do(ctx,
		chromedp.EmulateViewport(s.width, s.height),
		chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
			_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})
			return err
		}),
		chromedp.Navigate(url),
	); err != nil {
		t.Fatalf("%s on %s: %v", url, s.name, err)
	}
	if name == "-report" {
		pdf, err := chromedp.Run(ctx, chromedp.PrintToPDF())
		if err != nil || !bytes.HasPrefix(pdf, []byte("%PDF-")) {
			t.Errorf("the report as a PDF is %.20q: %v", pdf, err)
		}
	}
	script := func(text string) string {
		t.Helper()
		said, err := chromedp.Run(ctx, chromedp.Evaluate[string](text, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatalf("%s on %s: %v", url, s.name, err)
		}
		return said
	}
	wide := script(`[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .skip, details, svg") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)).join("\n")`)
	script(`document.querySelectorAll("details").forEach(d => d.open = true); ""`)
	script(axe + `; ""`)
	found := script(`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations.map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html + " " + n.failureSummary)])))`)
	script(`document.querySelectorAll("details").forEach(d => d.open = false); ""`)
	var violations []any
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Errorf("page%s on %s: axe-core: %v", name, s.name, v)
	}
	if wide != "" {
		t.Errorf("page%s on %s: wider than the screen:\n%s", name, s.name, wide)
	}
	if name == "" && s.name == "phone" {
		stops := strings.Split(tabbed(ctx, t, script), "\n")
		if want := script(`[...document.querySelectorAll("a, summary, .scroll")].filter(e => e.checkVisibility()).length + ""`); fmt.Sprint(len(stops)) != want || !strings.HasPrefix(stops[0], `<a class="skip"`) {
			t.Errorf("the tab key reaches %d of %s, first %s", len(stops), want, stops[0])
		}
	}
	for _, line := range heard() {
		if name != "-missing" || !strings.Contains(line, "404") {
			t.Errorf("page%s on %s: %s", name, s.name, line)
		}
	}
	shoot(ctx, t, name, s)
}

// tabbed are the elements that the tab key leads to, one after another, until it leaves
// the page, a line each.
func tabbed(ctx context.Context, t *testing.T, script func(string) string) string {
	t.Helper()
	var stops []string
	for len(stops) < 500 {
		if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
			t.Fatal(err)
		}
		at := script(`document.activeElement.outerHTML.replace(/\s+/g, " ").slice(0, 80)`)
		if strings.HasPrefix(at, "<body") || len(stops) > 0 && at == stops[0] {
			break
		}
		stops = append(stops, at)
	}
	return strings.Join(stops, "\n")
}

// listen returns what was said on the console, what went wrong, and what was asked of
// other hosts, so far.
func listen(ctx context.Context, t *testing.T) func() []string {
	t.Helper()
	var mu sync.Mutex
	var heard []string
	err := chromedp.Listen(ctx, func(event any) {
		line := ""
		switch e := event.(type) {
		case *log.EventEntryAdded:
			line = fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL)
		case *runtime.EventConsoleAPICalled:
			line = fmt.Sprintf("console: %s %v", e.Type, e.Args)
		case *runtime.EventExceptionThrown:
			line = fmt.Sprintf("exception: %+v", e.ExceptionDetails)
		case *network.EventLoadingFailed:
			line = "not loaded: " + e.ErrorText
		case *network.EventRequestWillBeSent:
			if url := e.Request.URL; !strings.HasPrefix(url, "http://127.0.0.1:") && !strings.HasPrefix(url, "file:///") {
				line = "asks " + url
			}
		}
		if line != "" {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, line)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return heard
	}
}

// shoot writes a picture, where that is asked for and docs/ shows it.
func shoot(ctx context.Context, t *testing.T, name string, s screen) {
	t.Helper()
	dir := os.Getenv(shotsEnv)
	shown := map[string]bool{"/desktop": true, "/phone": true, "/dark": true, "-refused/zh": true, "-run/desktop": true, "-report/desktop": true}
	if dir == "" || !shown[name+"/"+s.name] {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "page"+name+"-"+s.name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// reportFile is the report of the last month as a file.
func reportFile(t *testing.T, d *testdb.DB) string {
	t.Helper()
	q := db.New(d.Pool)
	until := time.Now().UTC()
	since := until.AddDate(0, -1, 0)
	days, err := q.ReportDays(t.Context(), db.ReportDaysParams{Since: since, Until: until})
	if err != nil {
		t.Fatal(err)
	}
	sizes, err := q.ReportSizes(t.Context(), db.ReportSizesParams{Since: since, Until: until})
	if err != nil {
		t.Fatal(err)
	}
	blocked, err := status.ReadBlocked(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "report.html")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	r := page.Report{Since: since, Until: until, Days: days[:len(days)-1], Total: days[len(days)-1], Sizes: sizes, Blocked: blocked}
	if err := r.Write(file, "en", "v1.0.0"); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

// axeFile is where axe.min.js is; without it the test is skipped, but not in CI.
func axeFile(t *testing.T) string {
	t.Helper()
	path := os.Getenv(axeEnv)
	if _, err := os.Stat(path); err != nil {
		const missing = axeEnv + " names no axe.min.js: run: make browser"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return path
}
