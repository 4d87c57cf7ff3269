package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
)

// answer is what an upstream has said, cleaned: what belongs to the question
// and nothing else, packed, without EDNS. It is immutable.
type answer struct {
	wire  []byte   // a message with the question in lower case
	ttls  []uint16 // where in it the records have their TTLs, in their order
	rcode uint16
	ttl   time.Duration // how long it may be kept; 0: not at all
	note  string        // what the upstream has said of it besides (RFC 8914), for people
	from  *upstream     // who has given it; nil: nobody
}

// negative tells whether it says that there is nothing (RFC 2308).
func (a *answer) negative() bool {
	return a.rcode == rcodeNXDomain || a.rcode == rcodeSuccess && binary.BigEndian.Uint16(a.wire[6:]) == 0
}

// failed tells whether it says neither that there is something nor that there
// is nothing, so that another upstream may know better.
func (a *answer) failed() bool {
	return a.rcode != rcodeSuccess && a.rcode != rcodeNXDomain && a.rcode != rcodeYXDomain
}

// lifetimes bound how long answers are kept.
type lifetimes struct {
	min, max, negative time.Duration
}

const (
	// maxChain is how many aliases are followed to an answer.
	maxChain = 16
	// failureTTL is how long it is remembered that upstreams cannot answer (RFC
	// 9520, section 3.2: at least a second).
	failureTTL = 5 * time.Second
	// unsignedTTL is for what is said not to be there, without a SOA that says for
	// how long.
	unsignedTTL = 5 * time.Second
)

// clean reads what an upstream has said, which verify has found to answer the
// question, and keeps of it what belongs there: the chain of aliases from the
// name asked for, the records of the type at its end, and, if there are none,
// the SOA that says so. Other records, true or not, were not asked for. An
// error means that the message is no use: another upstream is to be asked.
func clean(raw []byte, a *ask, keep lifetimes) (*answer, error) {
	var msg miekg.Msg
	if err := msg.Unpack(raw); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	out := miekg.Msg{Compress: true}
	out.Response, out.RecursionAvailable, out.AuthenticatedData = true, true, msg.AuthenticatedData
	result := &answer{rcode: uint16(msg.Rcode)}
	if out.Rcode = msg.Rcode; out.Rcode > rcodeBits || out.Rcode == rcodeFormat {
		out.Rcode = rcodeServFail // it is not the client that has made a mistake
	}
	out.Question = []miekg.Question{{Name: nameText(a.name), Qtype: a.qtype, Qclass: classIN}}
	name := out.Question[0].Name
	switch {
	case result.failed():
		result.ttl = failureTTL
	default:
		ttl, err := sections(&out, &msg, name, a)
		if err != nil {
			return nil, err
		}
		result.ttl = clampTTL(&out, ttl, keep)
	}
	if opt := msg.IsEdns0(); opt != nil {
		result.note = noteOf(opt)
	}
	wire, err := out.Pack()
	if err != nil {
		return nil, fmt.Errorf("packing the answer: %w", err)
	}
	// The library takes records that end early, and packs them as what nobody can
	// read.
	if err := new(miekg.Msg).Unpack(wire); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	result.wire = bytes.Clone(wire) // the library has made room for more
	if result.ttls, err = findTTLs(wire); err != nil {
		return nil, err
	}
	return result, nil
}

// sections fills an answer with what belongs to it, and returns for how many
// seconds it may be kept.
func sections(out, msg *miekg.Msg, name string, a *ask) (ttl uint32, err error) {
	kept, last, found, err := chain(msg.Answer, name, a)
	if err != nil {
		return 0, err
	}
	if found && msg.Rcode == rcodeNXDomain {
		return 0, errors.New("the answer says both that there is such a name and that there is none")
	}
	out.Answer = kept
	out.Ns = proofs(msg.Ns, last, found, a.do)
	if found {
		return minTTL(out.Answer, out.Ns), nil
	}
	for _, rr := range out.Ns {
		if soa, ok := rr.(*miekg.SOA); ok {
			return min(minTTL(out.Answer, out.Ns), soa.Minttl), nil
		}
	}
	if len(msg.Answer) > 0 && len(kept) == 0 {
		return 0, errors.New("the answer is to another question")
	}
	for _, rr := range msg.Ns {
		if rr.Header().Rrtype == miekg.TypeNS && !msg.Authoritative {
			return 0, errors.New("the server only refers to others: it is not one that resolves names")
		}
	}
	return min(minTTL(out.Answer, out.Ns), uint32(unsignedTTL/time.Second)), nil
}

