package model_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/result"
)

// table is a target, by its place in the sweep: a like is deleted as a membership is, a post is marked
// and emptied. Only members are on the holds of conversations, and go with them.
type table int

const (
	members table = iota
	likes
	posts
)

var tables = []table{members, likes, posts}

func (t table) String() string { return []string{"conversation_members", "likes", "posts"}[t] }

func tableNamed(name string) table {
	for _, t := range tables {
		if t.String() == name {
			return t
		}
	}
	return -1
}

// counts are by table.
type counts [3]int64

func (c counts) sum() int64 { return c[members] + c[likes] + c[posts] }

// rows is how many there are, not counting posts that are marked.
func (m *model) rows() (n counts) {
	for k := range m.members {
		n[k.table]++
	}
	return n
}

// content is all of a like or a post that can change.
func (row *member) content() string { return fmt.Sprintf("%s %s %t", row.tag, row.role, row.muted) }

// match is the condition that finds a row by its key.
func (h *history) match(k key) (where string, args []any) {
	where = map[table]string{members: `conversation_id = $1 AND user_id = $2`, likes: `post_id = $1 AND user_id = $2`, posts: `id = $1 AND user_id = $2`}[k.table]
	return where, []any{h.place(k), h.ids[k.person]}
}

// place is the id that tells a user's rows apart.
func (h *history) place(k key) uuid.UUID {
	if k.table == posts {
		return id("post", int(k.conversation)*1000+int(k.person))
	}
	return id("conversation", int(k.conversation))
}

// insert writes a like, or a post: over the marked one, if it is there.
func (h *history) insert(row *member, ago moment) {
	statement := `INSERT INTO likes (post_id, user_id, created_at, kind) VALUES ($1, $2, now() - make_interval(hours => $3), $4) RETURNING created_at`
	if row.table == posts {
		statement = `INSERT INTO posts AS p (id, user_id, created_at, body) VALUES ($1, $2, now() - make_interval(hours => $3), $4)
			ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at, body = excluded.body, deleted_at = NULL WHERE p.deleted_at IS NOT NULL RETURNING created_at`
	}
	err := h.admin.QueryRow(context.Background(), statement, h.place(row.key), h.ids[row.person], hours(ago), row.content()).Scan(&row.joinedAt)
	if err != nil {
		h.t.Fatalf("writing %s: %v", row.key, err)
	}
	delete(h.marked, row.key)
}

// drawTable is that of members where a history has no other rows.
func (h *history) drawTable() table {
	if !h.hasRows {
		return members
	}
	return draw(h, "table", members, members, likes, posts)
}

// rowKeys finds the key of what a restore names by the text of a key.
func (h *history) rowKeys() map[string]key {
	keys := map[string]key{}
	for c := range conversation(conversations) {
		for p, user := range h.ids {
			like, post := key{c, person(p), likes}, key{c, person(p), posts}
			keys[fmt.Sprintf("likes (%s,%s)", h.place(like), user)] = like
			keys[fmt.Sprintf("posts (%s)", h.place(post))] = post
		}
	}
	return keys
}

// checkRows compares likes and posts with the model, as check does members: those that are there and, of posts, those
// that a run has marked, audit and backup. A post that the application deleted is in no audit.
func (h *history) checkRows() {
	if !h.hasRows {
		return
	}
	var rows, audit, backup []string
	line := func(row *member, run int64, parts ...string) string {
		text := fmt.Sprintf("%s %s %s %s", row.table, h.place(row.key), h.ids[row.person], strings.Join(parts, " "))
		if run >= 0 {
			text += fmt.Sprintf(" run %d", run)
		}
		return text
	}
	for k, row := range h.members {
		if k.table != members {
			rows = append(rows, line(row, -1, row.content(), utc(row.joinedAt)))
		}
	}
	for k := range h.marked {
		marked, _, _ := h.newestBackup(k)
		rows = append(rows, line(&marked.member, -1, "marked"))
	}
	for _, d := range h.gone {
		if d.table == likes || d.table == posts && d.run != 0 {
			audit = append(audit, line(&d.member, d.run, utc(d.joinedAt)))
		}
		if d.table != members && d.run != 0 {
			backup = append(backup, line(&d.member, d.run, d.content()))
		}
	}
	h.same("likes and posts", rows, h.lines(`SELECT 'likes ' || post_id || ' ' || user_id || ' ' || kind || ' ' || created_at FROM likes
		UNION ALL SELECT 'posts ' || id || ' ' || user_id || ' ' || CASE WHEN deleted_at IS NULL THEN body || ' ' || created_at ELSE body || 'marked' END FROM posts`))
	h.same("audit of likes and posts", audit, h.lines(`SELECT 'likes ' || post_id || ' ' || user_id || ' ' || created_at || ' run ' || coalesce(run_id, 0) FROM orphan_cleaner.likes_audit
		UNION ALL SELECT 'posts ' || id || ' ' || user_id || ' ' || created_at || ' run ' || coalesce(run_id, 0) FROM orphan_cleaner.posts_audit`))
	h.same("backup of likes and posts", backup, h.lines(`SELECT 'likes ' || post_id || ' ' || user_id || ' ' || kind || ' run ' || run_id FROM orphan_cleaner.likes_backup
		UNION ALL SELECT 'posts ' || id || ' ' || user_id || ' ' || body || ' run ' || run_id FROM orphan_cleaner.posts_backup WHERE deleted_at IS NULL`))
	h.same("runs that count other than they deleted", nil, h.lines(`
		WITH a AS (
			SELECT 'likes' AS target, run_id, count(*) AS n FROM orphan_cleaner.likes_audit WHERE run_id IS NOT NULL GROUP BY run_id
			UNION ALL SELECT 'posts', run_id, count(*) FROM orphan_cleaner.posts_audit GROUP BY run_id
		)
		SELECT format('%s of run %s: %s deleted, %s audited', target, run_id, r.rows_deleted, a.n)
		FROM (SELECT * FROM orphan_cleaner.run_targets WHERE target <> 'conversation_members') AS r
		FULL JOIN a USING (target, run_id)
		WHERE coalesce(r.rows_deleted, 0) <> coalesce(a.n, 0)`))
}

// targets are what a run should say of each table: nothing but what it read, unless it swept.
func (f *findings) targets(isJudged bool, deleted *counts) (list []result.Target) {
	for _, t := range tables {
		target := result.Target{Name: t.String(), RowsTotal: f.total[t]}
		if isJudged {
			target.RowsDue, target.RowsKeptYoung, target.RowsHeld = f.rowsDue[t], f.young[t], f.held[t]
		}
		if deleted != nil {
			target.RowsDeleted, target.RowsChanged = deleted[t], f.rowsDue[t]-deleted[t]
		}
		list = append(list, target)
	}
	return list
}
