package page_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// With several targets the overview says what the last run did in each.
func TestOverviewOfTargets(t *testing.T) {
	t.Parallel()
	db := newHistory(t)
	if strings.Contains(get(t, site(t, db).URL+"/"), "Targets") {
		t.Error("a table of one target")
	}
	db.Targets("likes")
	db.Exec(`INSERT INTO orphan_cleaner.run_targets (run_id, target, rows_total, rows_due, rows_deleted, rows_held) SELECT max(run_id), 'likes', 9000, 4321, 4300, 21 FROM orphan_cleaner.runs
		ON CONFLICT (run_id, target) DO UPDATE SET rows_due = excluded.rows_due, rows_deleted = excluded.rows_deleted, rows_held = excluded.rows_held`)
	server := site(t, db)
	wants(t, get(t, server.URL+"/"), "Targets, in the last run", "likes 4,321 4,300 0 21 0 0")
	_, _, mandarin := answer(t, server.URL+"/", "zh")
	wants(t, mandarin, "各目标表，最近一个 run")
}

// The overview has it all, in the language that is asked for; it loads its style and
// its icon and has no script; it names nobody but by ids.
func TestOverview(t *testing.T) {
	t.Parallel()
	db := newHistory(t)
	server := site(t, db)
	english := get(t, server.URL+"/")
	wants(t, english, "healthy last run", "users due by", "Members deleted", "Candidates by due date", "due now", "delete-share-30d",
		"Blocked users: 1", "pins_member_fkey", "SQLSTATE 23503", "Holds: 2", "a lawsuit, until the court decides", "3,996 of 3,996 users",
		testdb.One[uuid.UUID](db, "SELECT md5('user 1')::uuid").String())
	if n := strings.Count(english, "<rect"); n < 4*30 {
		t.Errorf("%d bars in the charts of a month", n)
	}
	for name, bars := range map[string]int{"day": 24, "month": 30, "year": 52} {
		if charts := strings.Count(get(t, server.URL+"/?range="+name), "</title></rect>"); charts != 4*bars {
			t.Errorf("%d bars for a %s, not %d", charts, name, 4*bars)
		}
	}
	for accepted, want := range map[string]string{
		"": "en", "de, fr;q=0.5": "en", "zh-CN,zh;q=0.9,en;q=0.8": "zh", "en;q=0.4, zh-SG;q=0.9": "zh", "*": "en", ";;q=x": "en",
	} {
		_, header, body := answer(t, server.URL+"/", accepted)
		if got := header.Get("Content-Language"); got != want || !strings.Contains(body, `<html lang="`+want+`">`) {
			t.Errorf("%q gets %s, not %s", accepted, got, want)
		}
	}
	_, header, mandarin := answer(t, server.URL+"/?lang=zh&range=day", "en")
	wants(t, mandarin, "正常 上一个 run", "候选用户，按到期日", "保全: 2")
	if !regexp.MustCompile(`href="\./runs/\d+\?lang=zh"`).MatchString(mandarin) || !strings.Contains(mandarin, `href="./?lang=zh&amp;range=year"`) {
		t.Error("its links lead out of the language")
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Vary": "Accept-Language",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	for _, body := range []string{english, mandarin} {
		if found := regexp.MustCompile(`(?i)<script|<style|<form|<button| style=| on\w+=|javascript:|https?://|secret (name|talk)`).FindString(body); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	for _, path := range []string{"/style.css", "/icon.svg"} {
		if code, _, _ := answer(t, server.URL+path, ""); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	for _, path := range []string{"/runs/0", "/runs/99999999", "/runs/x", "/runs/99999999999999999999"} {
		if code, _, body := answer(t, server.URL+path, "zh"); code != http.StatusNotFound || !strings.Contains(body, "没有此编号的 run") {
			t.Errorf("%s: %d\n%s", path, code, body)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s is answered %d", method, response.StatusCode)
		}
	}
}

// Before the first run there is a page, too.
func TestNothingYet(t *testing.T) {
	t.Parallel()
	wants(t, get(t, site(t, testdb.New(t)).URL+"/"), "new no run was made yet", "No candidates.", "None in force.", "Shown once a run has been judged.")
}

// A refusal says what it would delete and how to approve it, unless nobody can.
func TestRefusal(t *testing.T) {
	t.Parallel()
	db := newHistory(t, "refused.sql")
	id := last(db)
	page := get(t, site(t, db).URL+"/")
	wants(t, page, "refused run "+id+" was refused by delete-rows", "100 members are due, limit 50", "Users whose members would be deleted 20",
		"Their members, as of now 100", "Users newly missing, whose clocks would start 10", "orphan-cleaner approve "+id,
		testdb.One[uuid.UUID](db, "SELECT user_id FROM orphan_cleaner.refusals WHERE is_due ORDER BY user_id LIMIT 1").String())
	wants(t, get(t, site(t, db).URL+"/runs/"+id), "What its approval would admit", "100 members are due, limit 50")

	db.Exec("INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) VALUES ($1::bigint, 'Li (dba)', now() + interval '1 day')", id)
	wants(t, get(t, site(t, db).URL+"/"), "Approved by Li (dba) until", "orphan-cleaner approve "+id+" --revoke")
	db.Exec("DELETE FROM orphan_cleaner.approvals")
	db.Exec("UPDATE orphan_cleaner.runs SET breaker = 'canary-alive' WHERE run_id = $1::bigint", id)
	page = get(t, site(t, db).URL+"/")
	wants(t, page, "It cannot be approved: correct what canary-alive doubts.")
	if strings.Contains(words(page), "orphan-cleaner approve") {
		t.Error("it offers an approval that would be refused")
	}
}

// A run's page has its phases, its figures, whose rows it took, and what came back.
func TestRun(t *testing.T) {
	t.Parallel()
	db := newHistory(t)
	server := site(t, db)
	id := testdb.One[string](db, "SELECT max(run_id)::text FROM orphan_cleaner.runs WHERE members_deleted > 0")
	page := get(t, server.URL+"/runs/"+id)
	wants(t, page, "succeeded Run "+id, "verify and judge", "3.0 s", "sweep and finish", "1.0 s", "cleaner-7d9f:1, v1.0.0", "Slowest batch 32 ms",
		"Conversations that lost the most members", testdb.One[uuid.UUID](db, "SELECT md5('conversation 1')::uuid").String(),
		"Restores of what it deleted", "orphan-cleaner restore --run="+id, "delete-rows", "100000")
	deleted := testdb.One[string](db, "SELECT members_deleted::text FROM orphan_cleaner.runs WHERE run_id = $1::bigint", id)
	wants(t, page, "Members deleted "+deleted)
	if !regexp.MustCompile(`href="\.\./runs/\d+">Run \d+</a></th><td class="n">2</td><td class="n">0</td>`).MatchString(page) {
		t.Errorf("the restore of two of its members is not there:\n%s", page)
	}
	if regexp.MustCompile(`secret|token`).MatchString(page) {
		t.Error("the page has what is nobody's business")
	}
	restore := testdb.One[string](db, "SELECT max(run_id)::text FROM orphan_cleaner.runs WHERE kind = 'restore'")
	wants(t, get(t, server.URL+"/runs/"+restore), "a restore", "orphan-cleaner restore --revert="+restore)
}

// Whatever a reason or an error of the database holds, it is shown, on one line, as text.
func TestHostileText(t *testing.T) {
	t.Parallel()
	db := newHistory(t)
	const evil = "<script>alert(1)</script>\x1b[2J\"'\u202egpj & <b>\nWARN"
	db.Exec("UPDATE orphan_cleaner.holds SET reason = $1", evil)
	db.Exec("UPDATE orphan_cleaner.runs SET error = $1, host = $1, version = $1 WHERE state <> 'succeeded'", evil+strings.Repeat("x", 100_000))
	db.Exec("INSERT INTO orphan_cleaner.pauses (reason, paused_by) VALUES ($1, $1)", evil)
	server := site(t, db)
	failed := testdb.One[string](db, "SELECT max(run_id)::text FROM orphan_cleaner.runs WHERE state = 'failed'")
	for _, path := range []string{"/", "/?lang=zh", "/runs/" + failed, `/?lang="><script>&range="><script>`, "/runs/%3Cscript%3E"} {
		_, _, body := answer(t, server.URL+path, "")
		if strings.Contains(body, "<script") || strings.ContainsAny(body, "\x1b\u202e") || strings.Contains(body, "\nWARN") || len(body) > 200_000 {
			t.Errorf("%s: %d bytes\n%.2000s", path, len(body), body)
		}
	}
	wants(t, get(t, server.URL+"/"), `<script>alert(1)</script>\x1b[2J"'\u202egpj & <b>\nWARN`)
}

// While the database is away the page says so, without a part of the password, and
// comes back with it.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	server := siteAt(t, "postgres://runner:open-sesame@127.0.0.1:1/messaging")
	for _, path := range []string{"/", "/runs/1"} {
		code, _, body := answer(t, server.URL+path, "en")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, "orphan-cleaner check") || strings.Contains(body, "sesame") {
			t.Errorf("%s: %d\n%s", path, code, body)
		}
	}
}

