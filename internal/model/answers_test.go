package model_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// verdict is what one check said about one person.
type verdict int

const (
	invalid verdict = iota // nothing is known
	present
	missing
)

// batch is what was checked in one call, and what came of it.
type batch struct {
	persons []person
	invalid bool
	missing map[person]bool
}

// view is a run as auth-service saw it, and how far the model knows it to be.
type view struct {
	id       int64
	dry      bool
	isMember map[person]bool   // not a canary, nor a recheck, that rode along
	takes    func(person) bool // does the run check this member?
	inRange  func(person) bool // as one of the part that it reads, and not as a candidate?
	// What the checks before the ledger was written said about each person, in order,
	// and those after it. A recheck who is a member again is checked twice before.
	scanned, second map[person][]verdict
	first, again    []batch
	approval        *approval
	merged          bool // its sightings are in the ledger
	over            bool // taken over: it may do nothing any more
	deleted         counts
	// When the last snapshot was taken, and that of the last chunk of each person.
	snapshot  step
	snapshots map[person]step
}

func newView() *view {
	return &view{isMember: map[person]bool{}, scanned: map[person][]verdict{}, second: map[person][]verdict{}, snapshots: map[person]step{}}
}

func (v *view) checked(p person) bool { return len(v.scanned[p]) > 0 }

// scan is what the scan heard of a person; invalid where it did not check.
func (v *view) scan(p person) verdict {
	if !v.checked(p) {
		return invalid
	}
	return v.scanned[p][0]
}

// last is what was heard right before the delete; invalid where nothing was.
func (v *view) last(p person) verdict {
	if said := v.second[p]; len(said) > 0 {
		return said[len(said)-1]
	}
	return invalid
}

// add takes a batch in; isAgain says that the ledger had been written.
func (v *view) add(b batch, isAgain bool) {
	verdicts := v.scanned
	if isAgain {
		verdicts = v.second
		v.again = append(v.again, b)
	} else {
		v.first = append(v.first, b)
	}
	for _, p := range b.persons {
		said := present
		switch {
		case b.invalid:
			said = invalid
		case b.missing[p]:
			said = missing
		}
		verdicts[p] = append(verdicts[p], said)
	}
}

