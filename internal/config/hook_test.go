package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const oneAccount = "[account.a]\nhost = \"h\"\nuser = \"u\"\nkeyring = true\n"

func TestHooksOfTheFile(t *testing.T) {
	t.Parallel()
	c, err := parse("f", []byte(oneAccount+`[[hook]]
name = "big.mail"
points = ["pre-fetch", "post-sync"]
command = ["~/bin/big", "10M"]
[[hook]]
name = "spam"
points = ["pre-write"]
command = ["spam"]
timeout = "2m"
required = true
mode = "stream"
`), env("HOME", "/home/me"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Hook{
		{Name: "big.mail", Points: []string{"pre-fetch", "post-sync"}, Command: []string{"/home/me/bin/big", "10M"}, Timeout: 30 * time.Second},
		{Name: "spam", Points: []string{"pre-write"}, Command: []string{"spam"}, Timeout: 2 * time.Minute, Required: true, Stream: true},
	}
	if got := c.Accounts[0].Hooks; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestWrongHooksAreToldByLine(t *testing.T) {
	t.Parallel()
	_, err := parse("f", []byte(oneAccount+`[[hook]]
name = "a"
points = ["pre-fetch"]
command = ["x"]
[[hook]]
name = "a"
points = ["pre_write", "new"]
comand = ["x"]
mode = "fast"
[[hook]]
name = "-rf"
points = []
command = []
timeout = "1ms"
`), env())
	want := `f:9: hook.command: is missing
f:10: hook.name: there is a hook "a" already
f:11: hook.points: there is no point "new"; there is: pre-sync, pre-fetch, pre-write, post-index, post-stub, pre-push, post-sync
f:11: hook.points: there is no point "pre_write"; did you mean "pre-write"?
f:12: hook.comand: unknown key; did you mean "command"?
f:13: hook.mode: "fast" is not one of "event", "stream"
f:15: hook.name: "-rf" may hold letters, digits and . _ - only, and at most 64 of them
f:16: hook.points: is empty; there is: pre-sync, pre-fetch, pre-write, post-index, post-stub, pre-push, post-sync
f:17: hook.command: names no program; write ["pass", "show", "mail/work"]
f:18: hook.timeout: "1ms" is not between "1s" and "1h"`
	if err == nil || !sameLines(err.Error(), want) {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	for _, text := range []string{"[hook]\nname = \"a\"\n", "hook = [1]\n", "[hooks]\n"} {
		if _, err := parse("f", []byte(text+oneAccount), env()); err == nil || !strings.Contains(err.Error(), "[[hook]]") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func sameLines(a, b string) bool {
	count := map[string]int{}
	for _, l := range strings.Split(a, "\n") {
		count[l]++
	}
	for _, l := range strings.Split(b, "\n") {
		count[l]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}
