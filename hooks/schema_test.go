package hooks

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// rule is what of JSON Schema docs/hooks.schema.json uses and this test knows.
type rule struct {
	Ref        string           `json:"$ref"`
	Defs       map[string]*rule `json:"$defs"`
	Type       string           `json:"type"`
	Required   []string         `json:"required"`
	Properties map[string]*rule `json:"properties"`
	More       *bool            `json:"additionalProperties"`
	Items      *rule            `json:"items"`
	Enum       []any            `json:"enum"`
	Const      any              `json:"const"`
}

func (r *rule) errors(root *rule, at string, v any) (errs []string) {
	if r.Ref != "" {
		return root.Defs[strings.TrimPrefix(r.Ref, "#/$defs/")].errors(root, at, v)
	}
	wrong := func(format string, args ...any) { errs = append(errs, at+": "+fmt.Sprintf(format, args...)) }
	kind := map[reflect.Kind]string{reflect.String: "string", reflect.Float64: "integer", reflect.Slice: "array", reflect.Map: "object"}[reflect.ValueOf(v).Kind()]
	if kind != r.Type {
		wrong("is of type %s, not %s", kind, r.Type)
	}
	if r.Const != nil && v != r.Const || r.Enum != nil && !slices.Contains(r.Enum, v) {
		wrong("cannot be %v", v)
	}
	if list, ok := v.([]any); ok {
		for i, e := range list {
			errs = append(errs, r.Items.errors(root, fmt.Sprintf("%s[%d]", at, i), e)...)
		}
	}
	if object, ok := v.(map[string]any); ok {
		for _, k := range r.Required {
			if _, there := object[k]; !there {
				wrong("%s is missing", k)
			}
		}
		for k, e := range object {
			if r.Properties[k] == nil {
				wrong("%s is not in the schema", k)
				continue
			}
			errs = append(errs, r.Properties[k].errors(root, at+"."+k, e)...)
		}
	}
	return errs
}

func schema(t *testing.T) *rule {
	t.Helper()
	text, err := os.ReadFile("../docs/hooks.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var root rule
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	return &root
}

func keysOf(v any) []string {
	var out []string
	typ := reflect.TypeOf(v)
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if typ.Field(i).Anonymous {
			out = append(out, keysOf(reflect.New(typ.Field(i).Type).Elem().Interface())...)
			continue
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func TestSchemaSaysWhatIsSent(t *testing.T) {
	t.Parallel()
	root := schema(t)
	for _, p := range Points() {
		whole, bare := sample(), Event{Version: EventVersion, Hook: "h", Account: "work"}
		for _, e := range []Event{whole, bare} {
			e.Point = p
			line, err := encode(&e)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(line, &v); err != nil {
				t.Fatal(err)
			}
			for _, err := range root.Defs["event"].errors(root, "event", v) {
				t.Errorf("%s: %s", p, err)
			}
		}
	}
	for name, v := range map[string]any{"event": Event{}, "verdict": answer{}} {
		if got, want := slices.Sorted(maps.Keys(root.Defs[name].Properties)), keysOf(v); !slices.Equal(got, want) {
			t.Errorf("the schema's %s has %q, the code %q", name, got, want)
		}
	}
	if more := root.Defs["verdict"].More; more == nil || *more {
		t.Error("a verdict with other keys is refused, and the schema must say so")
	}
	// The test itself notices something.
	if errs := root.errors(root, "event", map[string]any{"version": 2.0, "point": "x", "hook": 1.0, "other": ""}); len(errs) != 5 {
		t.Errorf("%q", errs)
	}
}

func TestPageNamesEveryPointAndKey(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	words := keysOf(Event{})
	for _, p := range Points() {
		words = append(words, string(p))
	}
	for _, w := range append(words, keysOf(answer{})...) {
		if !strings.Contains(string(text), "`"+w+"`") {
			t.Errorf("docs/hooks.md does not name %s", w)
		}
	}
}