// chain follows aliases from the name. It returns the records that lead to what
// was asked for and those that are it, the name at the end, and whether there
// is anything of the type.
func chain(records []miekg.RR, name string, a *ask) (kept []miekg.RR, last string, found bool, err error) {
	for range maxChain {
		var at []miekg.RR
		var alias *miekg.CNAME
		var signatures, above []miekg.RR
		for _, rr := range records {
			header := rr.Header()
			if header.Class != classIN || header.Rrtype == typeOPT {
				continue
			}
			if !strings.EqualFold(header.Name, name) {
				if header.Rrtype == miekg.TypeDNAME && miekg.IsSubDomain(header.Name, name) {
					above = append(above, rr)
				}
				continue
			}
			header.Name = name // one spelling, so that packing makes it a pointer
			switch signature, signs := rr.(*miekg.RRSIG); {
			case header.Rrtype == a.qtype || a.qtype == typeANY:
				at = append(at, rr)
			case header.Rrtype == miekg.TypeCNAME && alias == nil:
				alias, _ = rr.(*miekg.CNAME)
			case signs && a.do && (signature.TypeCovered == a.qtype || signature.TypeCovered == miekg.TypeCNAME):
				signatures = append(signatures, rr)
			}
		}
		if len(at) > 0 {
			return append(append(kept, at...), signatures...), name, true, nil
		}
		if alias == nil {
			return kept, name, false, nil
		}
		kept = append(append(append(kept, above...), alias), signatures...)
		name = miekg.CanonicalName(alias.Target)
	}
	return nil, "", false, fmt.Errorf("more than %d aliases, or a circle of them", maxChain)
}

// proofs are the records of the authority section that say that there is
// nothing, or, for who validates, that a wildcard applies.
func proofs(records []miekg.RR, name string, found, do bool) (kept []miekg.RR) {
	soa := ""
	for _, rr := range records {
		header := rr.Header()
		if header.Class != classIN || !miekg.IsSubDomain(header.Name, name) && !denies(rr) {
			continue
		}
		signature, signs := rr.(*miekg.RRSIG)
		switch {
		case header.Rrtype == miekg.TypeSOA && !found && soa == "":
			soa = header.Name
			kept = append(kept, rr)
		case do && denies(rr), do && signs && signature.TypeCovered == miekg.TypeSOA && !found:
			kept = append(kept, rr)
		}
	}
	return kept
}

// denies tells whether a record is part of a proof by DNSSEC, with its
// signatures. Its owner is a neighbour of the name asked for.
func denies(rr miekg.RR) bool {
	kind := rr.Header().Rrtype
	if signature, ok := rr.(*miekg.RRSIG); ok {
		kind = signature.TypeCovered
	}
	return kind == miekg.TypeNSEC || kind == miekg.TypeNSEC3
}

// minTTL is the shortest, with what is meant by the highest bit (RFC 2181,
// section 8).
func minTTL(sections ...[]miekg.RR) uint32 {
	least := uint32(1<<31 - 1)
	for _, section := range sections {
		for _, rr := range section {
			if rr.Header().Ttl >= 1<<31 {
				rr.Header().Ttl = 0
			}
			least = min(least, rr.Header().Ttl)
		}
	}
	return least
}

// clampTTL bounds how long an answer is kept, and lets its records say so. What
// says that there is nothing is told for no longer than it is kept (RFC 2308,
// section 5).
func clampTTL(out *miekg.Msg, seconds uint32, keep lifetimes) time.Duration {
	least, most := keep.min, keep.max
	denies := out.Rcode == rcodeNXDomain || len(out.Answer) == 0
	if denies {
		least, most = min(least, keep.negative), min(most, keep.negative)
	}
	ttl := min(max(time.Duration(seconds)*time.Second, least), most)
	if most == 0 {
		return 0
	}
	longest := ttl
	if !denies {
		longest = most
	}
	bound := func(section []miekg.RR, most time.Duration) {
		for _, rr := range section {
			rr.Header().Ttl = min(max(rr.Header().Ttl, uint32(ttl/time.Second)), uint32(most/time.Second))
		}
	}
	bound(out.Answer, keep.max)
	bound(out.Ns, longest)
	return ttl
}

// nameText is a name as miekg/dns has it.
func nameText(wire string) string {
	name, _, err := miekg.UnpackDomainName([]byte(wire), 0)
	if err != nil { // it was parsed before
		return "."
	}
	return name
}

// maxNote is how long a note may be, in bytes.
const maxNote = 160

// noteOf is what an upstream says of its answer, short and harmless for logs and
// terminals; empty: nothing.
func noteOf(opt *miekg.OPT) string {
	for _, option := range opt.Option {
		said, ok := option.(*miekg.EDNS0_EDE)
		if !ok {
			continue
		}
		text := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, miekg.ExtendedErrorCodeToString[said.InfoCode]+" "+said.ExtraText)
		return strings.TrimSpace(text[:min(len(text), maxNote)])
	}
	return ""
}
