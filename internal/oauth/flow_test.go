package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zalando/go-keyring"
	"go.uber.org/goleak"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

func TestMain(m *testing.M) {
	keyring.MockInit() // a bare map, so that no test is parallel to another one
	goleak.VerifyTestMain(m)
}

// provider starts an authorization server with a client for it.
func provider(t *testing.T) (*imaptest.Authorizer, Client) {
	t.Helper()
	a := &imaptest.Authorizer{Rotate: true}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	transport := &http.Transport{DisableKeepAlives: true}
	return a, Client{ID: "client", Secret: "a secret of the client", AuthURL: s.URL + "/authorize", TokenURL: s.URL + "/token",
		Scopes: []string{"mail"}, Account: "work", User: "me@example.org", HTTP: transport}
}

// visit opens an address as a browser does, and gives the status and the page at
// its end.
func visit(t *testing.T, address string) (int, string, *url.URL) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Error(err)
		return 0, "", nil
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return answer.StatusCode, string(page), answer.Request.URL
}

// safe makes sure that none of the provider's secrets is in a text.
func safe(t *testing.T, a *imaptest.Authorizer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for _, s := range a.Secrets() {
			if strings.Contains(text, s) {
				t.Errorf("a secret (%s) is in %q", s, text)
			}
		}
	}
}

// TestLoopback: the browser comes back once; nobody else gets in.
func TestLoopback(t *testing.T) {
	a, c := provider(t)
	var notes []string
	visited := make(chan struct{})
	got, err := c.Loopback(t.Context(), time.Minute, func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 26 || q.Get("login_hint") != "me@example.org" {
			t.Errorf("the address is %s", address)
		}
		back := q.Get("redirect_uri")
		go func() {
			defer close(visited)
			for path, want := range map[string]int{
				"/?code=code-foreign&state=foreign": 400, "/?code=code-foreign": 400, "/": 400, "/favicon.ico": 404,
				"/other?code=code-foreign&state=" + q.Get("state"): 404,
			} {
				if status, page, _ := visit(t, back+path); status != want || strings.Contains(page, "foreign") {
					t.Errorf("%s: %d %s, want %d", path, status, page, want)
				}
			}
			if status, page, _ := visit(t, strings.Replace(back, "127.0.0.1", "localhost", 1)+"/?code=code-foreign&state="+q.Get("state")); status != 404 {
				t.Errorf("another name of the host: %d %s", status, page)
			}
			status, page, at := visit(t, address)
			if status != 200 || !strings.Contains(page, "You can close this page") || at == nil {
				t.Errorf("%d %s at %v", status, page, at)
				return
			}
			if status, page, _ := visit(t, at.String()); status == 200 {
				t.Errorf("a second visit: %d %s", status, page)
			}
		}()
	}, func(text string) { notes = append(notes, text) })
	<-visited
	if err != nil {
		t.Fatal(err)
	}
	if got.Access == "" || got.Refresh == "" || got.ClientID != "client" || got.TokenURL != c.TokenURL || time.Until(got.Expiry) < 59*time.Minute {
		t.Errorf("got %v", got)
	}
	if len(notes) != 3 || !strings.Contains(notes[0], "another sign-in") {
		t.Errorf("notes are %q", notes)
	}
	safe(t, a, notes...)
}

// TestLoopbackSecondVisit: while the first page is still on its way, another visit
// with the right state finds the sign-in over.
func TestLoopbackSecondVisit(t *testing.T) {
	_, c := provider(t)
	f := c.fill().begin("http://127.0.0.1:1")
	visits := make(chan url.Values, 1)
	d := &doorkeeper{flow: f, port: "1", visits: visits, note: func(string) {}}
	for i, want := range []int{200, 410, 410} {
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:1/?code=code-%d&state=%s", i, f.state), nil))
		if w.Code != want {
			t.Errorf("visit %d: %d, want %d", i, w.Code, want)
		}
	}
	if q := <-visits; q.Get("code") != "code-0" || len(visits) != 0 {
		t.Errorf("the code is %q", q.Get("code"))
	}
}