// The bars of a chart are the sums of the runs in them, whatever happened to some.
func TestSpans(t *testing.T) {
	t.Parallel()
	d := newHistory(t)
	// Runs that were given up, and so have no sums, and a restore: each is the last of an hour.
	d.Exec("UPDATE orphan_cleaner.runs SET state = 'abandoned', totals = NULL WHERE members_deleted = 0 AND state <> 'refused' AND (run_id % 300 = 0 OR run_id > (SELECT max(run_id) - 3 FROM orphan_cleaner.runs)) AND run_id < (SELECT max(run_id) FROM orphan_cleaner.runs)")
	d.Exec(`UPDATE orphan_cleaner.runs SET state = 'abandoned', totals = NULL WHERE members_deleted = 0 AND state <> 'refused'
		AND run_id IN (SELECT max(run_id) FROM orphan_cleaner.runs GROUP BY date_trunc('day', started_at, 'UTC')) AND started_at < now() - interval '2 days'`)
	d.Exec("UPDATE orphan_cleaner.runs SET kind = 'restore', users_checked = 0 WHERE run_id = (SELECT max(run_id) - 6 FROM orphan_cleaner.runs)")
	for _, c := range []struct {
		span  time.Duration
		count int32
	}{{time.Hour, 24}, {24 * time.Hour, 30}, {7 * 24 * time.Hour, 52}} {
		rows, err := database.Queries(d.Pool).RunSpans(t.Context(), db.RunSpansParams{Span: c.span, Spans: c.count})
		if err != nil || len(rows) != int(c.count) {
			t.Fatalf("%d rows: %v", len(rows), err)
		}
		var deleted, refused int64
		for i, row := range rows {
			until := row.Since.Add(c.span)
			type sums struct{ deleted, checked, missing int64 }
			var want sums
			const in = " FROM orphan_cleaner.runs WHERE started_at >= $1 AND started_at < $2"
			want.deleted = testdb.One[int64](d, "SELECT coalesce(sum(members_deleted), 0)::bigint"+in, row.Since, until)
			want.checked = testdb.One[int64](d, "SELECT coalesce((array_agg(users_checked ORDER BY run_id DESC) FILTER (WHERE kind = 'clean'))[1], 0)"+in, row.Since, until)
			want.missing = testdb.One[int64](d, "SELECT coalesce((array_agg(users_missing ORDER BY run_id DESC) FILTER (WHERE kind = 'clean'))[1], 0)"+in, row.Since, until)
			deleted, refused = deleted+want.deleted, refused+row.Refused
			if row.UsersChecked != want.checked || row.UsersMissing != want.missing || row.IsRun != (want.checked > 0) {
				t.Errorf("%s, bar %d: %+v, want %+v", c.span, i, row, want)
			}
			if i > 0 && !row.Since.Equal(rows[i-1].Since.Add(c.span)) {
				t.Errorf("bar %d begins at %s", i, row.Since)
			}
			if row.MembersDeleted != want.deleted {
				t.Errorf("%s, bar %d: %d deleted, want %d", c.span, i, row.MembersDeleted, want.deleted)
			}
		}
		if deleted == 0 || refused != testdb.One[int64](d, "SELECT count(*) FROM orphan_cleaner.runs WHERE state = 'refused' AND started_at >= $1", rows[0].Since) {
			t.Errorf("%s: %d deleted, %d refused", c.span, deleted, refused)
		}
		if at := rows[0].Since.UTC(); c.span > time.Hour && at.Truncate(24*time.Hour) != at || c.span > 24*time.Hour && at.Weekday() != time.Monday {
			t.Errorf("%s begins %s", c.span, at)
		}
	}
}
