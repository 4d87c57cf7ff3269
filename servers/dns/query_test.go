package dns

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// raw makes a message of hexadecimal digits, spaces, and names in angle brackets.
func raw(t testing.TB, text string) (message []byte) {
	t.Helper()
	for _, field := range strings.Fields(text) {
		if name, ok := strings.CutPrefix(field, "<"); ok {
			for label := range strings.SplitSeq(strings.TrimSuffix(name, ">"), ".") {
				message = append(append(message, byte(len(label))), label...)
			}
			continue
		}
		part, err := hex.DecodeString(field)
		if err != nil {
			t.Fatal(err)
		}
		message = append(message, part...)
	}
	return message
}

// TestQueries: what no resolver would send is refused as RFCs say, or not
// answered at all.
func TestQueries(t *testing.T) {
	const (
		header   = "abcd 0100 0001 0000 0000 0000 "
		extra    = "abcd 0100 0001 0000 0000 0001 "
		web      = "<web.default.svc.cluster.local> 00 0001 0001 "
		question = "<web.default.svc.cluster.local> 00"
	)
	served := servedNow(t)
	for _, test := range []struct{ what, message, want string }{
		{"a query", header + web, "NOERROR"},
		{"nothing", "", ""},
		{"half a header", "abcd 0100 0001 00", ""},
		{"a response", "abcd 8100 0001 0000 0000 0000 " + web, ""},
		{"a response to something else", "abcd a800 0000 0000 0000 0000", ""},
		{"a header", "abcd 0100 0000 0000 0000 0000", "FORMERR"},
		{"a status request", "abcd 1000 0001 0000 0000 0000 " + web, "NOTIMP"},
		{"an update", "abcd 2800 0001 0000 0001 0000 " + web, "NOTIMP"},
		{"a notify", "abcd 2000 0001 0000 0000 0000 " + web, "NOTIMP"},
		{"no question", header, "FORMERR"},
		{"two questions", "abcd 0100 0002 0000 0000 0000 " + web + web, "FORMERR"},
		{"an answer", "abcd 0100 0001 0001 0000 0000 " + web + web + "00000000 0000", "FORMERR"},
		{"half a name", header + "<web.default>", "FORMERR"},
		{"half a label", header + "3f 6162", "FORMERR"},
		{"no type", header + question, "FORMERR"},
		{"a pointer to itself", header + "c00c 0001 0001", "FORMERR"},
		{"a pointer into the header", header + "c000 0001 0001", "FORMERR"},
		{"a label of a type of its own", header + "41 00 0001 0001", "FORMERR"},
		{"a name of 255 bytes", header + strings.Repeat("3f"+strings.Repeat("61", 63), 3) + "3d" + strings.Repeat("61", 61) + "00 0001 0001", "REFUSED"},
		{"a name of 256 bytes", header + strings.Repeat("3f"+strings.Repeat("61", 63), 3) + "3e" + strings.Repeat("61", 62) + "00 0001 0001", "FORMERR"},
		{"a thousand labels", header + strings.Repeat("0161", 1000) + "00 0001 0001", "FORMERR"},
		{"bytes of all sorts in a name", header + "04 00ff2e5c 00 0001 0001", "REFUSED"},
		{"class CHAOS", header + "<version.bind> 00 0010 0003", "REFUSED"},
		{"any class", header + question + "0001 00ff", "REFUSED"},
		{"type 0", header + question + "0000 0001", "FORMERR"},
		{"rubbish at the end", header + web + "ffffff", "NOERROR"},
		{"EDNS", extra + web + "00 0029 0200 00000000 0000", "NOERROR"},
		{"EDNS with an option nobody knows", extra + web + "00 0029 0200 00000000 0006 fde9 0002 abcd", "NOERROR"},
		{"EDNS that is longer than the message", extra + web + "00 0029 0200 00000000 0006 fde9 0002 ab", "FORMERR"},
		{"EDNS with half an option", extra + web + "00 0029 0200 00000000 0005 fde9 0002 ab", "FORMERR"},
		{"EDNS with a name", extra + web + "<a> 00 0029 0200 00000000 0000", "FORMERR"},
		{"EDNS twice", "abcd 0100 0001 0000 0000 0002 " + web + "00 0029 0200 00000000 0000 00 0029 0200 00000000 0000", "FORMERR"},
		{"EDNS as an authority", "abcd 0100 0001 0000 0001 0000 " + web + "00 0029 0200 00000000 0000", "FORMERR"},
		{"EDNS of a later version", extra + web + "00 0029 0200 00010000 0000", "BADVERS"},
		{"EDNS that is announced only", extra + web, "FORMERR"},
		{"more records than there is use for", "abcd 0100 0001 0000 0000 ffff " + web, "FORMERR"},
		{"an additional record of another type", extra + web + "c00c 0001 0001 00000000 0004 01020304", "NOERROR"},
	} {
		message := raw(t, test.message)
		got := answered(t, served, memory{}, client, message)
		if got == nil {
			if test.want != "" {
				t.Errorf("%s: no answer, want %s", test.what, test.want)
			}
			continue
		}
		code := got.Rcode
		if code == dns.RcodeBadSig { // the same number
			code = dns.RcodeBadVers
		}
		if name := strings.Replace(dns.RcodeToString[code], "BADSIG", "BADVERS", 1); name != test.want {
			t.Errorf("%s: %s, want %s", test.what, name, test.want)
		}
		if got.Id != 0xabcd || !got.Response || got.Opcode != int(message[2]>>3) {
			t.Errorf("%s: the header is %+v", test.what, got.MsgHdr)
		}
		if strings.HasPrefix(test.what, "EDNS") && (test.want == "NOERROR" || test.want == "BADVERS") {
			if opt := got.IsEdns0(); opt == nil || opt.Version() != 0 || opt.UDPSize() != ednsSize || len(opt.Option) > 0 {
				t.Errorf("%s: OPT is %v", test.what, opt)
			}
		}
	}
}

