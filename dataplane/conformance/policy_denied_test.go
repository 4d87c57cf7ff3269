package conformance_test

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// TestUnfoundIsLogged: a packet of which nothing tells whether it is allowed is
// dropped, and that is logged too.
func TestUnfoundIsLogged(t *testing.T) {
	n := newPolicyNode(t, 2)
	own, peer := n.pods["pod1"][model.IPv4], n.pods["pod2"][model.IPv4]
	n.apply(policyWorld{}.between(peer, own, allows, denies))
	n.node.Do(func() {
		if out, err := exec.Command("nft", "flush", "map", "inet", nftables.TableName, "policy-rows").CombinedOutput(); err != nil {
			t.Fatalf("nft flush: %v: %s", err, out)
		}
	})
	log := n.listen()
	n.expect("a row that is gone", []wired{{device: "pod2", source: peer, destination: own, protocol: model.TCP, port: 80}}, func(wired) bool { return false })
	buffer := make([]byte, 64<<10)
	length, _, err := unix.Recvfrom(log, buffer, 0)
	if err != nil || !bytes.Contains(buffer[:length], []byte("fairlead "+nftables.LogUnfound)) {
		t.Errorf("%v: %q", err, buffer[:max(length, 0)])
	}
}

// TestDenied: what is denied is counted for the rule that denies it and the
// direction, and logged with a mark that tells the rule.
func TestDenied(t *testing.T) {
	n := newPolicyNode(t, 2)
	own, peer := n.pods["pod1"][model.IPv4], n.pods["pod2"][model.IPv4]
	rules := [...]policy.Rule{
		model.Ingress: {Policy: model.PolicyKey{Name: "in"}, Rule: 3}, model.Egress: {Policy: model.PolicyKey{Name: "out"}, Rule: policy.Isolated},
	}
	p := &policy.Plan{}
	for direction, rule := range rules {
		ports := &policy.Ports{Default: policy.Decision{By: rule}}
		subject := policy.Subject{Direction: model.Direction(direction), Address: own}
		p.Rows = p.Rows.With(ports.Row(), ports)
		p.Cells = p.Cells.With(policy.Cell{Subject: subject}, ports.Row())
	}
	n.apply(p)
	log := n.listen()
	in := wired{device: "pod2", source: peer, destination: own, protocol: model.TCP, port: 80}
	out := wired{device: "pod1", source: own, destination: peer, protocol: model.TCP, port: 80}
	n.expect("all is denied", []wired{in, in, out}, func(wired) bool { return false })

	buffer := make([]byte, 64<<10)
	var logged []policy.Rule
	for len(logged) < 3 {
		length, _, err := unix.Recvfrom(log, buffer, 0)
		if err != nil {
			t.Fatalf("after %d packets: %v", len(logged), err)
		}
		for _, message := range messages(buffer[:length]) {
			rule, known := n.plane.DeniedBy(markOf(message))
			if !known {
				t.Fatalf("nobody knows the rule of mark %d", markOf(message))
			}
			logged = append(logged, rule)
		}
	}
	if logged[0] != rules[model.Ingress] || logged[1] != rules[model.Ingress] || logged[2] != rules[model.Egress] {
		t.Errorf("logged are %v", logged)
	}
	n.node.Do(func() {
		denials, err := n.plane.Denials()
		n.check(err)
		seen := 0
		for _, denial := range denials {
			want := [...]uint64{model.Ingress: 2, model.Egress: 1}[denial.Direction]
			if denial.Rule != rules[denial.Direction] {
				want = 0
			}
			if denial.Packets != want || (denial.Bytes == 0) != (want == 0) {
				t.Errorf("%+v, want %d packets", denial, want)
			}
			seen += int(denial.Packets)
		}
		if seen != 3 {
			t.Errorf("counted are %+v", denials)
		}
	})
}

// listen opens a socket to what the node logs.
func (n *policyNode) listen() (fd int) {
	n.node.Do(func() {
		var err error
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		n.check(err)
		n.check(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
		const config = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG
		message := binary.NativeEndian.AppendUint32(nil, 28)
		message = binary.NativeEndian.AppendUint16(message, config)
		message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST)
		message = append(message, make([]byte, 8)...)
		message = append(message, 0, 0, 0, nftables.DeniedLogGroup)
		message = append(message, 5, 0, 1, 0, 1, 0, 0, 0) // NFULA_CFG_CMD: bind
		n.check(unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
		mode := bytes.Clone(message[:20])
		binary.NativeEndian.PutUint32(mode, 32)
		mode = append(mode, 10, 0, 2, 0, 0, 0, 0, 128, 2, 0, 0, 0) // NFULA_CFG_MODE: 128 bytes of packets
		n.check(unix.Sendto(fd, mode, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
		once := bytes.Clone(message[:20])
		binary.NativeEndian.PutUint32(once, 28)
		once = append(once, 8, 0, 5, 0, 0, 0, 0, 1) // NFULA_CFG_QTHRESH: each at once
		n.check(unix.Sendto(fd, once, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	})
	n.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// messages are those of packets in what a socket has received.
func messages(buffer []byte) (all [][]byte) {
	const packet = unix.NFNL_SUBSYS_ULOG << 8 // NFULNL_MSG_PACKET
	for len(buffer) >= 16 {
		length := min(int(binary.NativeEndian.Uint32(buffer)+3)&^3, len(buffer))
		if binary.NativeEndian.Uint16(buffer[4:]) == packet {
			all = append(all, buffer[20:length])
		}
		buffer = buffer[length:]
	}
	return all
}

// markOf is NFULA_MARK.
func markOf(message []byte) uint32 {
	for len(message) >= 4 {
		length := int(binary.NativeEndian.Uint16(message))
		if binary.NativeEndian.Uint16(message[2:]) == 2 {
			return binary.BigEndian.Uint32(message[4:])
		}
		message = message[min((length+3)&^3, len(message)):]
	}
	return 0
}