// TestLoopbackEnds: by its time, by the context, by a refusal; no goroutine stays
// (goleak).
func TestLoopbackEnds(t *testing.T) {
	a, c := provider(t)
	if _, err := c.Loopback(t.Context(), time.Millisecond, func(string) {}, func(string) {}); !errors.Is(err, errTime) || !strings.Contains(err.Error(), "notmuch imap login work") {
		t.Errorf("after its time: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Loopback(ctx, time.Minute, func(string) { cancel() }, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	a.Deny = [2]string{"access_denied", "the user said no"}
	done := make(chan struct{})
	_, err := c.Loopback(t.Context(), time.Minute, func(address string) {
		go func() { defer close(done); visit(t, address) }()
	}, func(string) {})
	<-done
	if _, ok := errors.AsType[*Refusal](err); !ok || !strings.Contains(err.Error(), "denied at the provider's page") {
		t.Errorf("denied: %v", err)
	}
	// Somebody who comes and says nothing does not hold it up.
	ctx, cancel = context.WithCancel(t.Context())
	a.Pause = func(r *http.Request) { cancel(); <-r.Context().Done() } // else the answer may be faster
	a.With(func() { a.Deny = [2]string{} })
	done = make(chan struct{})
	_, err = c.Loopback(ctx, time.Minute, func(address string) {
		go func() { defer close(done); visit(t, address) }()
	}, func(string) {})
	<-done
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted while the code is exchanged: %v", err)
	}
}

// TestPaste: what people copy, and what they copy by mistake.
func TestPaste(t *testing.T) {
	for _, c := range []struct {
		name string
		text func(at *url.URL, address string) string
		note string // "" is taken
	}{
		{"the address", func(at *url.URL, _ string) string { return "  " + at.String() + "\r\n" }, ""},
		{"the address in quotes", func(at *url.URL, _ string) string { return `"` + at.String() + `"` }, ""},
		{"the query", func(at *url.URL, _ string) string { return at.RawQuery }, ""},
		{"the code", func(at *url.URL, _ string) string { return at.Query().Get("code") }, ""},
		{"without the scheme", func(at *url.URL, _ string) string { return strings.TrimPrefix(at.String(), "http://") }, ""},
		{"nothing", func(*url.URL, string) string { return " \n" }, "that is nothing"},
		{"garbage", func(*url.URL, string) string { return "ls -l \x1b[31m" }, "neither the address"},
		{"another page", func(*url.URL, string) string { return "https://evil.example/?code=code-abcdefgh&state=x" }, "another page"},
		{"the wrong address", func(_ *url.URL, address string) string { return address }, "the address to open"},
		{"another sign-in", func(at *url.URL, _ string) string {
			return at.Scheme + "://" + at.Host + "/?code=code-abcdefgh&state=other"
		}, "another sign-in"},
		{"no state", func(at *url.URL, _ string) string { return at.Scheme + "://" + at.Host + "/?code=code-abcdefgh" }, "another sign-in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, client := provider(t)
			var notes []string
			var address string
			var at *url.URL
			asked := 0
			_, err := client.Paste(t.Context(), func(to string) {
				address = to
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r) // nobody listens there
				if err != nil {
					t.Fatal(err)
				}
				_ = answer.Body.Close()
				if at, err = answer.Location(); err != nil {
					t.Fatal(err)
				}
			}, func(context.Context) (string, error) {
				if asked++; asked > 1 {
					return "", io.ErrUnexpectedEOF
				}
				return c.text(at, address), nil
			}, func(text string) { notes = append(notes, text) })
			switch {
			case c.note == "" && (err != nil || len(notes) > 0):
				t.Errorf("%v %q", err, notes)
			case c.note != "" && (!errors.Is(err, io.ErrUnexpectedEOF) || len(notes) != 1 || !strings.Contains(notes[0], c.note)):
				t.Errorf("%v %q, want %q", err, notes, c.note)
			}
			safe(t, a, notes...)
		})
	}
}

