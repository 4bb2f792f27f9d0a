package model_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// soakEnv names the environment variable that says how long TestSoak plays.
const soakEnv = "ORPHAN_CLEANER_TEST_SOAK"

// TestSoak plays histories until a time is over, each lot of them (rapid.checks)
// on a fresh database, and says every minute how far it is. It goes on after a
// violation, and fails at the end.
func TestSoak(t *testing.T) {
	if os.Getenv(soakEnv) == "" {
		t.Skip("plays for as long as " + soakEnv + " says: make soak SOAK=1h")
	}
	lasting, err := time.ParseDuration(os.Getenv(soakEnv))
	if err != nil {
		t.Fatalf("%s: %v", soakEnv, err)
	}
	begun := time.Now()
	count := newTally()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		minute := time.NewTicker(time.Minute)
		defer minute.Stop()
		for {
			select {
			case <-minute.C:
				fmt.Printf("soak %s: %s\n", time.Since(begun).Round(time.Second), count.line())
			case <-stop:
				return
			}
		}
	}()
	for lot := 1; time.Since(begun) < lasting; lot++ {
		passed := t.Run(strconv.Itoa(lot), func(t *testing.T) {
			rapid.Check(t, newStage(t, count).history)
		})
		if !passed {
			count.add("violations", 1)
		}
	}
	close(stop)
	<-stopped
	fmt.Printf("soak ended after %s: %s\n", time.Since(begun).Round(time.Second), count)
}
