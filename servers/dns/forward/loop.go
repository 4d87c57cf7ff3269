package forward

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/servers/dns"
)

// A loop is an upstream that asks us what we ask it: a resolv.conf that names
// the cluster's DNS, or the site's server that has been told to ask the cluster.
// It is found by asking each upstream for a name that nobody else can know of.
// Only we say that there is such a name. Unlike a server that ends when it finds
// a loop, this one just does not ask that upstream.
//
// The names are not below .invalid: servers answer for that one themselves, and
// would hide that they ask us for all others.

// marks are those names, and the answer to them.
type marks struct {
	identity string // of this server, or, better, of all of this cluster
}

const markLabel = "fairlead-probe"

// newMarks returns marks of an identity that nobody can guess.
func newMarks() *marks { return &marks{identity: randomHex()} }

func randomHex() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	return hex.EncodeToString(random[:])
}

// ask returns a question that has never been asked, about a name in a zone that
// the upstream is asked about.
func (m *marks) ask(zone string) *ask {
	var name strings.Builder
	for _, label := range []string{randomHex(), m.identity, markLabel} {
		name.WriteByte(byte(len(label)))
		name.WriteString(label)
	}
	name.WriteString(zone)
	if name.Len() > maxName { // a zone with a name too long to have names in it
		return &ask{name: zone, qtype: miekg.TypeSOA}
	}
	return &ask{name: name.String(), qtype: miekg.TypeTXT}
}

// isMark tells whether a name on the wire is one of those.
func (m *marks) isMark(name string) bool {
	random := 1 + 2*8
	return len(name) > 2*random+1+len(markLabel) && name[0] == 2*8 && name[random] == 2*8 &&
		name[random+1:2*random] == m.identity &&
		name[2*random] == byte(len(markLabel)) && name[2*random+1:2*random+1+len(markLabel)] == markLabel
}

// answer appends what only we say.
func (m *marks) answer(into []byte, q dns.Question) []byte {
	into = fail(into, q, rcodeSuccess)
	into[len(into)-len(q.Name)-4-headerLen+7] = 1
	into = append(into, 0xc0, headerLen, 0, byte(miekg.TypeTXT), 0, classIN, 0, 0, 0, 0, 0, byte(1+len(m.identity)), byte(len(m.identity)))
	return append(into, m.identity...)
}

// ours tells whether an upstream's answer to a mark is what only we say.
func (m *marks) ours(raw []byte, a *ask) bool {
	var msg miekg.Msg
	if a.qtype != miekg.TypeTXT || msg.Unpack(raw) != nil {
		return false
	}
	for _, rr := range msg.Answer {
		if txt, ok := rr.(*miekg.TXT); ok && len(txt.Txt) == 1 && txt.Txt[0] == m.identity {
			return true
		}
	}
	return false
}
