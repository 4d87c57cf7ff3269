package forward

import (
	"encoding/binary"
	"time"

	"github.com/fairlead-net/fairlead/servers/dns"
)

// staleTTL is what stale records say (RFC 8767, section 4).
const staleTTL = 30 * time.Second

// tell appends what a client is told: the answer, its TTLs less by its age, or
// those of what is stale. Nothing is allocated if there is room.
func (a *answer) tell(into []byte, age time.Duration, stale bool) []byte {
	base := len(into)
	into = append(into, a.wire...)
	msg := into[base:]
	seconds := uint32(max(age, 0) / time.Second)
	for _, at := range a.ttls {
		ttl := binary.BigEndian.Uint32(msg[at:])
		if stale {
			ttl = uint32(staleTTL / time.Second)
		} else {
			ttl -= min(ttl, seconds)
		}
		binary.BigEndian.PutUint32(msg[at:], ttl)
	}
	return into
}

// fail appends that there is no answer, and not why: EDNS is the Server's.
func fail(into []byte, q dns.Question, rcode uint16) []byte {
	into = append(into, 0, 0)
	into = binary.BigEndian.AppendUint16(into, flagQR|flagRA|rcode)
	into = append(into, 0, 1, 0, 0, 0, 0, 0, 0)
	into = append(into, q.Name...)
	into = binary.BigEndian.AppendUint16(into, q.Type)
	return binary.BigEndian.AppendUint16(into, q.Class)
}
