package ebpf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// What programs answer.
const (
	unspec   = 0xffffffff // TC_ACT_UNSPEC
	shot     = 2
	redirect = 7
)

var (
	local  = netip.MustParseAddr("192.0.2.1")
	remote = netip.MustParseAddr("198.51.100.2")
	router = netip.MustParseAddr("192.0.2.254")
	here   = netip.MustParseAddr("10.244.1.2")
	there  = netip.MustParseAddr("10.244.2.2")
)

// programs are loaded for the node local.
func programs(t *testing.T) *ebpf.Collection {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs needs root")
	}
	loaded, err := load(map[string]uint32{"local": inMemory(local.AsSlice()), "pods": 1, "uplink": 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loaded.Close)
	return loaded
}

func run(t *testing.T, program *ebpf.Program, frame []byte) (uint32, []byte) {
	t.Helper()
	out := make([]byte, len(frame)+64)
	options := ebpf.RunOptions{Data: frame, DataOut: out}
	answer, err := program.Run(&options)
	if err != nil {
		t.Fatal(err)
	}
	return answer, options.DataOut
}

// ipv4 is a packet's header, and the way to change one.
type ipv4 struct {
	source, destination netip.Addr
	protocol, tos, ttl  byte
	flags               uint16
	options             []byte
	payload             []byte
}

func (p ipv4) bytes() []byte {
	raw := make([]byte, 20, 20+len(p.options)+len(p.payload))
	raw[0] = 0x45 + byte(len(p.options)/4)
	raw[1], raw[8], raw[9] = p.tos, p.ttl, p.protocol
	binary.BigEndian.PutUint16(raw[2:], uint16(cap(raw)))
	binary.BigEndian.PutUint16(raw[6:], p.flags)
	copy(raw[12:], p.source.AsSlice())
	copy(raw[16:], p.destination.AsSlice())
	raw = append(raw, p.options...)
	binary.BigEndian.PutUint16(raw[10:], ^sum(raw))
	return append(raw, p.payload...)
}

// frame puts an Ethernet header before a packet. To MAC zero, the kernel takes
// it for the host when it runs a program.
func frame(to []byte, packet []byte) []byte {
	header := make([]byte, 14)
	copy(header, to)
	header[12] = 0x08
	return append(header, packet...)
}

func inner(tos byte) ipv4 {
	return ipv4{source: here, destination: there, protocol: 17, tos: tos, ttl: 63, payload: []byte("payload, but no UDP")}
}

func tunneled(tos byte, packet ipv4) ipv4 {
	return ipv4{source: remote, destination: local, protocol: 4, tos: tos, ttl: 60, flags: 0x4000, payload: packet.bytes()}
}

func TestEncap(t *testing.T) {
	encap := programs(t).Programs["encap"]
	mac, own := PeerMAC(remote), PeerMAC(local)
	for tos := range byte(8) {
		sent := inner(tos)
		answer, out := run(t, encap, frame(mac[:], sent.bytes()))
		want := ipv4{source: local, destination: remote, protocol: 4, tos: tos, ttl: 64, flags: 0x4000, payload: sent.bytes()}
		if answer != redirect || !bytes.Equal(out[14:], want.bytes()) {
			t.Errorf("tos %d: answer %d, packet\n%x, want\n%x", tos, answer, out[14:], want.bytes())
		}
	}
	ipv6 := frame(mac[:], make([]byte, 40))
	ipv6[12], ipv6[13] = 0x86, 0xdd
	for name, test := range map[string]struct {
		frame  []byte
		answer uint32
	}{
		"broadcast":             {frame([]byte{255, 255, 255, 255, 255, 255}, inner(0).bytes()), shot},
		"IPv6":                  {ipv6, shot},
		"divided, to this node": {frame(own[:], inner(0).bytes()), unspec},
	} {
		if answer, out := run(t, encap, test.frame); answer != test.answer || !bytes.Equal(out, test.frame) {
			t.Errorf("%s: answer %d, want %d; packet %x", name, answer, test.answer, out)
		}
	}
}

