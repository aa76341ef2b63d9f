package cmd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
)

// signIn tries the values, until they work or the person gives up.
func (s *setup) signIn(ctx context.Context) error {
	for {
		a, err := s.configured()
		if err != nil {
			return err
		}
		if err = s.try(ctx, a); err == nil {
			s.say("signed in.")
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wrong, ok := errors.AsType[*usageError](err); ok {
			return wrong
		}
		if err := s.mend(ctx, a, err); err != nil {
			return err
		}
	}
}

// try signs in once.
func (s *setup) try(ctx context.Context, a *config.Account) error {
	o, err := remoteOptions(a, s.newSecrets(nil))
	if err != nil {
		return err
	}
	if s.secret != "" {
		o.Password = func(context.Context) (string, error) { return s.secret, nil }
	}
	if a.OAuth != nil {
		if o.Token, o.Explain, err = s.bearer(ctx, a); err != nil {
			return err
		}
	}
	o.Timeout = min(o.Timeout, trialTime)
	o.Alert = func(text string) { s.say("the server says: %s", plain(text)) }
	s.person.tell("signing in as " + plain(a.User) + " at " + plain(net.JoinHostPort(a.Host, strconv.Itoa(a.Port))) + " ...\n")
	s.session, err = remote.Dial(ctx, o)
	return err
}

// trialTime is the longest silence that a server is granted while somebody waits.
const trialTime = 20 * time.Second

// mend says why the sign-in failed and asks what to change. Its error ends the
// set-up; nothing was changed then.
func (s *setup) mend(ctx context.Context, a *config.Account, failed error) error {
	s.complain(a.Name, failed)
	s.letter(failed)
	print, shown := fingerprint(failed)
	if shown != "" {
		s.say("%s", shown)
	}
	if !s.person.there() {
		if print != "" && s.account.Pin == "" {
			s.say("-> if it is the server's own, give --tls-pin %s", print)
		} else if advice := signInAdvice(a, failed); advice != "" {
			s.say("-> %s", plain(advice))
		}
		s.say("nothing was changed.")
		return endOfTrial(failed)
	}
	if print != "" && s.account.Pin == "" {
		trust, err := s.person.agrees(ctx, "trust exactly this certificate from now on?", false)
		if err != nil {
			return err
		}
		if trust {
			s.account.Pin = print
			return nil
		}
	} else if advice := signInAdvice(a, failed); advice != "" {
		s.say("-> %s", plain(advice))
	}
	choices := []choice{{"server", "change host, port, tls or user"}, {"password", "type the password again"}, {"quit", "change nothing"}}
	if a.OAuth != nil {
		choices[1] = choice{"browser", "sign in by the browser once more"}
		choices = slices.Insert(choices, 2, choice{"client", "give another client id"})
	}
	if f, ok := errors.AsType[*mail.Fault](failed); !ok && a.OAuth != nil || ok && (f.Kind == mail.KindAuth || f.Kind == mail.KindNotConnected || f.Kind == mail.KindSecret) {
		choices[0], choices[1] = choices[1], choices[0]
	}
	switch what, err := s.person.chooses(ctx, "what now?", "--yes", choices); {
	case err != nil:
		return err
	case what == "server":
		return s.edit(ctx)
	case what == "password":
		return s.password(ctx)
	case what == "browser":
		s.token = nil
		return nil
	case what == "client":
		s.token, s.account.OAuth.ClientID, s.account.OAuth.ClientSecret = nil, "", ""
		return s.client(ctx)
	}
	s.say("nothing was changed.")
	return endOfTrial(failed)
}

// endOfTrial tells how a set-up ends whose sign-in failed so.
func endOfTrial(failed error) error {
	f, ok := errors.AsType[*mail.Fault](failed)
	switch {
	case isRefused(failed):
		return errRefused
	case ok && slices.Contains([]mail.Kind{mail.KindDial, mail.KindThrottled, mail.KindCrowded, mail.KindBye, mail.KindCut, mail.KindSilent}, f.Kind):
		return errLater
	}
	return errTold
}

// fingerprint gives what tls_pin wants to have, and what to show of the
// certificate, of a server that is not trusted.
func fingerprint(err error) (pin, text string) {
	wrong, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(wrong.UnverifiedCertificates) == 0 {
		return "", ""
	}
	cert := wrong.UnverifiedCertificates[0]
	pin = fmt.Sprintf("sha256:%x", sha256.Sum256(cert.Raw))
	return pin, fmt.Sprintf("The server's certificate is for %s,\nmade by %s, valid until %s, with the fingerprint\n  %s\nCompare it with what the server's owner says.",
		plain(either(strings.Join(cert.DNSNames, ", "), cert.Subject.String())), plain(cert.Issuer.String()), cert.NotAfter.Local().Format("2006-01-02"), pin)
}

func (s *setup) hangUp() {
	if s.session != nil {
		_ = s.session.Close() // its work is done
	}
}