var canonicalID = regexp.MustCompile(`(?i)^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// replyLimit is the size above which a response is a fault.
const replyLimit = 4 << 20

// missingIn reads a response by the rules of guarantee 1: who is missing in it, or
// false where it is invalid.
func missingIn(checked []string, reply *authfake.Response, err error) (left map[string]bool, valid bool) {
	if err != nil || reply.GetError() != nil || len(reply.ProtoReflect().GetUnknown()) > 0 || proto.Size(reply) > replyLimit {
		return nil, false
	}
	left = map[string]bool{}
	for _, id := range checked {
		left[strings.ToLower(id)] = true
	}
	all := len(left)
	named := map[string]bool{}
	for _, user := range reply.GetUsers() {
		id := strings.ToLower(user.GetId())
		if !canonicalID.MatchString(id) || !left[id] && !named[id] {
			return nil, false
		}
		named[id] = true
		delete(left, id)
	}
	if len(left)+len(named) != all {
		return nil, false
	}
	return left, true
}

// attempt is one call as the server responded to it.
type attempt struct {
	left  map[string]bool
	valid bool
}

// callKey travels with each call, so that the server's side of it can be told
// from all others.
const callKey = "model-call"

// auditor sits on both ends of the wire: in the server it notes what was
// responded to each call, in the runner it hands the calls on and compares what the
// client made of the responses.
type auditor struct {
	persons map[uuid.UUID]person

	mu         sync.Mutex
	calls      int // batches checked, over all runs
	served     int // calls that reached the server, retries and all
	attempts   map[string][]attempt
	violations []string
	fault      func(served int) authfake.FaultFunc
}

func newAuditor() *auditor { return &auditor{attempts: map[string][]attempt{}} }

// reset forgets one history.
func (a *auditor) reset(ids []uuid.UUID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.persons = map[uuid.UUID]person{}
	for i, id := range ids {
		a.persons[id] = person(i)
	}
	a.calls, a.served, a.attempts, a.violations, a.fault = 0, 0, map[string][]attempt{}, nil, nil
}

// set makes the server reply by a plan from now on; nil is honest.
func (a *auditor) set(plan func(served int) authfake.FaultFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.served, a.fault = 0, plan
}

// plan is what set was given last.
func (a *auditor) plan() func(served int) authfake.FaultFunc {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fault
}

func (a *auditor) violated(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.violations = append(a.violations, fmt.Sprintf(format, args...))
}

func (a *auditor) takeViolations() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.violations)
}

// serve is the server's side.
func (a *auditor) serve(ctx context.Context, _ int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
	a.mu.Lock()
	a.served++
	served, plan := a.served, a.fault
	a.mu.Unlock()
	var reply *authfake.Response
	var err error
	if fault := planned(plan, served); fault != nil {
		reply, err = fault(ctx, served, ids, honest)
	} else {
		reply, err = honest()
	}
	incoming, _ := metadata.FromIncomingContext(ctx)
	left, valid := missingIn(ids, reply, err)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, call := range incoming.Get(callKey) {
		a.attempts[call] = append(a.attempts[call], attempt{left, valid})
	}
	return reply, err
}

func planned(plan func(int) authfake.FaultFunc, served int) authfake.FaultFunc {
	if plan == nil {
		return nil
	}
	return plan(served)
}

// checker is the runner's side, for one run.
type checker struct {
	*auditor
	client *authclient.Client
	view   *view
	before func(call int) // before the nth call of the run, from 1
	// isMember tells members from canaries that ride along.
	isMember func(person) bool
	// isAgain says whether the run has written the ledger.
	isAgain func() bool

	mine  sync.Mutex // over count, view and what before does
	count int
}

// Missing is run.Checker.
func (c *checker) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	c.mine.Lock()
	c.count++
	if c.before != nil {
		c.before(c.count)
	}
	isAgain := c.isAgain()
	c.mine.Unlock()
	c.mu.Lock()
	c.calls++
	call := strconv.Itoa(c.calls)
	c.mu.Unlock()

	got, err := c.client.Missing(metadata.AppendToOutgoingContext(ctx, callKey, call), ids)

	c.mu.Lock()
	attempts := c.attempts[call]
	c.mu.Unlock()
	result := batch{invalid: err != nil, missing: map[person]bool{}}
	for _, id := range ids {
		p, known := c.persons[id]
		if !known {
			c.violated("auth-service was asked for a stranger")
			continue
		}
		result.persons = append(result.persons, p)
	}
	for _, id := range got {
		result.missing[c.persons[id]] = true
	}
	c.compare(ctx, attempts, got, err)

	c.mine.Lock()
	defer c.mine.Unlock()
	if ctx.Err() != nil {
		// A caller that gave up does nothing with the response.
		return got, err
	}
	for _, p := range result.persons {
		if !c.view.checked(p) {
			c.view.isMember[p] = c.isMember(p)
		}
	}
	c.view.add(result, isAgain)
	return got, err
}

// compare holds what the client says against the server's last response.
func (c *checker) compare(ctx context.Context, attempts []attempt, got []uuid.UUID, err error) {
	if err == nil {
		if len(attempts) == 0 || !attempts[len(attempts)-1].valid {
			c.violated("the client took an invalid response for a valid one")
			return
		}
		left := attempts[len(attempts)-1].left
		same := len(got) == len(left)
		for _, id := range got {
			same = same && left[id.String()]
		}
		if !same {
			c.violated("the client says that %d users are missing, the response left out %d", len(got), len(left))
		}
		return
	}
	if ctx.Err() != nil || len(attempts) == 0 || !attempts[len(attempts)-1].valid {
		return
	}
	// A valid response may be lost on its way, never refused.
	var batch *source.BatchError
	if !errors.As(err, &batch) || batch.Reason != "deadline" && batch.Reason != "transport" {
		c.violated("the client refused a valid response: %v", err)
	}
}