// TestDecapECN is the table of RFC 6040, 4.2.
func TestDecapECN(t *testing.T) {
	decap := programs(t).Programs["decap"]
	mac := PeerMAC(local)
	const dscp, drop = 0x28, 255
	want := [4][4]byte{ // by inner, then outer: not-ECT, ECT(1), ECT(0), CE
		{0, 0, 0, drop},
		{1, 1, 1, 3},
		{2, 1, 2, 3},
		{3, 3, 3, 3},
	}
	for from, row := range want {
		for outer, to := range row {
			answer, out := run(t, decap, frame(nil, tunneled(byte(outer), inner(dscp|byte(from))).bytes()))
			if to == drop {
				if answer != shot {
					t.Errorf("inner %d, outer %d: answer %d, want a drop", from, outer, answer)
				}
				continue
			}
			packet := frame(mac[:], inner(dscp|to).bytes())
			if answer != redirect || !bytes.Equal(out, packet) {
				t.Errorf("inner %d, outer %d: answer %d, packet\n%x, want\n%x", from, outer, answer, out, packet)
			}
		}
	}
}

func TestDecapRefuses(t *testing.T) {
	loaded := programs(t)
	good := tunneled(0, inner(0))
	damaged := good.bytes()
	damaged[8]--
	fragment, options, elsewhere, udp, short, ipv6 := good, good, good, good, good, good
	fragment.flags = 0x2000
	options.options = make([]byte, 4)
	elsewhere.destination = remote
	udp.protocol = 17
	short.payload = short.payload[:19]
	ipv6.payload = append([]byte{0x60}, make([]byte, 39)...)
	last := good
	last.flags = 100
	for name, test := range map[string]struct {
		packet []byte
		answer uint32
		reason string
	}{
		"first fragment":   {fragment.bytes(), shot, "fragment"},
		"last fragment":    {last.bytes(), shot, "fragment"},
		"damaged":          {damaged, shot, "bad_outer"},
		"too short":        {short.bytes(), shot, "bad_inner"},
		"IPv6 in it":       {ipv6.bytes(), shot, "bad_inner"},
		"with IP options":  {options.bytes(), unspec, ""},
		"to somebody else": {elsewhere.bytes(), unspec, ""},
		"UDP":              {udp.bytes(), unspec, ""},
	} {
		before := counters(t, loaded)
		answer, out := run(t, loaded.Programs["decap"], frame(nil, test.packet))
		if answer != test.answer || !bytes.Equal(out[14:], test.packet) {
			t.Errorf("%s: answer %d, want %d; packet %x", name, answer, test.answer, out)
		}
		for reason, count := range counters(t, loaded) {
			if (count != before[reason]) != (reason == test.reason) {
				t.Errorf("%s: %s went from %d to %d", name, reason, before[reason], count)
			}
		}
	}
}

func TestDecapSkipsOtherHosts(t *testing.T) {
	decap := programs(t).Programs["decap"]
	sent := frame([]byte{2, 0, 0, 0, 0, 9}, tunneled(0, inner(0)).bytes())
	if answer, out := run(t, decap, sent); answer != unspec || !bytes.Equal(out, sent) {
		t.Errorf("to another host's MAC: answer %d, packet %x", answer, out)
	}
}

// quote is an ICMP error of the router about a packet.
func quote(kind, code byte, mtu uint16, packet []byte) ipv4 {
	icmp := []byte{kind, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}
	icmp = append(icmp, packet...)
	binary.BigEndian.PutUint16(icmp[2:], ^sum(icmp))
	return ipv4{source: router, destination: local, protocol: 1, tos: 0xc0, ttl: 64, payload: icmp}
}

