package hooks

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func nothing(context.Context, *Event) (Verdict, error) { return Verdict{}, nil }

func says(v Verdict, err error) func(context.Context, *Event) (Verdict, error) {
	return func(context.Context, *Event) (Verdict, error) { return v, err }
}

func TestValidateRefusesWhatIsNotWhole(t *testing.T) {
	t.Parallel()
	good := Hook{Name: "tags.by-list_1", Doc: "tags", Points: []Point{PreWrite}, Run: nothing}
	for want, change := range map[string]func(*Hook){
		"":                                func(*Hook) {},
		"no documentation":                func(h *Hook) { h.Doc = " " },
		"is empty":                        func(h *Hook) { h.Name = "" },
		"letters, digits":                 func(h *Hook) { h.Name = "a b" },
		`begins with "-"`:                 func(h *Hook) { h.Name = "-rf" },
		"longer than 64":                  func(h *Hook) { h.Name = strings.Repeat("a", 65) },
		"names no point":                  func(h *Hook) { h.Points = nil },
		`no point "pre-new"; there is: p`: func(h *Hook) { h.Points = []Point{"pre-new"} },
		"named twice":                     func(h *Hook) { h.Points = []Point{PreWrite, PreWrite} },
		"nothing to run":                  func(h *Hook) { h.Run = nil },
		"timeout is negative":             func(h *Hook) { h.Timeout = -1 },
	} {
		h := good
		change(&h)
		_, err := NewRunner([]Hook{h})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := Validate([]Hook{good, good}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("two of a name: %v", err)
	}
}

func ask(t *testing.T, e Event, list ...Hook) Outcome {
	t.Helper()
	for i := range list {
		list[i].Doc = "a test"
		list[i].Name = either(list[i].Name, string(rune('a'+i)))
		if list[i].Points == nil {
			list[i].Points = []Point{PreWrite}
		}
	}
	r, err := NewRunner(list)
	if err != nil {
		t.Fatal(err)
	}
	e.Point = Point(either(string(e.Point), string(PreWrite)))
	out, err := r.Ask(t.Context(), e, false)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestHooksAreAskedInOrderUntilOneObjects(t *testing.T) {
	t.Parallel()
	var seen []string
	see := func(v Verdict) func(context.Context, *Event) (Verdict, error) {
		return func(_ context.Context, e *Event) (Verdict, error) {
			seen = append(seen, e.Hook+":"+strings.Join(e.Tags, ","))
			return v, nil
		}
	}
	out := ask(t, Event{Tags: []string{"inbox"}},
		Hook{Run: see(Verdict{Add: []string{"x", "y"}})},
		Hook{Run: see(Verdict{Add: []string{"z"}, Remove: []string{"x", "inbox"}})},
		Hook{Run: see(Verdict{}), Points: []Point{PrePush}},
		Hook{Run: see(Verdict{Action: Skip, Reason: "big\nand\tbad"})},
		Hook{Run: see(Verdict{})})
	if want := []string{"a:inbox", "b:inbox,x,y", "d:y,z"}; !slices.Equal(seen, want) {
		t.Errorf("asked %q, want %q", seen, want)
	}
	if out.Action != Skip || out.By != "d" || out.Reason != "big; and; bad" || !slices.Equal(out.Add, []string{"y", "z"}) || !slices.Equal(out.Remove, []string{"inbox", "x"}) {
		t.Errorf("%+v", out)
	}
}

func TestFailingHookLetsPassUnlessItIsRequired(t *testing.T) {
	t.Parallel()
	bad := map[string]func(context.Context, *Event) (Verdict, error){
		"it crashed: runtime error: index out of range": func(_ context.Context, e *Event) (Verdict, error) {
			return Verdict{Reason: e.Flags[7]}, nil
		},
		"one; two":                      says(Verdict{Action: Skip}, errors.New("one\ntwo")),
		`an action is pass, skip or`:    says(Verdict{Action: "delete"}, nil),
		`begins with "-"`:               says(Verdict{Add: []string{"-x"}}, nil),
		"longer than notmuch's limit":   says(Verdict{Add: []string{strings.Repeat("x", 201)}}, nil),
		"holds a control character":     says(Verdict{Remove: []string{"a\nb"}}, nil),
		"no answer within 10ms":         func(ctx context.Context, _ *Event) (Verdict, error) { <-ctx.Done(); return Verdict{}, ctx.Err() },
		"the tag \"\" is empty":         says(Verdict{Add: []string{""}}, nil),
		"at post-index, where a hook i": nil,
	}
	for want, run := range bad {
		for _, required := range []bool{false, true} {
			h := Hook{Run: run, Required: required, Timeout: time.Minute}
			if strings.HasPrefix(want, "no answer") {
				h.Timeout = 10 * time.Millisecond
			}
			e := Event{Point: PreWrite}
			if run == nil {
				h.Run, h.Points, e.Point = says(Verdict{Action: Defer}, nil), []Point{PostIndex}, PostIndex
			}
			next := Hook{Run: says(Verdict{Add: []string{"next"}}, nil)}
			out := ask(t, e, h, next)
			if len(out.Failed) != 1 || !strings.Contains(out.Failed[0].Err.Error(), want) {
				t.Errorf("want %q, got %+v", want, out.Failed)
			}
			held := required && e.Point.Pre()
			if held != (out.Action == Defer && out.Forced) || !held && out.Action != Pass {
				t.Errorf("%q, required %v: %+v", want, required, out)
			}
			if e.Point == PreWrite && !held != slices.Equal(out.Add, []string{"next"}) {
				t.Errorf("%q, required %v: the next hook gave %q", want, required, out.Add)
			}
		}
	}
}

func TestHookThatFailsAgainAndAgainIsLeftOut(t *testing.T) {
	t.Parallel()
	n := 0
	r, err := NewRunner([]Hook{{Name: "a", Doc: "x", Points: []Point{PreWrite}, Run: func(context.Context, *Event) (Verdict, error) {
		if n++; n == 2 {
			return Verdict{}, nil // it gets better once
		}
		return Verdict{}, errors.New("broken")
	}}})
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for range 20 {
		out, err := r.Ask(t.Context(), Event{Point: PreWrite}, false)
		if err != nil || out.Action != Pass {
			t.Fatal(out, err)
		}
		failed += len(out.Failed)
	}
	if n != 2+patience || failed != 19 {
		t.Errorf("called %d times, failed %d times", n, failed)
	}
}

func TestHookThatNeverReturnsIsLeftBehind(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	var n atomic.Int32
	begun := make(chan struct{}, 3)
	r, err := NewRunner([]Hook{{Name: "a", Doc: "x", Points: []Point{PreWrite}, Timeout: time.Millisecond, Run: func(context.Context, *Event) (Verdict, error) {
		n.Add(1)
		begun <- struct{}{}
		<-release
		return Verdict{}, nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if out, err := r.Ask(t.Context(), Event{Point: PreWrite}, false); err != nil || len(out.Failed) != 1 || out.Action != Pass {
			t.Errorf("%+v %v", out, err)
		}
	}
	<-begun // its time may be over before it begins
	if n.Load() != 1 {
		t.Errorf("called %d times", n.Load())
	}
	r.Apart(func() {}) // and it keeps nobody from notmuch
}

func TestInterruptionIsNoFailure(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := NewRunner([]Hook{{Name: "a", Doc: "x", Points: []Point{PreWrite}, Run: func(ctx context.Context, _ *Event) (Verdict, error) {
		cancel()
		<-ctx.Done()
		return Verdict{}, ctx.Err()
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := r.Ask(ctx, Event{Point: PreWrite}, false); !errors.Is(err, context.Canceled) || len(out.Failed) != 0 {
		t.Errorf("%+v %v", out, err)
	}
}

func TestDeferringForTooLongIsAFailure(t *testing.T) {
	t.Parallel()
	for _, required := range []bool{false, true} {
		r, err := NewRunner([]Hook{{Name: "a", Doc: "x", Points: []Point{PreWrite}, Required: required, Run: says(Verdict{Action: Defer}, nil)}})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := r.Ask(t.Context(), Event{Point: PreWrite}, false); err != nil || out.Action != Defer || out.Forced {
			t.Errorf("%+v %v", out, err)
		}
		if out, err := r.Ask(t.Context(), Event{Point: PreWrite}, true); err != nil || out.Forced != required || len(out.Failed) != 1 {
			t.Errorf("%+v %v", out, err)
		}
	}
}

func TestNoRunnerHasNoHooks(t *testing.T) {
	t.Parallel()
	var r *Runner
	if r.At(Points()...) || r.Close() != nil {
		t.Error("it has some")
	}
	if out, err := r.Ask(t.Context(), Event{Point: PreSync}, false); err != nil || out.Action != Pass {
		t.Errorf("%+v %v", out, err)
	}
	ran := false
	r.Apart(func() { ran = true })
	if !ran {
		t.Error("not run")
	}
}

func TestServeAnswersEveryEvent(t *testing.T) {
	t.Parallel()
	list := []Hook{{Name: "lists", Doc: "tags mail of lists", Points: []Point{PreWrite, PostIndex}, Run: func(_ context.Context, e *Event) (Verdict, error) {
		switch e.ListID {
		case "":
			return Verdict{}, nil
		case "bad":
			return Verdict{}, errors.New("bad list")
		}
		return Verdict{Add: []string{e.ListID}}, nil
	}}}
	var out bytes.Buffer
	in := `{"version":1,"point":"pre-write","list_id":"notmuch"}
{"version":1,"point":"pre-write","list_id":"bad"}
{"version":1,"point":"pre-write","new_key":"of a later version"}
{"version":1,"point":"post-index"}
`
	if err := serve(t.Context(), strings.NewReader(in), &out, list); err != nil {
		t.Fatal(err)
	}
	want := `{"action":"pass","add":["notmuch"]}
{"error":"lists: bad list"}
{"action":"pass"}
{}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if err := serve(t.Context(), strings.NewReader(`{"version":2}`), &out, list); err == nil {
		t.Error("an event of another version was taken")
	}
	if err := serve(t.Context(), strings.NewReader(""), &out, []Hook{{Name: "x"}}); err == nil {
		t.Error("a hook without documentation was taken")
	}
}
