package oauth

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// signedIn gives an account with tokens in a place.
func signedIn(t *testing.T, c Client, place string) Store {
	t.Helper()
	s := Store{Dir: t.TempDir(), User: t.Name()}
	done := make(chan struct{})
	got, err := c.Loopback(t.Context(), time.Minute, func(address string) {
		go func() { defer close(done); visit(t, address) }()
	}, func(string) {})
	<-done
	if err == nil {
		err = s.Save(t.Context(), got, place)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSource: tokens are renewed before their end and after a refusal, and not
// otherwise.
func TestSource(t *testing.T) {
	for _, place := range []string{InKeyring, InFile} {
		t.Run(place, func(t *testing.T) {
			a, c := provider(t)
			store := signedIn(t, c, place)
			if want := map[string]string{InKeyring: "the system's keyring", InFile: filepath.Join(store.Dir, "oauth.json")}[place]; store.Place() != want {
				t.Errorf("kept in %s, want %s", store.Place(), want)
			}
			now := time.Now()
			source := NewSource(c, store, func() time.Time { return now })
			get := func(refused string, grants int) string {
				t.Helper()
				token, err := source.Token(t.Context(), refused)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(a.Grants()); n != grants || !a.Good(token) {
					t.Errorf("%d grants, want %d; good: %v", n, grants, a.Good(token))
				}
				return token
			}
			first := get("", 1)
			if get("", 1) != first || get("another", 1) != first {
				t.Error("a valid token was not kept")
			}
			second := get(first, 2)
			if get(first, 2) != second { // by another connection
				t.Error("renewed twice for one refusal")
			}
			now = now.Add(59*time.Minute + time.Second)
			third := get("", 3)
			if third == second || third == first {
				t.Error("not renewed before its end")
			}
			other := NewSource(c, store, nil)
			if token, err := other.Token(t.Context(), ""); err != nil || token != third {
				t.Errorf("another run: %v, same: %v", err, token == third)
			}
			until, renewable, err := source.Status(t.Context())
			if err != nil || !renewable || until.Before(time.Now().Add(59*time.Minute)) {
				t.Errorf("status: %v %v %v", until, renewable, err)
			}
			if why := source.Explain(); why != "" {
				t.Errorf("explained: %s", why)
			}
		})
	}
}

// TestSourcesDoNotRace: many runs at once, a refresh token that is good once.
func TestSourcesDoNotRace(t *testing.T) {
	a, c := provider(t)
	store := signedIn(t, c, InFile)
	a.Expire()
	old, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	tokens := make([]string, 16)
	for i := range tokens {
		wg.Go(func() {
			var err error
			if tokens[i], err = NewSource(c, store, nil).Token(t.Context(), old.Access); err != nil {
				t.Errorf("run %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i := range tokens {
		if tokens[i] != tokens[0] || !a.Good(tokens[i]) {
			t.Errorf("run %d has a token of its own", i)
		}
	}
	if n := len(a.Grants()); n != 2 {
		t.Errorf("%d grants", n)
	}
}

// TestSourceRefused: what renewing may meet; no error holds a secret, and what was
// kept is kept.
func TestSourceRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, c *Client, s Store)
		refuse [2]string
		want   string
	}{
		{"revoked", nil, [2]string{"invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity."}, "has expired or was revoked"},
		{"used up elsewhere", func(t *testing.T, _ *Client, s Store) {
			old, err := s.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			old.Refresh = "refresh-of-yesterday"
			if err := s.Save(t.Context(), old, ""); err != nil {
				t.Fatal(err)
			}
		}, [2]string{}, "the refresh token *** is of no use"},
		{"another client", func(_ *testing.T, c *Client, _ Store) { c.ID = "other" }, [2]string{}, "another client_id"},
		{"another provider", func(_ *testing.T, c *Client, _ Store) { c.TokenURL += "/elsewhere" }, [2]string{}, "another client_id or token_url"},
		{"signed out", func(t *testing.T, _ *Client, s Store) {
			if err := s.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, [2]string{}, "nobody has signed in to this account; sign in: notmuch imap login work"},
		{"others can read it", func(t *testing.T, _ *Client, s Store) {
			if err := os.Chmod(s.file(), 0o644); err != nil {
				t.Fatal(err)
			}
		}, [2]string{}, "others can read it (mode 0644)"},
		{"no token", func(t *testing.T, _ *Client, s Store) {
			if err := os.WriteFile(s.file(), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, [2]string{}, "is no token"},
		{"unreachable", func(_ *testing.T, c *Client, _ Store) {
			c.HTTP = failing{errors.New("network is unreachable")}
		}, [2]string{}, "network is unreachable; is the network there?"},
		{"no answer of its kind", func(t *testing.T, c *Client, _ Store) {
			c.HTTP = handled{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				w.WriteHeader(http.StatusBadGateway)
				_, _ = w.Write([]byte("<p>" + r.Form.Get("refresh_token")))
			})}
		}, [2]string{}, "answers with HTTP status 502"},
		{"sent elsewhere", func(t *testing.T, c *Client, _ Store) {
			c.HTTP = handled{http.RedirectHandler("https://evil.example/", http.StatusTemporaryRedirect)}
		}, [2]string{}, "answers with HTTP status 307"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, client := provider(t)
			store := signedIn(t, client, InFile)
			refused := a.Secrets()
			if c.spoil != nil {
				c.spoil(t, &client, store)
			}
			a.With(func() { a.Refuse = [][2]string{c.refuse} })
			before, err := os.ReadFile(store.file())
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			late := func() time.Time { return time.Now().Add(2 * time.Hour) }
			_, err = NewSource(client, store, late).Token(t.Context(), "")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			safe(t, a, err.Error())
			after, err := os.ReadFile(store.file())
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if string(after) != string(before) || len(refused) == 0 {
				t.Error("what was kept has changed")
			}
		})
	}
}

type failing struct{ error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.error }

// TestInterruptedRenewal: a refresh token that was sent may be used up, so that
// Ctrl-C does not keep what comes for it from being kept.
func TestInterruptedRenewal(t *testing.T) {
	a, c := provider(t)
	store := signedIn(t, c, InFile)
	old, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	a.Pause = func(*http.Request) { cancel() }
	token, err := NewSource(c, store, nil).Token(ctx, old.Access)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := store.Load(t.Context())
	if err != nil || kept.Access != token || kept.Refresh == old.Refresh {
		t.Errorf("what was kept: %v", err)
	}
	// Before it was sent, Ctrl-C ends it.
	if _, err := NewSource(c, store, nil).Token(ctx, token); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// TestLockWaits: not longer than its context.
func TestLockWaits(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "work")}
	unlock, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx); err == nil || !strings.Contains(err.Error(), "another run is renewing the token") {
		t.Errorf("got %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	unlock()
	unlock, err = s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestStoreMoves: one place holds the tokens; the file is nobody else's.
func TestStoreMoves(t *testing.T) {
	s := Store{Dir: t.TempDir(), User: t.Name()}
	for _, place := range []string{InFile, InKeyring, InFile} {
		if err := s.Save(t.Context(), &Token{Access: "in " + place}, place); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load(t.Context())
		if err != nil || got.Access != "in "+place {
			t.Errorf("%v %v", got, err)
		}
		st, err := os.Stat(s.file())
		if there := err == nil; there != (place == InFile) || there && st.Mode().Perm() != 0o600 {
			t.Errorf("%s: the file: %v %v", place, st, err)
		}
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("after Remove: %v", err)
	}
	// A file that cannot be written leaves nothing half-written.
	gone := Store{Dir: filepath.Join(t.TempDir(), "none"), User: t.Name()}
	if err := gone.Save(t.Context(), &Token{Access: "x"}, InFile); err == nil {
		t.Error("saved into no directory")
	}
}

// TestRevoke: the provider is told, by the token that is worth most.
func TestRevoke(t *testing.T) {
	var got string
	status := http.StatusOK
	c := Client{Provider: "google", ID: "client", HTTP: handled{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got = r.URL.String() + " " + r.PostForm.Get("token")
		w.WriteHeader(status)
	})}}
	token := &Token{Access: "access-x", Refresh: "refresh-x", TokenURL: "https://oauth2.googleapis.com/token"}
	if told, err := c.Revoke(t.Context(), token); err != nil || !told || got != "https://oauth2.googleapis.com/revoke refresh-x" {
		t.Errorf("%v %v %s", told, err, got)
	}
	status = http.StatusServiceUnavailable
	if told, err := c.Revoke(t.Context(), token); err == nil || told || strings.Contains(err.Error(), "-x") {
		t.Errorf("%v %v", told, err)
	}
	got = ""
	token.TokenURL = "https://elsewhere.example/token"
	if told, err := c.Revoke(t.Context(), token); err != nil || told || got != "" {
		t.Errorf("another provider's: %v %v %s", told, err, got)
	}
}
