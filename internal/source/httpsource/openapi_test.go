package httpsource_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v2"

	"github.com/nova-social/orphan-cleaner/internal/source"
)

// plain is a value as encoding/json has it.
func plain(value any) any {
	switch v := value.(type) {
	case map[any]any:
		object := map[string]any{}
		for name, member := range v {
			object[fmt.Sprint(name)] = plain(member)
		}
		return object
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	}
	return value
}

// document is docs/openapi.yaml.
func document(t *testing.T) (parsed map[string]any, schema func(name string) *jsonschema.Schema) {
	t.Helper()
	text, err := os.ReadFile("../../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var raw any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("openapi.json", plain(raw)); err != nil {
		t.Fatal(err)
	}
	return plain(raw).(map[string]any), func(name string) *jsonschema.Schema {
		compiled, err := compiler.Compile("openapi.json#/components/schemas/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return compiled
	}
}

// at is what a path of names leads to.
func at(value any, path ...string) any {
	for _, name := range path {
		value = value.(map[string]any)[name]
	}
	return value
}

// The client asks as the document says, and takes those answers for valid that the
// document does.
func TestDocument(t *testing.T) {
	t.Parallel()
	parsed, schema := document(t)
	question, answers := schema("Question"), schema("Answer")
	operation := at(parsed, "paths", "/", "post")
	for _, example := range []struct {
		value  any
		schema *jsonschema.Schema
	}{
		{at(operation, "requestBody", "content", "application/json", "example"), question},
		{at(operation, "responses", "200", "content", "application/json", "example"), answers},
	} {
		if err := example.schema.Validate(example.value); err != nil {
			t.Errorf("an example of the document: %v", err)
		}
	}

	for _, n := range []int{1, source.MaxBatch} {
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked, err := jsonschema.UnmarshalJSON(r.Body)
			if err == nil {
				err = question.Validate(asked)
			}
			if err != nil {
				t.Errorf("the client asks for %d users otherwise than documented: %v", n, err)
			}
			says(200, "application/json", answer())(w, r)
		})
		if _, err := dial(t, source.Config{URL: "rest+" + server.URL}).Missing(t.Context(), people(n)); err != nil {
			t.Error(err)
		}
	}

	a := uuid.New()
	valid := 0
	for body, reason := range bodies(a) {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(body)))
		if err == nil {
			err = answers.Validate(value)
		}
		if (err == nil) != (reason == "") {
			t.Errorf("%s: to the client %q, to the document %v", body, reason, err)
		}
		if err == nil {
			valid++
		}
	}
	if valid == 0 {
		t.Error("no answer is valid")
	}
}
