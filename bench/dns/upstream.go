package main

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// behaviour is how an upstream treats queries.
type behaviour int32

// The behaviours.
const (
	quick behaviour = iota
	slow            // answers after slowness
	lying           // answers something else, with another number, and nonsense
	dead            // does not answer
)

const slowness = 2 * time.Second

// upstream is a server of all names, by UDP and TCP.
type upstream struct {
	addr netip.AddrPort
	is   atomic.Int32
	udp  net.PacketConn
	tcp  *dns.Server
}

func newUpstream() (*upstream, error) {
	u := &upstream{}
	var err error
	if u.addr, err = freeAddress(); err != nil {
		return nil, err
	}
	if u.udp, err = net.ListenPacket("udp", u.addr.String()); err != nil {
		return nil, fmt.Errorf("listen as the upstream: %w", err)
	}
	listener, err := net.Listen("tcp", u.addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen as the upstream: %w", err)
	}
	u.tcp = &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		u.answer(query, func(reply []byte) { _, _ = w.Write(reply) })
	})}
	go func() { _ = u.tcp.ActivateAndServe() }()
	go u.serve()
	return u, nil
}

func (u *upstream) behave(as behaviour) { u.is.Store(int32(as)) }

func (u *upstream) close() {
	_ = u.udp.Close()
	_ = u.tcp.Shutdown()
}

func (u *upstream) serve() {
	for buffer := make([]byte, 1500); ; {
		n, from, err := u.udp.ReadFrom(buffer)
		if err != nil {
			return
		}
		query := new(dns.Msg)
		if query.Unpack(buffer[:n]) == nil {
			u.answer(query, func(reply []byte) { _, _ = u.udp.WriteTo(reply, from) })
		}
	}
}

// answer sends what the upstream has to say.
func (u *upstream) answer(query *dns.Msg, send func([]byte)) {
	say := func(change func(*dns.Msg)) {
		reply := new(dns.Msg).SetReply(query)
		asked := query.Question[0]
		head := dns.RR_Header{Name: asked.Name, Rrtype: asked.Qtype, Class: dns.ClassINET, Ttl: 30}
		reply.Answer = []dns.RR{&dns.A{Hdr: head, A: net.IPv4(192, 0, 2, 1)}}
		if asked.Qtype == dns.TypeAAAA {
			reply.Answer = []dns.RR{&dns.AAAA{Hdr: head, AAAA: net.ParseIP("2001:db8::1")}}
		}
		change(reply)
		if raw, err := reply.Pack(); err == nil {
			send(raw)
		}
	}
	switch behaviour(u.is.Load()) {
	case quick:
		say(func(*dns.Msg) {})
	case slow:
		time.AfterFunc(slowness, func() { say(func(*dns.Msg) {}) })
	case lying:
		say(func(m *dns.Msg) { m.Id++ })
		say(func(m *dns.Msg) { m.Question[0].Name = "elsewhere.example." })
		say(func(m *dns.Msg) { m.Answer[0].Header().Name = "kubernetes.default.svc.cluster.local." })
		send([]byte{0, 1, 2})
	case dead:
	}
}
