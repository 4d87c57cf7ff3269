package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// introduced reads who a load balancer says that its client is, where the table has
// it that this one begins its connections so: the PROXY protocol, versions 1 and 2.
// It returns false if it does not. Others never do: what they send is no
// introduction, whatever it looks like.
func (c *client) introduced() bool {
	if !within(c.server.table.Load().Introduced, c.remote) {
		return true
	}
	c.sock.in.by = c.clock.now() + int64(c.server.settings.Header)
	who, err := readIntroduction(c.sock)
	if err != nil {
		c.counts.nameless.Add(1)
		return false
	}
	c.sock.in.by, c.led = 0, true
	if who.IsValid() {
		c.remote = who
		c.introduce()
	}
	return true
}

func within(all []netip.Prefix, addr netip.Addr) bool {
	for _, prefix := range all {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// Bounds of an introduction, in bytes. That of version 2 leaves room for what some
// load balancers add.
const (
	maxText1 = 107
	maxRest2 = 4 << 10
)

// signature2 begins version 2. It is as long as the shortest part of version 1 that
// tells what follows.
const signature2 = "\r\n\r\n\x00\r\nQUIT\n"

var errIntroduction = errors.New("the connection does not begin with the PROXY protocol")

// readIntroduction reads one, and not a byte more. The address is not valid if the
// connection is of the load balancer itself, or if it does not know.
func readIntroduction(r io.Reader) (netip.Addr, error) {
	var b [maxText1]byte
	start := b[:len(signature2)]
	if _, err := io.ReadFull(r, start); err != nil {
		return netip.Addr{}, err
	}
	if string(start) == signature2 {
		return readIntroduction2(r)
	}
	if !strings.HasPrefix(string(start), "PROXY ") {
		return netip.Addr{}, errIntroduction
	}
	for n := len(start); n < len(b); n++ {
		if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
			return netip.Addr{}, err
		}
		if b[n] == '\n' {
			return introduction1(b[:n+1])
		}
	}
	return netip.Addr{}, errIntroduction
}

// introduction1 understands version 1: one line of text.
func introduction1(line []byte) (netip.Addr, error) {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	words := strings.Split(string(text), " ")
	if ok && len(words) > 1 && words[1] == "UNKNOWN" {
		return netip.Addr{}, nil
	}
	if !ok || len(words) != 6 || !isPort(words[4]) || !isPort(words[5]) {
		return netip.Addr{}, errIntroduction
	}
	from, err := netip.ParseAddr(words[2])
	to, other := netip.ParseAddr(words[3])
	if err != nil || other != nil || from.Zone() != "" || to.Zone() != "" ||
		words[1] == "TCP4" && !(from.Is4() && to.Is4()) || words[1] == "TCP6" && !(from.Is6() && to.Is6()) || words[1] != "TCP4" && words[1] != "TCP6" {
		return netip.Addr{}, errIntroduction
	}
	return from.Unmap(), nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && text == strconv.FormatUint(n, 10)
}

// readIntroduction2 reads what follows the signature of version 2.
func readIntroduction2(r io.Reader) (netip.Addr, error) {
	var head [4]byte // version and command, family and protocol, length
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.Addr{}, err
	}
	length := int(binary.BigEndian.Uint16(head[2:]))
	if length > maxRest2 {
		return netip.Addr{}, errIntroduction
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(r, rest); err != nil {
		return netip.Addr{}, err
	}
	const local, proxied, unknown, tcp4, tcp6 = 0x20, 0x21, 0x00, 0x11, 0x21
	switch {
	case head[0] == local || head[0] == proxied && head[1] == unknown:
		return netip.Addr{}, nil
	case head[0] == proxied && head[1] == tcp4 && length >= 12:
		return netip.AddrFrom4([4]byte(rest)), nil
	case head[0] == proxied && head[1] == tcp6 && length >= 36:
		return netip.AddrFrom16([16]byte(rest)).Unmap(), nil
	}
	return netip.Addr{}, errIntroduction
}
