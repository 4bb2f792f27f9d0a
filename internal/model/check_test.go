package model_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// lines reads rows that render as one text each.
func (h *history) lines(query string, args ...any) []string {
	rows, err := h.admin.Query(context.Background(), query, args...)
	if err != nil {
		h.t.Fatalf("%s: %v", query, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		h.t.Fatalf("%s: %v", query, err)
	}
	return list
}

func (h *history) scanKey(row pgx.CollectableRow) (key, error) {
	var target, rowKey string
	var conversation, user [16]byte
	err := row.Scan(&target, &rowKey, &conversation, &user)
	return h.keyOf(target, rowKey, conversation, user), err
}

func (h *history) keyOf(target, rowKey string, conversation, user [16]byte) key {
	if t := tableNamed(target); t != members {
		return h.byRowKey[target+" "+rowKey]
	}
	return key{h.conversationOf(conversation), h.auditor.persons[user], members}
}

func (h *history) conversationOf(uuid [16]byte) conversation {
	for c := range conversation(conversations) {
		if id("conversation", int(c)) == uuid {
			return c
		}
	}
	return -1
}

// rendered is the ledger as readLedger reads it: times in whole hours, which
// is what the model knows them to.
func (m *model) rendered(ledger map[person]candidate) map[person]string {
	lines := map[person]string{}
	ago := func(then moment) float64 { return math.Round(float64(m.now-then) / float64(hour)) }
	for p, c := range ledger {
		lines[p] = fmt.Sprintf("missing for %.0f h, last %.0f h ago in run %d, %d times, by %s, approved by %d", ago(c.first), ago(c.last), c.run, c.sightings, c.evidence, c.approved)
	}
	return lines
}

func (h *history) readLedger() map[person]string {
	rows, err := h.admin.Query(context.Background(), `SELECT user_id, format('missing for %s h, last %s h ago in run %s, %s times, by %s, approved by %s',
			round(extract(epoch FROM now() - first_missing_at) / 3600), round(extract(epoch FROM now() - last_missing_at) / 3600),
			last_missing_run, sightings, evidence, coalesce(approved_run, 0))
		FROM orphan_cleaner.candidates`)
	if err != nil {
		h.t.Fatalf("reading the ledger: %v", err)
	}
	lines := map[person]string{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (none struct{}, err error) {
		var user [16]byte
		var line string
		err = row.Scan(&user, &line)
		lines[h.auditor.persons[user]] = line
		return none, err
	})
	if err != nil {
		h.t.Fatalf("reading the ledger: %v", err)
	}
	return lines
}

// checkLedger compares the ledger with the model's, and shows what differs.
func (h *history) checkLedger() {
	want, got := h.rendered(h.ledger), h.readLedger()
	for p := range person(len(h.ids)) {
		if want[p] != got[p] {
			h.t.Fatalf("in the ledger u%02d is %q, and should be %q", p, got[p], want[p])
		}
	}
}

// readRechecks is the list of rechecks: are they known to be alive?
func (h *history) readRechecks() map[person]bool {
	rows, err := h.admin.Query(context.Background(), `SELECT user_id, alive_at IS NOT NULL FROM orphan_cleaner.rechecks`)
	if err != nil {
		h.t.Fatalf("reading rechecks: %v", err)
	}
	rechecks := map[person]bool{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (none struct{}, err error) {
		var user [16]byte
		var alive bool
		err = row.Scan(&user, &alive)
		rechecks[h.auditor.persons[user]] = alive
		return none, err
	})
	if err != nil {
		h.t.Fatalf("reading rechecks: %v", err)
	}
	return rechecks
}

// check compares the whole of the database with the model: the members that are
// there, those that went (I3: one audit row each, and one backup row with all
// of its content if we did it), the ledger, and what the runs say of themselves.
func (h *history) check() {
	const content = `conversation_id::text || ' ' || user_id::text || ' ' || role || ' ' || joined_at::timestamptz(6)::text`
	const whole = content + ` || ' ' || coalesce(last_read_at::text, '-') || ' ' || is_muted || ' ' || user_public_key`
	var list, audit, backup []string
	for _, row := range h.members {
		if row.table == members {
			list = append(list, h.whole(row))
		}
	}
	for _, d := range h.gone {
		if d.table != members {
			continue
		}
		audit = append(audit, fmt.Sprintf("%s run %d", h.content(&d.member), d.run))
		if d.run != 0 {
			backup = append(backup, fmt.Sprintf("%s run %d", h.whole(&d.member), d.run))
		}
	}
	h.same("members", list, h.lines(`SELECT `+whole+` FROM conversation_members`))
	h.same("audit", audit, h.lines(`SELECT `+content+` || ' run ' || coalesce(run_id, 0) FROM conversation_members_audit`))
	h.same("backup", backup, h.lines(`SELECT `+whole+` || ' run ' || run_id FROM conversation_members_backup`))
	if h.counter != "unread" {
		h.same("conversations with a wrong member_count", nil, h.lines(`
			SELECT format('%s: %s', id, member_count) FROM conversations AS c
			WHERE c.member_count <> (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`))
	}
	h.checkRows()
	h.checkLedger()
	if got := h.readRechecks(); !maps.Equal(h.rechecks, got) {
		h.t.Fatalf("rechecks (known to be alive?) are\n%v, they should be\n%v", got, h.rechecks)
	}
	h.checkCoverage()
	wrong := h.lines(`
		WITH a AS (SELECT run_id, count(*) AS n FROM conversation_members_audit WHERE run_id IS NOT NULL GROUP BY run_id),
		b AS (SELECT run_id, count(*) AS n FROM conversation_members_backup GROUP BY run_id),
		g AS (SELECT run_id, count(*) AS n FROM orphan_cleaner.restores WHERE state <> 'planned' AND target = 'conversation_members' GROUP BY run_id)
		SELECT format('run %s %s: %s deleted, %s audited, %s backed up; %s restored, %s listed',
			r.run_id, r.state, r.members_deleted, a.n, b.n, r.members_restored, g.n)
		FROM orphan_cleaner.runs AS r
		FULL JOIN a USING (run_id)
		FULL JOIN b USING (run_id)
		FULL JOIN g USING (run_id)
		WHERE r.members_deleted IS DISTINCT FROM coalesce(a.n, 0)
			OR r.members_deleted IS DISTINCT FROM coalesce(b.n, 0)
			OR r.members_restored IS DISTINCT FROM coalesce(g.n, 0)`)
	if len(wrong) > 0 {
		h.t.Fatalf("runs do not add up: %v", wrong)
	}
	var open []string
	if h.open != nil {
		open = append(open, fmt.Sprint(h.open.id))
	}
	h.same("open runs", open, h.lines(`SELECT run_id::text FROM orphan_cleaner.runs WHERE state = 'running'`))
	h.same("open approvals", h.openApprovals(), h.lines(`SELECT approval_id::text FROM orphan_cleaner.approvals WHERE used_at IS NULL AND revoked_at IS NULL`))
	if h.open == nil {
		h.same("staging", nil, h.lines(`SELECT s.run_id || ' ' || s.verdict FROM orphan_cleaner.sightings AS s JOIN orphan_cleaner.runs AS r USING (run_id) WHERE r.state <> 'abandoned'`))
	}
}

func (m *model) openApprovals() (list []string) {
	for _, a := range m.approvals {
		if !a.over {
			list = append(list, fmt.Sprint(a.id))
		}
	}
	return list
}

func (h *history) content(row *member) string {
	return fmt.Sprintf("%s %s %s %s", id("conversation", int(row.conversation)), h.ids[row.person], row.role, utc(row.joinedAt))
}

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999+00") }

func (h *history) whole(row *member) string {
	read := "-"
	if row.lastRead != nil {
		read = utc(*row.lastRead)
	}
	return fmt.Sprintf("%s %s %t %s", h.content(row), read, row.muted, row.tag)
}

// same compares two lists as multisets, and shows members by their short names
// and without times: a failure must read the same when it is tried again.
func (h *history) same(what string, want, got []string) {
	slices.Sort(want)
	slices.Sort(got)
	if slices.Equal(want, got) {
		return
	}
	short := func(line string) string {
		for c := range conversations {
			line = strings.ReplaceAll(line, id("conversation", c).String(), fmt.Sprintf("c%d", c))
		}
		for p, user := range h.ids {
			line = strings.ReplaceAll(line, user.String(), fmt.Sprintf("u%02d", p))
			for c := range conversations {
				line = strings.ReplaceAll(line, h.place(key{conversation(c), person(p), posts}).String(), fmt.Sprintf("c%d", c))
			}
		}
		return times.ReplaceAllString(line, "(time)")
	}
	count := map[string]int{}
	for _, line := range want {
		count[line]--
	}
	for _, line := range got {
		count[line]++
	}
	var more, less []string
	for line, n := range count {
		for range n {
			more = append(more, short(line))
		}
		for range -n {
			less = append(less, short(line))
		}
	}
	slices.Sort(more)
	slices.Sort(less)
	h.t.Fatalf("%s: there should not be\n  %s\nthere should be\n  %s", what, strings.Join(more, "\n  "), strings.Join(less, "\n  "))
}
