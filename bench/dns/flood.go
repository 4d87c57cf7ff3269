package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// floodTick is how often a flood sends what is due.
const floodTick = time.Millisecond

// digits are those of the label that makes each name another, and digitsAt is
// where they are in a query.
const (
	digits   = 8
	digitsAt = 13
)

// floodFrom asks for ever new names below a suffix, at a rate, from one address
// and so many ports of it, and takes the answers.
func floodFrom(ctx context.Context, source netip.Addr, at netip.AddrPort, ports int, suffix string, rate int) (tally, error) {
	var t tally
	query, err := new(dns.Msg).SetQuestion("00000000."+suffix, dns.TypeA).Pack()
	if err != nil {
		return t, fmt.Errorf("write the query: %w", err)
	}
	all := make([]*client, 0, ports)
	for range ports {
		c, err := newClient(source, at, [][]byte{query}, 0)
		if err != nil {
			return t, err
		}
		defer c.close()
		if err := unix.SetNonblock(c.fd, true); err != nil {
			return t, fmt.Errorf("make a socket one that does not block: %w", err)
		}
		all = append(all, c)
	}
	began := time.Now()
	for port := 0; ctx.Err() == nil; time.Sleep(floodTick) {
		for due := int(time.Since(began).Seconds() * float64(rate)); t.sent < due; {
			c := all[port%ports]
			port++
			n := min(window, due-t.sent)
			for i := range n {
				c.iovOut[i] = c.load(i)
				number(c.messages[i][digitsAt:digitsAt+digits], t.sent+i)
			}
			if err := c.send(n); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ECONNREFUSED) {
				return t, err
			}
			t.sent += n
			t.answered += c.drain()
		}
	}
	return t, nil
}

// number writes one in hexadecimal.
func number(into []byte, n int) {
	for i := range into {
		into[i] = "0123456789abcdef"[n>>(4*(digits-1-i))&0xf]
	}
}

// drain takes the answers that there are.
func (c *client) drain() (n int) {
	for {
		got, err := receiveMessages(c.fd, c.in[:], unix.MSG_DONTWAIT)
		if n += got; err != nil || got < window {
			return n
		}
	}
}

// openRate is how many connections are opened in a second.
const openRate = 2000

// holdOpen opens connections of so many clients, asks nothing, and holds the latest
// of them.
func holdOpen(ctx context.Context, at netip.AddrPort, clients int) (tally, error) {
	var t tally
	var open [openConnections]net.Conn
	defer func() {
		for _, conn := range open {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}()
	for began := time.Now(); ctx.Err() == nil; time.Sleep(floodTick) {
		for due := int(time.Since(began).Seconds() * openRate); t.sent < due && ctx.Err() == nil; t.sent++ {
			dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(abuser(t.sent%clients), 0))}
			conn, err := dialer.DialContext(ctx, "tcp", at.String())
			if err != nil {
				continue
			}
			t.answered++
			slot := &open[t.sent%openConnections]
			if *slot != nil {
				_ = (*slot).Close()
			}
			*slot = conn
		}
	}
	return t, nil
}
