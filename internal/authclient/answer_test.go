package authclient

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	commonv1 "github.com/nova-social/orphan-cleaner/gen/nova/common/v1"
)

// people are n ids in no particular order.
func people(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	return ids
}

func answerOf(ids ...string) *authservicev1.GetUsersByIdsResponse {
	answer := &authservicev1.GetUsersByIdsResponse{}
	for _, id := range ids {
		answer.Users = append(answer.Users, &authservicev1.User{Id: id})
	}
	return answer
}

func TestMissingFrom(t *testing.T) {
	ids := people(4)
	a, b, c, d := ids[0].String(), ids[1].String(), ids[2].String(), ids[3].String()
	withError := func(e *commonv1.ErrorStatus, present ...string) *authservicev1.GetUsersByIdsResponse {
		answer := answerOf(present...)
		answer.Error = e
		return answer
	}
	withUnknownField := answerOf(a, b, c, d)
	withUnknownField.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))

	for _, test := range []struct {
		name    string
		answer  *authservicev1.GetUsersByIdsResponse
		missing []uuid.UUID
		notes   AnswerNotes
		reason  string
	}{
		{name: "all there", answer: answerOf(d, b, a, c)},
		{name: "in the order asked", answer: answerOf(b), missing: []uuid.UUID{ids[0], ids[2], ids[3]}},
		{name: "nobody", answer: answerOf(), missing: ids},
		{name: "upper case", answer: answerOf(strings.ToUpper(a), b, c, d), notes: AnswerNotes{Uppercase: 1}},
		{name: "duplicate", answer: answerOf(a, a, b, c), missing: ids[3:], notes: AnswerNotes{Duplicates: 1}},
		{name: "duplicate in two cases", answer: answerOf(a, strings.ToUpper(a)), missing: ids[1:], notes: AnswerNotes{Uppercase: 1, Duplicates: 1}},
		{name: "unknown field", answer: withUnknownField, notes: AnswerNotes{UnknownFields: true}},
		{name: "no reply", reason: "no_answer"},
		{name: "error", answer: withError(&commonv1.ErrorStatus{Code: "X"}), reason: "in_band_error"},
		{name: "error with everyone", answer: withError(&commonv1.ErrorStatus{Code: "X"}, a, b, c, d), reason: "in_band_error"},
		{name: "empty error", answer: withError(&commonv1.ErrorStatus{}), reason: "in_band_error"},
		{name: "foreign", answer: answerOf(a, uuid.NewString()), reason: "foreign_id"},
		{name: "nil uuid", answer: answerOf(a, uuid.Nil.String()), reason: "foreign_id"},
		{name: "empty id", answer: answerOf(a, ""), reason: "unparsable_id"},
		{name: "urn", answer: answerOf("urn:uuid:" + a), reason: "unparsable_id"},
		{name: "braces", answer: answerOf("{" + a + "}"), reason: "unparsable_id"},
		{name: "bare hex", answer: answerOf(strings.ReplaceAll(a, "-", "")), reason: "unparsable_id"},
		{name: "space", answer: answerOf(a + " "), reason: "unparsable_id"},
		{name: "not hex", answer: answerOf("g" + a[1:]), reason: "unparsable_id"},
		{name: "dash moved", answer: answerOf(a[:7] + "-" + a[7:8] + a[9:]), reason: "unparsable_id"},
		{name: "nil user", answer: &authservicev1.GetUsersByIdsResponse{Users: []*authservicev1.User{nil}}, reason: "unparsable_id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			missing, notes, err := missingFrom(ids, test.answer)
			if !slices.Equal(missing, test.missing) {
				t.Errorf("missing %v, want %v", missing, test.missing)
			}
			if notes != test.notes {
				t.Errorf("notes %+v, want %+v", notes, test.notes)
			}
			if got := reasonOf(err); got != test.reason {
				t.Errorf("reason %q, want %q", got, test.reason)
			}
		})
	}
}

func TestMissingFromAskedTwice(t *testing.T) {
	ids := people(2)
	asked := []uuid.UUID{ids[0], ids[1], ids[0]}
	missing, _, err := missingFrom(asked, answerOf(ids[1].String()))
	if err != nil || !slices.Equal(missing, ids[:1]) {
		t.Errorf("missing %v, error %v, want the first id once", missing, err)
	}
	missing, _, err = missingFrom(asked, answerOf(ids[0].String()))
	if err != nil || !slices.Equal(missing, ids[1:]) {
		t.Errorf("missing %v, error %v, want the second id alone", missing, err)
	}
}

func reasonOf(err error) string {
	var batch *BatchError
	if errors.As(err, &batch) {
		return batch.Reason
	}
	return ""
}

// FuzzMissingFrom reads script as a list of things that a server may put into
// an answer, and compares with the rules written down as plainly as can be.
func FuzzMissingFrom(f *testing.F) {
	f.Add(uint8(4), []byte{0, 0, 0, 1, 0, 2, 0, 3})
	f.Add(uint8(100), []byte{1, 7, 0, 99, 2, 5})
	f.Add(uint8(3), []byte{3, 1})
	f.Add(uint8(3), []byte{0, 0, 4, 0})
	f.Add(uint8(2), []byte{5, 0, 0, 1})
	f.Add(uint8(9), []byte{6, 1, 0, 1})
	f.Fuzz(func(t *testing.T, n uint8, script []byte) {
		var asked []uuid.UUID
		for i := range n {
			// Neighbours share most bytes, which tries the search.
			asked = append(asked, uuid.UUID{i % 3, 8: i * 7, 15: i % 120})
		}
		answer := &authservicev1.GetUsersByIdsResponse{}
		present := map[uuid.UUID]bool{}
		honest := true
		for ; len(script) >= 2; script = script[2:] {
			who, id := int(script[1]), uuid.UUID{9, 9}
			if len(asked) > 0 {
				id = asked[who%len(asked)]
			} else {
				honest = false
			}
			text := id.String()
			switch script[0] % 7 {
			case 1:
				text = strings.ToUpper(text)
			case 2:
				text, honest = uuid.UUID{200, 15: script[1]}.String(), false
			case 3:
				text, honest = text[:who%36], false
			case 4:
				text, honest = string([]byte{script[1]})+text, false
			case 5:
				answer.Error, honest = &commonv1.ErrorStatus{Code: text}, false
			case 6:
				text, honest = "{"+text[:34]+"}", false
			}
			present[id] = true
			answer.Users = append(answer.Users, &authservicev1.User{Id: text})
		}

		missing, _, err := missingFrom(asked, answer)

		if honest != (err == nil) {
			t.Fatalf("an honest answer is %t, but the error is %v", honest, err)
		}
		if err != nil {
			if missing != nil {
				t.Fatalf("error %v came with %d missing", err, len(missing))
			}
			return
		}
		var want []uuid.UUID
		for _, id := range asked {
			if !present[id] && !slices.Contains(want, id) {
				want = append(want, id)
			}
		}
		if !slices.Equal(missing, want) {
			t.Fatalf("missing %v, want %v", missing, want)
		}
	})
}

func BenchmarkMissingFrom(b *testing.B) {
	ids := people(MaxBatch)
	answer := answerOf(texts(ids[:90])...)
	b.ReportAllocs()
	for b.Loop() {
		if missing, _, err := missingFrom(ids, answer); err != nil || len(missing) != 10 {
			b.Fatal(missing, err)
		}
	}
}
