// Package outside is the names of the lab's internet: a DNS server that knows a
// few, and says of all others that there are none. It keeps no state; Run may be
// called once for each set of addresses.
package outside

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Zone is the only domain that there is outside of a lab. Any name of one label
// below it is that of the machine internet, but for these: four20 has the one address
// that ends in 20 instead, in decimal, and six20 that of IPv6; alias-NAME stands for
// NAME.
const Zone = "example.com."

// ttl of all records, in seconds.
const ttl = 30

// Run answers by UDP and TCP at port 53 of the addresses, which are those of the
// machine internet, until the context ends.
func Run(ctx context.Context, own []netip.Addr) error {
	mux := dns.NewServeMux()
	mux.HandleFunc(".", func(w dns.ResponseWriter, query *dns.Msg) { _ = w.WriteMsg(answer(query, own)) })
	group, ctx := errgroup.WithContext(ctx)
	for _, addr := range own {
		for _, protocol := range []string{"udp", "tcp"} {
			server := &dns.Server{Addr: netip.AddrPortFrom(addr, 53).String(), Net: protocol, Handler: mux}
			stop := context.AfterFunc(ctx, func() { _ = server.Shutdown() })
			group.Go(func() error {
				defer stop()
				if err := server.ListenAndServe(); err != nil && ctx.Err() == nil {
					return fmt.Errorf("answering at %s %s: %w", protocol, addr, err)
				}
				return nil
			})
		}
	}
	return group.Wait()
}

// answer is what is said to a query.
func answer(query *dns.Msg, own []netip.Addr) *dns.Msg {
	message := new(dns.Msg).SetReply(query)
	message.Authoritative, message.RecursionAvailable = true, true
	if len(query.Question) != 1 {
		return message.SetRcode(query, dns.RcodeFormatError)
	}
	question := query.Question[0]
	name := strings.ToLower(question.Name)
	label, within := strings.CutSuffix(name, "."+Zone)
	switch exists := within && !strings.Contains(label, "."); {
	case !exists && name != Zone:
		message.Rcode = dns.RcodeNameError
	case exists:
		message.Answer = records(question, label, own)
	}
	if len(message.Answer) == 0 {
		message.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: Zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
			Ns:  "ns." + Zone, Mbox: "hostmaster." + Zone, Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
		}}
	}
	return message
}

// records are those of a label, at the end of which there are addresses.
func records(question dns.Question, label string, own []netip.Addr) (all []dns.RR) {
	if to, ok := strings.CutPrefix(label, "alias-"); ok {
		head := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: ttl}
		all = append(all, &dns.CNAME{Hdr: head, Target: to + "." + Zone})
		question.Name = to + "." + Zone
		return append(all, records(question, to, own)...)
	}
	for prefix, is4 := range map[string]bool{"four": true, "six": false} {
		number, ok := strings.CutPrefix(label, prefix)
		last, err := strconv.ParseUint(number, 10, 8)
		if !ok || err != nil {
			continue
		}
		var some []netip.Addr
		for _, addr := range own {
			if bytes := addr.AsSlice(); addr.Is4() == is4 {
				bytes[len(bytes)-1] = byte(last)
				addr, _ = netip.AddrFromSlice(bytes)
				some = append(some, addr)
			}
		}
		own = some
	}
	return addresses(question, own)
}

func addresses(question dns.Question, own []netip.Addr) (all []dns.RR) {
	for _, addr := range own {
		head := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
		switch {
		case question.Qtype == dns.TypeA && addr.Is4():
			all = append(all, &dns.A{Hdr: head, A: addr.AsSlice()})
		case question.Qtype == dns.TypeAAAA && addr.Is6():
			all = append(all, &dns.AAAA{Hdr: head, AAAA: addr.AsSlice()})
		}
	}
	return all
}
