package ledger

import (
	"maps"
	"reflect"
	"testing"
)

func TestAChangeIsRecordedAllOrNone(t *testing.T) {
	l := newLedger(t)
	a, b := present(1), present(2)
	if err := l.Save(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
	if err := l.SetMeta(t.Context(), "moving/a", "1"); err != nil {
		t.Fatal(err)
	}
	before := l.all(t)
	nowhere := present(3)
	nowhere.Mailbox = "unknown"
	c := Change{Save: []Message{nowhere}, Forget: []Message{a, present(9)}, Metas: map[string]string{"moving/a": "", "moving/b": "2"}}
	if err := l.Record(t.Context(), c); err == nil {
		t.Error("a mailbox that is not there is no error")
	}
	if got := l.all(t); !reflect.DeepEqual(got, before) {
		t.Errorf("half of it was done: %+v", got)
	}
	metas := func(want map[string]string) {
		t.Helper()
		if got, err := l.Metas(t.Context(), "moving/"); err != nil || !maps.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	metas(map[string]string{"moving/a": "1"})
	c.Save = []Message{a} // what is forgotten and saved is there
	if err := l.Record(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := l.all(t); !reflect.DeepEqual(got, before) {
		t.Errorf("got %+v", got)
	}
	metas(map[string]string{"moving/b": "2"})
}
