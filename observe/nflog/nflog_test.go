package nflog

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func attribute(kind uint16, data ...byte) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: data}
}

func marshal(t *testing.T, attributes ...netlink.Attribute) []byte {
	t.Helper()
	bytes, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// logged is a message as the kernel sends it. The suite of data planes reads real
// ones; but not of every kernel do they tell of connections.
func logged(t *testing.T, number uint32, addressKind uint16, address ...byte) []byte {
	nested := func(kind uint16, attributes ...netlink.Attribute) netlink.Attribute {
		return attribute(kind|unix.NLA_F_NESTED, marshal(t, attributes...)...)
	}
	tuple := func(kind uint16, last byte) netlink.Attribute {
		to := append([]byte{}, address...)
		to[len(to)-1] = last
		return nested(kind,
			nested(1, attribute(addressKind-1, make([]byte, len(address))...), attribute(addressKind, to...)),
			nested(2, attribute(1, 6), attribute(2, 0x10, 0), attribute(3, 0, 80)))
	}
	return marshal(t,
		attribute(1, 8, 0, 2, 0), attribute(2, 0, 0, 1, 2), attribute(9, 0x45, 1, 2), attribute(10, []byte("denied\x00")...),
		attribute(12, binary.BigEndian.AppendUint32(nil, number)...), nested(18, tuple(1, 7), tuple(2, 9)))
}

// TestDecode: of a message of the kernel, all is read, of its connection too.
func TestDecode(t *testing.T) {
	var s Socket
	p, err := s.decode(logged(t, 0, 2, 10, 96, 0, 1))
	if got := fmt.Sprintf("%d %q %x %s", p.Mark, p.Prefix, p.Payload, p.Original); err != nil || got != `258 "denied" 450102 10.96.0.7:80` {
		t.Errorf("%v %s", err, got)
	}
	p, err = s.decode(logged(t, 1, 4, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1))
	if got := p.Original.String(); err != nil || got != "[fd00::7]:80" {
		t.Errorf("%v %s", err, got)
	}
	if _, err := s.decode([]byte{200, 0, 9, 0, 1}); err == nil {
		t.Error("a message that is cut off is read")
	}
}

// TestLost: what the kernel had no room for is counted, and numbers begin anew
// after the last.
func TestLost(t *testing.T) {
	var s Socket
	for _, step := range []struct {
		number uint32
		lost   uint64
	}{{0, 0}, {1, 0}, {5, 3}, {6, 3}, {1<<32 - 1, 3 + 1<<32 - 8}, {0, 3 + 1<<32 - 8}, {2, 4 + 1<<32 - 8}} {
		if s.count(step.number); s.Lost() != step.lost {
			t.Errorf("after packet %d, %d are lost, want %d", step.number, s.Lost(), step.lost)
		}
	}
}
