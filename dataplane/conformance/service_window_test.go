package conformance_test

import (
	"encoding/binary"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// TestOutsideOfWindow: a segment that a server sends far outside of the window
// does not end its connection with a client of the Service, pod or node
// (kubernetes#74839, kubernetes#117924). To connection tracking it belongs to no
// connection, so that it is not translated back; the client then knows nothing
// of it and answers with a reset. This is why the agent sets
// nf_conntrack_tcp_be_liberal, as here.
func TestOutsideOfWindow(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 2)
	key := model.SliceKey{Namespace: web().Namespace, Name: web().Name + model.IPv4.String()}
	slice, _ := n.snapshot.Slices.Get(key)
	lasting := *slice
	lasting.Ports = []model.EndpointPort{{Name: "tcp", Protocol: model.TCP, Port: 9002}}
	n.snapshot.Slices = n.snapshot.Slices.With(key, &lasting)
	n.applyAll()
	liberal := func(value string) {
		for _, m := range n.machines {
			m.space.Do(func() {
				n.check(os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", []byte(value), 0))
			})
		}
	}
	for _, who := range []struct {
		name  string
		space *netnstest.Namespace
	}{{"a pod", n.machines[0].pod}, {"the node", n.machines[0].space}} {
		liberal("0")
		if n.survives(who.space) {
			t.Logf("this kernel translates segments outside of the window for %s, without the setting", who.name)
		}
		liberal("1")
		if !n.survives(who.space) {
			t.Errorf("a segment outside of the window ended the connection of %s", who.name)
		}
	}
}

// survives connects to web and has the pod of node 2, which serves it, send a
// segment that is ten million bytes ahead. It tells whether the connection is
// good after that.
func (n *serviceNet) survives(from *netnstest.Namespace) bool {
	n.t.Helper()
	var listener net.Listener
	var heard int // a socket that hears all segments to the server
	var client net.Conn
	n.machines[1].pod.Do(func() {
		var err error
		listener, err = net.Listen("tcp4", ":9002")
		n.check(err)
		heard, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		n.check(err)
		n.check(unix.SetsockoptTimeval(heard, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	})
	defer listener.Close()
	defer unix.Close(heard)
	from.Do(func() {
		var err error
		client, err = net.DialTimeout("tcp", n.vips(model.IPv4)["ClusterIP"].String(), 5*time.Second)
		n.check(err)
	})
	server, err := listener.Accept()
	n.check(err)
	if n.t.Failed() {
		n.t.FailNow()
	}
	defer server.Close()
	defer client.Close()
	exchange := func() error {
		for _, ends := range [][2]net.Conn{{client, server}, {server, client}} {
			for _, end := range ends {
				_ = end.SetDeadline(time.Now().Add(2 * time.Second))
			}
			if _, err := ends[0].Write([]byte("?")); err != nil {
				return err
			}
			if _, err := ends[1].Read(make([]byte, 1)); err != nil {
				return err
			}
		}
		return nil
	}
	n.check(exchange())
	n.sendAhead(heard, server)
	// What the segment provokes is on its way before the next ones are.
	for range 3 {
		if exchange() != nil {
			return false
		}
	}
	return true
}

// sendAhead sends a segment of a connection as its server would, with a sequence
// number that is far ahead of what the client's last one acknowledges.
func (n *serviceNet) sendAhead(socket int, of net.Conn) {
	n.t.Helper()
	own, peer := of.LocalAddr().(*net.TCPAddr).AddrPort(), of.RemoteAddr().(*net.TCPAddr).AddrPort()
	var last []byte // header of TCP
	for buffer := make([]byte, 2000); ; {
		length, from, err := unix.Recvfrom(socket, buffer, 0)
		if err != nil {
			n.t.Fatalf("no segment of the client was heard: %v", err)
		}
		header := buffer[int(buffer[0]&15)*4 : length]
		sender, ok := from.(*unix.SockaddrInet4)
		// The client's segments are its SYN, ACK, question, and the last ACK.
		if ok && sender.Addr == peer.Addr().Unmap().As4() && binary.BigEndian.Uint16(header) == peer.Port() && header[13] == 0x10 &&
			binary.BigEndian.Uint16(header[2:]) == own.Port() {
			if last != nil {
				last = header
				break
			}
			last = header
		}
	}
	tcp := binary.BigEndian.AppendUint16(nil, own.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, peer.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, binary.BigEndian.Uint32(last[8:])+10_000_000)
	tcp = binary.BigEndian.AppendUint32(tcp, binary.BigEndian.Uint32(last[4:]))
	tcp = append(tcp, 5<<4, 0x18, 0xff, 0xff, 0, 0, 0, 0, 'b', 'o', 'o', 'm')
	pseudo := append(own.Addr().Unmap().AsSlice(), peer.Addr().Unmap().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	to := &unix.SockaddrInet4{Addr: peer.Addr().Unmap().As4()}
	n.check(unix.Sendto(socket, tcp, 0, to))
}