// handled carries requests to a handler without a network, so that a test's clock
// can be a false one.
type handled struct{ http.Handler }

func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// What cannot be read is blamed on the address that was asked.
func TestDeviceAddressThatIsWrong(t *testing.T) {
	t.Parallel()
	client := Client{ID: "client", AuthURL: "https://login.example.org/authorize", TokenURL: "https://login.example.org/token",
		DeviceURL: "https://device.example.org/wrong", Scopes: []string{"mail"}, Account: "work", HTTP: handled{http.NotFoundHandler()}}
	_, err := client.Device(t.Context(), func(string, string, time.Time) { t.Error("a code is shown") })
	if want := "device.example.org answers with HTTP status 404; try again later, or look at device_url"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestDevice: waiting, being told to wait longer, expiry, denial, Ctrl-C.
func TestDevice(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse [][2]string
		stop   time.Duration // the context ends
		polls  int
		took   time.Duration
		err    string
	}{
		{"at once", nil, 0, 1, 5 * time.Second, ""},
		{"pending", [][2]string{{"authorization_pending", ""}, {"authorization_pending", ""}}, 0, 3, 15 * time.Second, ""},
		{"slow down", [][2]string{{"slow_down", ""}, {"slow_down", ""}}, 0, 3, 30 * time.Second, ""},
		{"denied", [][2]string{{"authorization_pending", ""}, {"access_denied", "no"}}, 0, 2, 10 * time.Second, "denied at the provider's page"},
		{"expired there", [][2]string{{"expired_token", ""}}, 0, 1, 5 * time.Second, "expired before it was entered"},
		{"expired here", slices.Repeat([][2]string{{"authorization_pending", ""}}, 30), 0, 11, time.Minute, "expired before it was entered"},
		{"forbidden", [][2]string{{"invalid_grant", "AADSTS53003: Access has been blocked by Conditional Access policies. Trace ID: 1"}}, 0, 1, 5 * time.Second, "conditional access"},
		{"interrupted", slices.Repeat([][2]string{{"authorization_pending", ""}}, 30), 12 * time.Second, 2, 12 * time.Second, "context canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &imaptest.Authorizer{Refuse: c.refuse}
				client := Client{ID: "client", AuthURL: "https://login.example.org/authorize", TokenURL: "https://login.example.org/token",
					DeviceURL: "https://login.example.org/device", Scopes: []string{"mail"}, Account: "work", HTTP: handled{a}}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.stop > 0 {
					time.AfterFunc(c.stop, cancel)
				}
				begin := time.Now()
				shown := ""
				got, err := client.Device(ctx, func(address, code string, until time.Time) {
					shown = address + " " + code + " " + until.Sub(begin).String()
				})
				if shown != "https://login.example.org/device WDJB-MJHT 1m0s" {
					t.Errorf("shown: %s", shown)
				}
				switch {
				case c.err == "" && (err != nil || got.Access == "" || got.Refresh == ""):
					t.Errorf("%v %v", got, err)
				case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
					t.Errorf("got %v, want %q", err, c.err)
				}
				// Where expiry and a poll come at once, either may be first.
				if n := len(a.Grants()); n != c.polls && (c.name != "expired here" || n != c.polls+1) || time.Since(begin) != c.took {
					t.Errorf("%d polls in %v, want %d in %v", n, time.Since(begin), c.polls, c.took)
				}
				if err != nil {
					safe(t, a, err.Error())
				}
			})
		})
	}
	if _, err := (Client{Provider: "google", ID: "client"}).Device(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "--paste") {
		t.Errorf("without device codes: %v", err)
	}
}
