package faults

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
	w.exec(`UPDATE orphan_cleaner.hours SET hour = hour - interval '1 day'`)
}
