package faults

import "github.com/nova-social/orphan-cleaner/internal/authfake"

// slowLoss: auth-service loses 4 % of its users a day, for longer than the
// retention. No day is let pass, and nobody alive loses a member.
func slowLoss(w *world) {
	w.lastRun()
	const days, aDay = 40, 23
	for day := range days {
		w.dayPasses()
		if lost := w.living[min(day*aDay, len(w.living)):min((day+1)*aDay, len(w.living))]; len(lost) > 0 {
			w.auth.Delete(lost...)
		}
		e := w.run()
		if day == 0 {
			// Two weeks are not known yet: 4 % in a week is not too much, 8 % is.
			continue
		}
		if day == 1 {
			w.expect(e, want{exit: 3, state: "refused", shows: "breaker new-missing-rate", gone: all})
		}
		if e.status != 3 {
			w.t.Fatalf("day %d: %s", day, e)
		}
	}
	w.sound()
	w.holds("I2")
	w.holds("I8")
	w.auth.Add(w.living...)
	w.dayPasses()
	w.converges()
}

// dayPasses moves everything that was recorded a day back.
func (w *world) dayPasses() {
	w.t.Helper()
	w.recorded("-1 day")
	w.exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = first_missing_at - interval '1 day', last_missing_at = last_missing_at - interval '1 day'`)
	// In two steps: an hour a day after another would for a moment be there twice.
	w.exec(`UPDATE orphan_cleaner.hours SET hour = hour - interval '10000 days'`)
	w.exec(`UPDATE orphan_cleaner.hours SET hour = hour + interval '9999 days'`)
}

// smallTable: a floor is no licence. Of 50 users nobody goes, on the first day and once they
// have been missing for longer than the retention.
func smallTable(w *world) {
	users := w.living[:50]
	w.exec(`DELETE FROM conversation_members`)
	w.exec(`DELETE FROM orphan_cleaner.candidates`)
	w.exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('conversation ' || c)::uuid, u, now() - interval '60 days' FROM unnest($1::uuid[]) AS u, generate_series(0, 17) AS c`, users)
	w.witness()
	w.auth.SetFaultFunc(authfake.Nothing)
	w.expect(w.run(), want{exit: 3, state: "refused", shows: "breaker new-missing-share", gone: nothing})
	w.exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
		SELECT u, now() - interval '31 days', now() - interval '1 hour', 1, 700, 'sightings' FROM unnest($1::uuid[]) AS u`, users)
	w.ownLedger()
	for breaker, lenient := range map[string][]string{
		"candidate-share": nil,
		"delete-share":    {"--max-candidate-share=1", "--max-delete-share-7d=1", "--max-delete-share-30d=1"},
		"delete-share-7d": {"--max-candidate-share=1", "--max-delete-share=1", "--max-delete-share-30d=1"},
	} {
		w.expect(w.run(lenient...), want{exit: 3, state: "refused", shows: "breaker " + breaker, gone: nothing})
	}
	w.holds("I8")
	w.auth.SetFaultFunc(nil)
	w.lastRun()
	w.die(users[0]) // and one who is gone is
	w.converges()
}