func TestRelay(t *testing.T) {
	decap := programs(t).Programs["decap"]
	sent := inner(0).bytes()
	about := ipv4{source: local, destination: remote, protocol: 4, ttl: 61, flags: 0x4000, payload: sent}
	edited := about.bytes()
	edited[8]-- // by a router that does not mend the checksum
	const unreachable, exceeded, host, needed = 3, 11, 1, 4
	for name, test := range map[string]struct {
		icmp ipv4
		want ipv4
	}{
		"too big":              {quote(unreachable, needed, 1400, about.bytes()), quote(unreachable, needed, 1380, sent)},
		"too big, edited":      {quote(unreachable, needed, 1400, edited), quote(unreachable, needed, 1380, sent)},
		"the smallest":         {quote(unreachable, needed, 88, about.bytes()), quote(unreachable, needed, 68, sent)},
		"network unreachable":  {quote(unreachable, 0, 0, about.bytes()), quote(unreachable, host, 0, sent)},
		"protocol unreachable": {quote(unreachable, 2, 0, about.bytes()), quote(unreachable, host, 0, sent)},
		"prohibited":           {quote(unreachable, 13, 0, about.bytes()), quote(unreachable, host, 0, sent)},
		"time exceeded":        {quote(exceeded, 0, 0, about.bytes()), quote(unreachable, host, 0, sent)},
	} {
		test.want.destination = here
		want := frame(nil, test.want.bytes())
		answer, out := run(t, decap, frame(nil, test.icmp.bytes()))
		if answer != unspec || !bytes.Equal(out, want) {
			t.Errorf("%s: answer %d, packet\n%x, want\n%x", name, answer, out, want)
		}
		// What was damaged on the way does not become right.
		header := frame(nil, test.icmp.bytes())
		header[14+8]--
		if _, out := run(t, decap, header); !bytes.Equal(out, header) {
			t.Errorf("%s: a message with a damaged IP header became %x", name, out)
		}
		damaged := frame(nil, test.icmp.bytes())
		damaged[len(damaged)-1] ^= 1
		if _, out := run(t, decap, damaged); sum(out[34:]) == 0xffff {
			t.Errorf("%s: the checksum of a damaged message is right", name)
		}
	}
}

func TestRelayRefuses(t *testing.T) {
	decap := programs(t).Programs["decap"]
	about := ipv4{source: local, destination: remote, protocol: 4, ttl: 61, payload: inner(0).bytes()}
	others, udp := about, about
	others.source = remote
	udp.protocol = 17
	for name, test := range map[string]struct {
		icmp   ipv4
		answer uint32
	}{
		"eight bytes quoted":      {quote(3, 4, 1400, about.bytes()[:28]), shot},
		"an MTU that cannot be":   {quote(3, 4, 87, about.bytes()), shot},
		"about somebody's packet": {quote(3, 4, 1400, others.bytes()), unspec},
		"about UDP":               {quote(3, 4, 1400, udp.bytes()), unspec},
		"echo":                    {quote(8, 0, 0, about.bytes()), unspec},
	} {
		sent := frame(nil, test.icmp.bytes())
		if answer, out := run(t, decap, sent); answer != test.answer || !bytes.Equal(out, sent) {
			t.Errorf("%s: answer %d, want %d; packet\n%x, was\n%x", name, answer, test.answer, out, sent)
		}
	}
}

// TestObjectIsCurrent: who changes a source runs go generate.
func TestObjectIsCurrent(t *testing.T) {
	var sources []byte
	for _, name := range []string{"bpf/ipip.c", "bpf/kernel.h"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, source...)
	}
	compiled, err := os.ReadFile("ipip.o.source")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(compiled), fmt.Sprintf("%x", sha256.Sum256(sources))) {
		t.Error("ipip.o is of other sources; run go generate")
	}
}

// TestInstructions holds the programs small.
func TestInstructions(t *testing.T) {
	for name, program := range programs(t).Programs {
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		verified, _ := info.VerifiedInstructions()
		t.Logf("%s: %d instructions verified", name, verified)
		if verified > 2000 {
			t.Errorf("%s: the verifier looked at %d instructions", name, verified)
		}
	}
}

func counters(t *testing.T, loaded *ebpf.Collection) map[string]uint64 {
	t.Helper()
	spec, err := readObject()
	if err != nil {
		t.Fatal(err)
	}
	values, err := loaded.Maps[spec.Variables["dropped"].SectionName].LookupBytes(uint32(0))
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := parseDropped(spec.Variables["dropped"], values)
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

func TestPeerMAC(t *testing.T) {
	if got := fmt.Sprint(PeerMAC(local)); got != "02:fa:c0:00:02:01" {
		t.Errorf("the MAC of %s is %s", local, got)
	}
}