// TestLetters: the letters of the question come back as they were, which is how
// clients tell answers from forgeries (0x20).
func TestLetters(t *testing.T) {
	message := raw(t, "abcd 0110 0001 0000 0000 0001 <wEb.DEFAULT.sVc.ClUsTeR.LoCaL> 00 0001 0001 00 0029 0200 00008000 0000")
	a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{}, random: 1}
	reply := a.message(servedNow(t), message, client, nil)
	if !bytes.Contains(reply, message[headerSize:headerSize+35]) {
		t.Errorf("%x lacks the question", reply)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	if !answer.CheckingDisabled || !answer.RecursionDesired || !answer.IsEdns0().Do() {
		t.Errorf("CD, RD and DO are not what was asked: %v", answer)
	}
	if len(reply) != len(message)+16 { // a pointer, and an address
		t.Errorf("%d bytes: names are not compressed", len(reply))
	}
}

// TestNoAllocation: names of the cluster cost no memory, neither does what there
// is no such name of.
func TestNoAllocation(t *testing.T) {
	served := servedNow(t)
	l := newLoop(New(nil, nil, nil), nil)
	from := netip.MustParseAddr("127.0.0.1")
	for _, test := range []struct {
		name string
		kind uint16
	}{
		{"web.default.svc.cluster.local.", dns.TypeA}, {"web.default.svc.cluster.local.", dns.TypeAAAA},
		{"many.default.svc.cluster.local.", dns.TypeA}, {"_http._tcp.many.default.svc.cluster.local.", dns.TypeSRV},
		{"none.default.svc.cluster.local.", dns.TypeA}, {"in.default.svc.cluster.local.", dns.TypeA},
		{"20.0.96.10.in-addr.arpa.", dns.TypePTR}, {"cluster.local.", dns.TypeNS}, {"_fairlead.cluster.local.", dns.TypeTXT},
		{"www.example.org.", dns.TypeA}, {"out.default.svc.cluster.local.", dns.TypeA},
	} {
		query := new(dns.Msg).SetQuestion(test.name, test.kind)
		query.SetEdns0(1232, false)
		l.in[0].size = uint32(copy(l.queries[0][:], packed(t, query)))
		if allocations := testing.AllocsPerRun(100, func() {
			if l.one(served, 0, from) == nil {
				t.Fatal("no answer")
			}
		}); allocations > 0 {
			t.Errorf("%s %s: %v allocations", test.name, dns.TypeToString[test.kind], allocations)
		}
	}
}
