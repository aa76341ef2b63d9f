package hooks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"net/textproto"
	"os"
	"slices"
	"strings"
)

// Tags are what a built-in hook gives a mail and takes from it.
type Tags struct{ Add, Remove []string }

func (t Tags) verdict() Verdict { return Verdict{Add: t.Add, Remove: t.Remove} }

// words says them as in the configuration.
func (t Tags) words() string {
	var out []string
	for _, a := range t.Add {
		out = append(out, "+"+a)
	}
	for _, r := range t.Remove {
		out = append(out, "-"+r)
	}
	return strings.Join(out, " ")
}

// Mailboxes tells whether a hook is about a mailbox; nil: about all.
type Mailboxes func(mailbox string) bool

func (m Mailboxes) has(mailbox string) bool { return m == nil || m(mailbox) }

// only gives a run that leaves other mailboxes alone. What is about none, such
// as the end of a run, passes.
func (m Mailboxes) only(run func(context.Context, *Event) (Verdict, error)) func(context.Context, *Event) (Verdict, error) {
	return func(ctx context.Context, e *Event) (Verdict, error) {
		if e.Mailbox != "" && !m.has(e.Mailbox) {
			return Verdict{}, nil
		}
		return run(ctx, e)
	}
}

// maxHeader bounds what is read of a mail.
const maxHeader = 256 << 10

// header is a mail's header, unfolded, the fields of one name in their order.
type header map[string][]string

// headerOf reads the header of a file. Lines that are none are left out, since
// mail is not always as it should be.
func headerOf(file string) (header, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	h := make(header)
	last := ""
	r := bufio.NewReader(io.LimitReader(f, maxHeader))
	for {
		line, err := r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		switch name, value, ok := strings.Cut(line, ":"); {
		case line == "":
			return h, nil // the end of the header, or of the file
		case line[0] == ' ' || line[0] == '\t':
			if n := len(h[last]); n > 0 {
				h[last][n-1] += " " + strings.TrimSpace(line)
			}
		case !ok || strings.ContainsAny(name, " \t"):
			last = ""
		default:
			last = textproto.CanonicalMIMEHeaderKey(name)
			h[last] = append(h[last], strings.TrimSpace(value))
		}
		if err != nil {
			return h, nil // what could be read is enough
		}
	}
}

// first gives the topmost field of a name, which the server that is nearest
// wrote; those below may be the sender's.
func (h header) first(name string) string {
	if fields := h[textproto.CanonicalMIMEHeaderKey(name)]; len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// decoded gives all fields of a name as a person reads them.
func (h header) decoded(name string) []string {
	out := slices.Clone(h[textproto.CanonicalMIMEHeaderKey(name)])
	for i, value := range out {
		if text, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
			out[i] = text
		}
	}
	return out
}

// addresses reads the addresses of a field; none if it cannot be read.
func addresses(field string) []*mail.Address {
	list, err := mail.ParseAddressList(field)
	if err == nil {
		return list
	}
	if one, err := mail.ParseAddress(field); err == nil {
		return []*mail.Address{one}
	}
	// A name without the quotes that it should have.
	name, rest, ok := strings.Cut(field, "<")
	address, _, closed := strings.Cut(rest, ">")
	if ok && closed && plainAddress(address) {
		return []*mail.Address{{Name: strings.Trim(name, `" `), Address: address}}
	}
	return nil
}

// plainAddress tells whether a text is an address that any program can use.
func plainAddress(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && domain != "" && len(s) <= 254 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`<>()[]\,;:"`, r)
	}) && !strings.Contains(domain, "@")
}

// isOwn tells whether a From is one of the user's addresses.
func isOwn(from string, own []string) bool {
	return slices.ContainsFunc(addresses(from), func(a *mail.Address) bool {
		return slices.ContainsFunc(own, func(o string) bool { return strings.EqualFold(o, a.Address) })
	})
}

// bytesOf says a size for a person.
func bytesOf(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
