package printer

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/target"
	"github.com/nova-social/orphan-cleaner/migrations"
)

// Those functions of conversation_members that know nothing of conversations are what is
// printed for any target. The others mind the holds on conversations, counts and owners,
// and tables of messaging-service without a role or a last_read_at.
func TestMembersFunctionsArePrinted(t *testing.T) {
	t.Parallel()
	shipped, err := fs.ReadFile(migrations.FS, "00007_create_members_target.sql")
	if err != nil {
		t.Fatal(err)
	}
	shape := target.Shape{Table: "public.conversation_members", Base: "conversation_members"}
	for _, name := range []string{"conversation_id", "user_id", "joined_at", "last_read_at"} {
		shape.Columns = append(shape.Columns, Column{Name: name, Ident: name, Type: "uuid"})
	}
	r, err := newRenderer()
	if err != nil {
		t.Fatal(err)
	}
	printed, err := r.rendered(target.Members(), shape)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"page", "holders", "total"} {
		text := printed.functions[named(printed.functions, "conversation_members_"+verb)].Text
		if text = strings.Replace(text, "CREATE OR REPLACE FUNCTION", "CREATE FUNCTION", 1); !strings.Contains(string(shipped), "\n"+text) {
			t.Errorf("migrations/00007_create_members_target.sql does not have what is printed:\n%s", text)
		}
	}
}
