package cmd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// everyCommand gives the path of each command of the program.
func everyCommand() [][]string {
	var out [][]string
	var each func(cs []*cli.Command, path []string)
	each = func(cs []*cli.Command, path []string) {
		for _, c := range cs {
			p := append(slices.Clip(path), c.Name)
			out = append(out, p)
			each(c.Subcommands, p)
		}
	}
	each((&program{}).app().Commands, nil)
	return out
}

func TestHelpFitsATerminal(t *testing.T) {
	t.Parallel()
	for _, path := range append(everyCommand(), nil) {
		status, out, errs := runHere(t.Context(), nil, append(path, "--help")...)
		if status != 0 || errs != "" || out == "" {
			t.Errorf("%v: status %d, %q", path, status, errs)
		}
		for line := range strings.Lines(out) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
				t.Errorf("%v: %d columns: %s", path, n, line)
			}
			if strings.TrimRight(line, " \n") != strings.TrimSuffix(line, "\n") {
				t.Errorf("%v: blanks at the end: %q", path, line)
			}
		}
	}
}

func TestManualPageKnowsEveryCommandOptionAndStatus(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/notmuch-imap.1")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	app := (&program{}).app()
	_, synopsis, _ := strings.Cut(page, "\n.Sh SYNOPSIS")
	synopsis, _, _ = strings.Cut(synopsis, "\n.Sh ")
	var each func(cs []*cli.Command, parent string)
	each = func(cs []*cli.Command, parent string) {
		for _, c := range cs {
			if c.Hidden {
				continue
			}
			if !strings.Contains(page, "\n.It Cm "+parent+c.Name) && len(c.Subcommands) == 0 {
				t.Errorf("no entry for the command %s%s", parent, c.Name)
			}
			// Commands that are used alike stand in one line.
			if !regexp.MustCompile(`\n\.Cm `+parent+`(\S+ \| )*`+c.Name+`( \||\n)`).MatchString(synopsis) && len(c.Subcommands) == 0 {
				t.Errorf("the synopsis has no command %s%s", parent, c.Name)
			}
			for _, f := range c.Flags {
				// From the command's entry to the next one.
				_, entry, _ := strings.Cut(page, "\n.It Cm "+parent+c.Name)
				entry, _, _ = strings.Cut(entry, "\n.It Cm ")
				if long := f.Names()[0]; !strings.Contains(entry, "Fl -"+long) {
					t.Errorf("%s%s: no entry for --%s", parent, c.Name, long)
				}
				if len(f.Names()) > 1 && !strings.Contains(entry, "\n.It Fl "+f.Names()[1]+" ") {
					t.Errorf("%s%s: no entry for -%s", parent, c.Name, f.Names()[1])
				}
			}
			each(c.Subcommands, c.Name+" Cm ")
		}
	}
	each(app.Commands, "")
	_, status, _ := strings.Cut(page, "\n.Sh EXIT STATUS")
	for _, n := range []int{exitDone, exitBroken, exitUsage, exitPartly, exitLater, exitInterrupted} {
		if !regexp.MustCompile(`\n\.It ` + strconv.Itoa(n) + `\n`).MatchString(status) {
			t.Errorf("exit status %d is not told", n)
		}
		if !regexp.MustCompile(`\n +` + strconv.Itoa(n) + `  `).MatchString(exits) {
			t.Errorf("exit status %d is not in the help", n)
		}
	}
}

func TestManualPageKnowsTheReport(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/notmuch-imap.1")
	if err != nil {
		t.Fatal(err)
	}
	_, events, _ := strings.Cut(string(text), "\n.Sh EVENTS")
	events, _, _ = strings.Cut(events, "\n.Sh ")
	for _, typ := range []reflect.Type{reflect.TypeFor[pipeline.Report](), reflect.TypeFor[pipeline.Event](), reflect.TypeFor[pipeline.Failure]()} {
		for i := range typ.NumField() {
			key, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if key != "-" && !strings.Contains(events, "Ql "+key) {
				t.Errorf("%s: no word of %q", typ.Name(), key)
			}
		}
	}
}

