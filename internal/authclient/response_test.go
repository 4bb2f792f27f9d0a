package authclient

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	commonv1 "github.com/nova-social/orphan-cleaner/gen/nova/common/v1"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// people are n ids in no particular order.
func people(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	return ids
}

func responseOf(ids ...string) *authservicev1.GetUsersByIdsResponse {
	response := &authservicev1.GetUsersByIdsResponse{}
	for _, id := range ids {
		response.Users = append(response.Users, &authservicev1.User{Id: id})
	}
	return response
}

// oddities of a valid response count users.
type oddities struct{ uppercase, duplicates int }

// missingFrom are the users that a response leaves out; none where it is invalid.
func missingFrom(asked []uuid.UUID, response *authservicev1.GetUsersByIdsResponse, token source.Token) ([]uuid.UUID, oddities, *source.BatchError) {
	answer := source.NewAnswer(asked)
	if invalid := fill(answer, len(asked), response, token); invalid != nil {
		return nil, oddities{}, invalid
	}
	return answer.Missing(), oddities{answer.Uppercase, answer.Duplicates}, nil
}

func TestMissingFrom(t *testing.T) {
	ids := people(4)
	a, b, c, d := ids[0].String(), ids[1].String(), ids[2].String(), ids[3].String()
	withError := func(e *commonv1.ErrorStatus, present ...string) *authservicev1.GetUsersByIdsResponse {
		response := responseOf(present...)
		response.Error = e
		return response
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	withUnknownField, withUnknownFieldInUser := responseOf(a, b, c), responseOf(a, b, c)
	withUnknownField.ProtoReflect().SetUnknown(unknown)
	withUnknownFieldInUser.Users[1].ProtoReflect().SetUnknown(unknown)
	withUnknownFieldAndError := withError(&commonv1.ErrorStatus{}, a, b, c)
	withUnknownFieldAndError.ProtoReflect().SetUnknown(unknown)

	for _, test := range []struct {
		name     string
		response *authservicev1.GetUsersByIdsResponse
		missing  []uuid.UUID
		odd      oddities
		reason   string
	}{
		{name: "all there", response: responseOf(d, b, a, c)},
		{name: "in the order asked", response: responseOf(b), missing: []uuid.UUID{ids[0], ids[2], ids[3]}},
		{name: "nobody", response: responseOf(), missing: ids},
		{name: "upper case", response: responseOf(strings.ToUpper(a), b, c, d), odd: oddities{uppercase: 1}},
		{name: "duplicate", response: responseOf(a, a, b, c), missing: ids[3:], odd: oddities{duplicates: 1}},
		{name: "duplicate in two cases", response: responseOf(a, strings.ToUpper(a)), missing: ids[1:], odd: oddities{uppercase: 1, duplicates: 1}},
		{name: "unknown field in a user", response: withUnknownFieldInUser, missing: ids[3:]},
		{name: "unknown field", response: withUnknownField, reason: "unknown_field"},
		{name: "error and unknown field", response: withUnknownFieldAndError, reason: "in_band_error"},
		{name: "error", response: withError(&commonv1.ErrorStatus{Code: "X"}), reason: "in_band_error"},
		{name: "error with everyone", response: withError(&commonv1.ErrorStatus{Code: "X"}, a, b, c, d), reason: "in_band_error"},
		{name: "empty error", response: withError(&commonv1.ErrorStatus{}), reason: "in_band_error"},
		{name: "foreign", response: responseOf(a, uuid.NewString()), reason: "foreign_id"},
		{name: "nil uuid", response: responseOf(a, uuid.Nil.String()), reason: "foreign_id"},
		{name: "empty id", response: responseOf(a, ""), reason: "unparsable_id"},
		{name: "urn", response: responseOf("urn:uuid:" + a), reason: "unparsable_id"},
		{name: "braces", response: responseOf("{" + a + "}"), reason: "unparsable_id"},
		{name: "bare hex", response: responseOf(strings.ReplaceAll(a, "-", "")), reason: "unparsable_id"},
		{name: "space", response: responseOf(a + " "), reason: "unparsable_id"},
		{name: "not hex", response: responseOf("g" + a[1:]), reason: "unparsable_id"},
		{name: "dash moved", response: responseOf(a[:7] + "-" + a[7:8] + a[9:]), reason: "unparsable_id"},
		{name: "nil user", response: &authservicev1.GetUsersByIdsResponse{Users: []*authservicev1.User{nil}}, reason: "unparsable_id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			missing, odd, err := missingFrom(ids, test.response, source.Token{})
			if !slices.Equal(missing, test.missing) {
				t.Errorf("missing %v, want %v", missing, test.missing)
			}
			if odd != test.odd {
				t.Errorf("oddities %+v, want %+v", odd, test.odd)
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
	missing, _, err := missingFrom(asked, responseOf(ids[1].String()), source.Token{})
	if err != nil || !slices.Equal(missing, ids[:1]) {
		t.Errorf("missing %v, error %v, want the first id once", missing, err)
	}
	missing, _, err = missingFrom(asked, responseOf(ids[0].String()), source.Token{})
	if err != nil || !slices.Equal(missing, ids[1:]) {
		t.Errorf("missing %v, error %v, want the second id alone", missing, err)
	}
}

func reasonOf(err *source.BatchError) string {
	if err == nil {
		return ""
	}
	return err.Reason
}

var canonical = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// read is what a response means, by the rules written down as plainly as can be:
// whom it leaves out, its oddities, or why it is invalid.
func read(asked []uuid.UUID, response *authservicev1.GetUsersByIdsResponse) (missing []uuid.UUID, odd oddities, reason string) {
	if response.Error != nil {
		return nil, oddities{}, "in_band_error"
	}
	if len(response.ProtoReflect().GetUnknown()) > 0 {
		return nil, oddities{}, "unknown_field"
	}
	wanted, named := map[string]bool{}, map[string]bool{}
	for _, id := range asked {
		wanted[id.String()] = true
	}
	for _, user := range response.Users {
		id := strings.ToLower(user.GetId())
		switch {
		case !canonical.MatchString(user.GetId()):
			return nil, oddities{}, "unparsable_id"
		case !wanted[id]:
			return nil, oddities{}, "foreign_id"
		case named[id]:
			odd.duplicates++
		}
		if id != user.GetId() {
			odd.uppercase++
		}
		named[id] = true
	}
	for _, id := range asked {
		if !named[id.String()] {
			missing = append(missing, id)
			named[id.String()] = true
		}
	}
	return missing, odd, ""
}

// spell writes an asked id, or something like it, as a server might: each kind of
// right and wrong, bent by the byte twist.
func spell(id uuid.UUID, kind, twist byte) string {
	text := id.String()
	at := int(twist) % len(text)
	switch kind % 16 {
	case 0, 1, 2, 3, 4:
		return text
	case 5:
		return strings.ToUpper(text)
	case 6: // mixed case, a bit of twist for each letter in turn
		mixed := []byte(text)
		for i := range mixed {
			if twist>>(i%8)&1 == 1 {
				mixed[i] = strings.ToUpper(text)[i]
			}
		}
		return string(mixed)
	case 7: // an id close by, asked for or not
		id[15] ^= 1 << (twist % 8)
		return id.String()
	case 8: // somebody else
		return uuid.UUID{200, 15: twist}.String()
	case 9:
		return text[:at]
	case 10:
		return text + string(rune(twist))
	case 11:
		return text[:at] + string([]byte{twist}) + text[at+1:]
	case 12:
		return "{" + text[:34] + "}"
	case 13:
		return "urn:uuid:" + text
	case 14:
		return strings.ReplaceAll(text, "-", "")
	default: // a dash moved
		return text[1:9] + text[:1] + text[9:]
	}
}

// FuzzMissingFrom makes a response of any mix of ids right and wrong, in any case,
// once or more often, with an error or fields that nobody knows, and compares
// what is made of it with the rules, before and after it went over the wire.
func FuzzMissingFrom(f *testing.F) {
	f.Add(uint8(4), uint8(0), []byte{0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0})
	f.Add(uint8(100), uint8(0), []byte{5, 7, 0, 0, 99, 0, 6, 5, 170})
	f.Add(uint8(3), uint8(1), []byte{0, 1, 0})
	f.Add(uint8(3), uint8(2), []byte{0, 0, 0})
	for kind := range byte(16) {
		f.Add(uint8(9), uint8(0), []byte{kind, 1, 7, 0, 1, 0, kind, 2, 99})
	}
	f.Fuzz(func(t *testing.T, n, extra uint8, script []byte) {
		var asked []uuid.UUID
		for i := range n % (source.MaxBatch + 1) {
			// Ids that share most bytes try the search; some are asked twice.
			asked = append(asked, uuid.UUID{i % 3, 8: i * 7, 15: i % 90})
		}
		response := &authservicev1.GetUsersByIdsResponse{}
		for ; len(script) >= 3; script = script[3:] {
			id := uuid.UUID{9, 9}
			if len(asked) > 0 {
				id = asked[int(script[1])%len(asked)]
			}
			response.Users = append(response.Users, &authservicev1.User{Id: spell(id, script[0], script[2]), IsActive: script[0] > 128})
		}
		switch extra % 8 {
		case 1:
			response.Error = &commonv1.ErrorStatus{}
		case 2:
			response.Error = &commonv1.ErrorStatus{Code: "X", Message: "\n\x1b", Metadata: map[string]string{"k": "v"}}
		case 3:
			response.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), uint64(extra)))
		case 4:
			response.Users = append(response.Users, nil)
		}

		compare := func(response *authservicev1.GetUsersByIdsResponse) {
			missing, odd, err := missingFrom(asked, response, source.Token{})
			wantMissing, wantOdd, wantReason := read(asked, response)
			if reason := reasonOf(err); reason != wantReason || (err == nil) != (reason == "") {
				t.Fatalf("invalid by %q, want %q: %v", reason, wantReason, err)
			}
			if !slices.Equal(missing, wantMissing) {
				t.Fatalf("missing %v, want %v", missing, wantMissing)
			}
			if odd != wantOdd {
				t.Fatalf("oddities %+v, want %+v", odd, wantOdd)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Fatalf("the server writes into our log: %q", err)
			}
		}
		compare(response)
		sent, err := proto.Marshal(response)
		if err != nil {
			return // not UTF-8: gRPC would not carry it
		}
		received := &authservicev1.GetUsersByIdsResponse{}
		if err := proto.Unmarshal(sent, received); err != nil {
			t.Fatal(err)
		}
		compare(received)
	})
}

func BenchmarkMissingFrom(b *testing.B) {
	ids := people(source.MaxBatch)
	response := responseOf(source.Config{}.Texts(ids[:90])...)
	b.ReportAllocs()
	for b.Loop() {
		if missing, _, err := missingFrom(ids, response, source.Token{}); err != nil || len(missing) != 10 {
			b.Fatal(missing, err)
		}
	}
}
