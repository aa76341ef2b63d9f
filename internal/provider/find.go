package provider

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Patience bounds all look-ups for one address together.
const Patience = 5 * time.Second

// Resolver is the part of net.Resolver that is asked.
type Resolver interface {
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Finder looks servers up. Its zero value asks the system's resolver and the
// network, through the proxy of the environment if there is one.
type Finder struct {
	Resolver Resolver
	Client   *http.Client // nil: one that speaks https alone
}

// Find gives the proposals for an address, the best first; none if nothing is
// known. It asks everywhere at once and takes Patience at most. The error is the
// context's: that a place knows nothing, or does not answer, is none.
//
// The order is: our own table by the domain, which somebody has tried; the
// domain's own word over https; our table by the host that takes the domain's
// mail; the DNS (RFC 6186), which anybody on the way can forge where it is not
// signed, so that it comes last.
func (f Finder) Find(ctx context.Context, a Address) ([]Server, error) {
	if r := ofDomain(a.Domain); r != nil {
		return []Server{r.server("the built-in table of providers")}, ctx.Err()
	}
	within, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	places := []func(context.Context, Address) ([]Server, error){f.autoconfig, f.exchanger, f.srv}
	found := make([][]Server, len(places))
	var group sync.WaitGroup
	for i, place := range places {
		group.Go(func() {
			// A place that does not answer is a place that knows nothing.
			found[i], _ = place(within, a)
		})
	}
	group.Wait()
	var out []Server
	for _, servers := range found {
		for _, s := range servers {
			if p, ok := ByHost(s.Host); ok {
				s.Preset = p
			}
			out = append(out, s)
		}
	}
	return out, ctx.Err()
}

func (f Finder) resolver() Resolver {
	if f.Resolver != nil {
		return f.Resolver
	}
	return net.DefaultResolver
}

// exchanger looks the host that takes the domain's mail up in the table: that is
// how a domain of one's own at a large provider is recognised.
func (f Finder) exchanger(ctx context.Context, a Address) ([]Server, error) {
	hosts, err := f.resolver().LookupMX(ctx, a.Domain+".")
	if err != nil {
		return nil, err
	}
	for _, mx := range hosts {
		if r := ofExchanger(mx.Host); r != nil {
			return []Server{r.server(fmt.Sprintf("the built-in table, since %s takes the mail of %s", mx.Host, a.Domain))}, nil
		}
	}
	return nil, errNothing
}

// srv asks the DNS (RFC 6186 3.2, RFC 8314 5.1). A target of "." says that there
// is no such service.
func (f Finder) srv(ctx context.Context, a Address) ([]Server, error) {
	kinds := []struct{ service, tls string }{{"imaps", "implicit"}, {"imap", "starttls"}}
	found := make([][]Server, len(kinds))
	var group sync.WaitGroup
	for i, k := range kinds {
		group.Go(func() {
			_, records, err := f.resolver().LookupSRV(ctx, k.service, "tcp", a.Domain+".")
			if err != nil {
				return
			}
			for _, r := range records {
				host, ok := hostName(r.Target)
				if !ok || r.Port == 0 {
					continue
				}
				found[i] = append(found[i], Server{Host: host, Port: int(r.Port), TLS: k.tls, User: UserAddress,
					Source: fmt.Sprintf("the DNS of %s (SRV _%s._tcp)", a.Domain, k.service)})
			}
		})
	}
	group.Wait()
	out := append(found[0], found[1]...)
	if len(out) == 0 {
		return nil, errors.Join(errNothing, ctx.Err())
	}
	return out, nil
}