func TestOptionsMayStandAnywhere(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"sync", "sync"},
		{"sync work --quiet", "sync --quiet -- work"},
		{"sync work -m INBOX home", "sync -m INBOX -- work home"},
		{"sync --mailbox=INBOX work", "sync --mailbox=INBOX -- work"},
		{"sync work --config f", "--config f sync -- work"},
		{"--config f sync", "--config f sync"},
		{"sync -- --quiet", "sync -- --quiet"},
		{"hook pre-new work", "hook pre-new -- work"},
		{"sync sync", "sync -- sync"},
		{"snyc --quiet", "--quiet -- snyc"},
		{"sync work -h", "help sync"},
		{"hook pre-new --help", "help hook pre-new"},
		{"sync -- -h", "sync -- -h"},
		{"sync -nq work", "sync -n -q -- work"},
		{"sync -nm INBOX work", "sync -n -m INBOX -- work"},
		{"sync -nm=INBOX", "sync -n -m=INBOX"},
		{"sync -qh", "help sync"},
		{"sync -mn INBOX", "sync -mn -- INBOX"}, // what wants a value stands last
		{"sync -qx", "sync -qx"},
		{"sync -quiet", "sync -quiet"},
		{"status -v work", "status -v -- work"},
		{"sync --yes-delete", "sync --yes-delete"}, // with or without a value
		{"sync --yes-delete work -q", "sync --yes-delete -q -- work"},
		{"sync --yes-delete=work/Trash home", "sync --yes-delete=work/Trash -- home"},
		{"", ""},
	} {
		got, err := arrange((&program{}).app(), append([]string{name}, strings.Fields(tc.args)...))
		if err != nil || strings.Join(got[1:], " ") != tc.want {
			t.Errorf("%q: %q, %v", tc.args, got[1:], err)
		}
	}
}

func TestVerdictIsThatOfTheWorstUnlessNothingWasDone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		ends []ending
		want error
	}{
		{[]ending{endDone, endDone}, nil},
		{[]ending{endDone, endPartly}, errPartly},
		{[]ending{endNothing, endNothing}, errLater},
		{[]ending{endNothing, endDone}, errPartly},
		{[]ending{endNothing, endPartly}, errPartly},
		{[]ending{endBroken, endDone, endNothing, endRefused}, errTold},
		{[]ending{endRefused, endDone, endPartly}, errRefused},
		{[]ending{endRefused, endNothing}, errRefused},
	} {
		if got := verdict(tc.ends); got != tc.want { //nolint:errorlint // the very value
			t.Errorf("%v: %v", tc.ends, got)
		}
	}
}

func TestAHookFailsOnlyOverItsConfiguration(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	env := map[string]string{"HOME": home}
	if status, _, errs := runHere(t.Context(), env, "hook", "pre-new"); status != exitUsage || !strings.Contains(errs, "config.toml") {
		t.Errorf("without a configuration: %d, %s", status, errs)
	}
	dir := filepath.Join(home, ".config", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte("[account.a]\nhost = \"127.0.0.1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := runHere(t.Context(), env, "hook", "pre-new"); status != exitUsage || !strings.Contains(errs, "config.toml:1: account.a.user: is missing") {
		t.Errorf("with a wrong one: %d, %s", status, errs)
	}
	var out bytes.Buffer
	o := &output{stdout: &out, stderr: &out, limit: -1}
	for _, err := range []error{nil, errPartly, errLater, errRefused, errTold, errors.New("disk full")} {
		if got := inHook(t.Context(), o, err); got != nil {
			t.Errorf("%v: %v", err, got)
		}
	}
	if got := out.String(); got != "notmuch-imap: disk full\n" {
		t.Errorf("told %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := inHook(ctx, o, context.Canceled); got == nil {
		t.Error("an interruption was swallowed")
	}
}

// A quoted argument of a macro that goes on behind its quote loses its quotes (mdoc(7)).
func TestManualPageKeepsItsQuotes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/notmuch-imap.1")
	if err != nil {
		t.Fatal(err)
	}
	goesOn := regexp.MustCompile(`^\.[A-Z][a-z] (.* )?"[^"]*"[^ "]`)
	for i, line := range strings.Split(string(text), "\n") {
		if goesOn.MatchString(line) {
			t.Errorf("line %d: %s", i+1, line)
		}
	}
}
