package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Hook is one table of the `hook` list: what is asked or told of what happens to
// mail, an executable or a built-in one.
type Hook struct {
	Name     string
	Points   []string // as in package hooks, which knows them
	Command  []string // without a shell; the program's path is absolute, or looked for on the PATH
	Timeout  time.Duration
	Required bool
	Stream   bool     // one process for all events
	Builtin  *Builtin // instead of points, command and mode; nil: it is an executable
}

// hookKeys are a hook's, in the order of the manual page.
func hookKeys() []string {
	return []string{"name", "points", "command", "timeout", "required", "mode", "builtin"}
}

// HookPoints are the points of package hooks, which no internal package
// imports. A test in cmd sees to it that they are the same.
func HookPoints() []string {
	return []string{"pre-sync", "pre-fetch", "pre-write", "post-index", "post-stub", "pre-push", "post-sync"}
}

// hooks reads the list of hooks.
func (r *reader) hooks(v any) []Hook {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		r.fail([]string{"hook"}, "a hook is written as [[hook]], with two brackets")
		return nil
	}
	var out []Hook
	for i, e := range list {
		table, ok := e.(map[string]any)
		if !ok {
			r.fail([]string{"hook"}, "a hook is written as [[hook]], with two brackets")
			return nil
		}
		one := &reader{file: r.file, getenv: r.getenv, lines: r.lines.entry([]string{"hook"}, i)}
		h := one.hook(table)
		for _, o := range out {
			_, named := table["name"]
			switch {
			case o.Name != h.Name || h.Name == "":
			case named:
				one.fail([]string{"hook", "name"}, "there is a hook %q already", h.Name)
			default:
				one.fail([]string{"hook", "builtin"}, "there is a hook %q already; give this one a name", h.Name)
			}
		}
		out = append(out, h)
		r.errs = append(r.errs, one.errs...)
	}
	return out
}

func (r *reader) hook(table map[string]any) Hook {
	t := &section{r: r, key: []string{"hook"}, values: table}
	if t.has("builtin") {
		h := Hook{Name: t.text("builtin"), Builtin: t.builtin()}
		if t.has("name") {
			h.Name = t.required("name")
		}
		t.common(&h)
		return h
	}
	for _, k := range slices.Sorted(maps.Keys(table)) {
		if !slices.Contains(hookKeys(), k) {
			r.unknown(t.path(k), hookKeys(), "")
		}
	}
	h := Hook{Name: t.required("name")}
	t.common(&h)
	t.there("points")
	t.there("command")
	h.Points, _ = t.strings("points", `points: ["pre-write", "post-index"]`)
	if v, ok := table["points"].([]any); ok && len(v) == 0 {
		t.fail("points", "is empty; there is: %s", strings.Join(HookPoints(), ", "))
	}
	for i, p := range h.Points {
		switch {
		case !slices.Contains(HookPoints(), p):
			text := fmt.Sprintf("there is no point %q", p)
			if near := nearest(strings.ReplaceAll(p, "_", "-"), HookPoints()); near != "" {
				text += fmt.Sprintf("; did you mean %q?", near)
			} else {
				text += "; there is: " + strings.Join(HookPoints(), ", ")
			}
			t.fail("points", "%s", text)
		case slices.Contains(h.Points[:i], p):
			t.fail("points", "%q is named twice", p)
		}
	}
	h.Command = t.command("command", `["pass", "show", "mail/work"]`)
	h.Stream = t.oneOf("mode", "event", "event", "stream") == "stream"
	return h
}

// common reads what every hook has.
func (t *section) common(h *Hook) {
	if h.Name != "" && !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`).MatchString(h.Name) {
		t.fail("name", "%q may hold letters, digits and . _ - only, and at most 64 of them", h.Name)
	}
	h.Timeout = t.duration("timeout", 30*time.Second, minTimeout, maxTimeout)
	h.Required = t.boolean("required")
}

// entry gives the positions of the nth table of a list, n from 0.
func (ps positions) entry(list []string, n int) positions {
	var out positions
	at := -1
	for _, p := range ps {
		if len(p.key) < len(list) || !slices.Equal(p.key[:len(list)], list) {
			continue
		}
		if len(p.key) == len(list) {
			at++
		}
		if at == n {
			out = append(out, p)
		}
	}
	return out
}
